"""The salt of a restored tenant: ids and keyed hashes stay what they were only under the salt that made them."""

from __future__ import annotations

import asyncio
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables import conversation, end_user, erasure
from schema.tables import tenant as tenant_table
from server.database.connections import Database
from server.database.tenant import Tenant
from server.errors import Conflict, TenantNotEmpty
from server.log.erase import ROLE

# Longer than any process trusts what it has read of a tenant (half a second), so that none goes on with the old salt.
SETTLE: Final = 1.0


async def adopt_salt(database: Database, tenant: Tenant, salt: bytes) -> None:
    """Give an empty tenant the salt of an export; raises TenantNotEmpty where ids cannot be kept."""
    mine = tenant_table.c.id == tenant.id
    # As an operator only to see that no other tenant has the salt: it would have the same ids.
    async with database.transaction(tenant, role=ROLE, operator=True) as connection:
        current = await connection.scalar(sa.select(tenant_table.c.salt).where(mine).with_for_update())
        if current is not None and bytes(current) == salt:
            return
        if not await _is_empty(connection, tenant):
            raise TenantNotEmpty("this export is of another tenant, and this one is not empty: its ids cannot be kept")
        taken = sa.select(tenant_table.c.id).where(tenant_table.c.salt == salt).limit(1)
        if await connection.scalar(taken) is not None:
            raise TenantNotEmpty("this export is of a tenant of this server: its ids cannot be kept in another")
        await connection.execute(sa.update(tenant_table).where(mine).values(salt=salt))
    await asyncio.sleep(SETTLE)
    async with database.transaction(tenant, role=ROLE) as connection:
        if not await _is_empty(connection, tenant):
            raise Conflict("something wrote to this tenant as the restore began; stop it, and use an empty tenant")


async def _is_empty(connection: AsyncConnection, tenant: Tenant) -> bool:
    for table in (conversation, end_user, erasure):
        if await connection.scalar(sa.select(1).select_from(table).where(table.c.tenant_id == tenant.id).limit(1)):
            return False
    return True


async def check_salt(connection: AsyncConnection, tenant: Tenant, salt: bytes) -> None:
    """Hold the tenant's row, so that it keeps its salt until the transaction ends; raises TenantNotEmpty."""
    row = sa.select(tenant_table.c.salt).where(tenant_table.c.id == tenant.id).with_for_update(read=True)
    current = await connection.scalar(row)
    if current is None or bytes(current) != salt:
        raise TenantNotEmpty("this tenant has another salt than the export: its ids cannot be kept")
