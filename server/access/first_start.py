"""The admin key at every start: made when the database is new, and made again where it was lost."""

from __future__ import annotations

from pathlib import Path

import structlog
from sqlalchemy import func, or_, select

from schema.access import api_key, tenant
from server.access import admin_key
from server.access.key_format import digest
from server.access.keys import insert_key
from server.access.tenants import bootstrap
from server.database.connections import Database
from server.errors import DatabaseRefused

_log = structlog.get_logger()


async def ensure_admin_key(database: Database, data_dir: Path, *, embedded: bool) -> Path | None:
    """Return the file in the data directory that holds the admin key, made if need be.

    A new database gets its first tenant and key. In an embedded one that has tenants, a key file that is missing or no
    longer works gets a new key of the operator's tenant, the others staying: whoever may write the data directory owns
    the data, so this gives nothing away. An external database with tenants gets no further keys: None, when this
    machine holds none of it. Raises DatabaseRefused when no tenant is the operator's.
    """
    secret = await bootstrap(database)
    if secret is None:
        kept = admin_key.read(data_dir)
        if kept is not None and await _works(database, kept):
            return admin_key.path(data_dir)
        if not embedded:
            return None
        secret = await _new_key(database)
        problem = "was missing or unreadable" if kept is None else "no longer worked"
        file = str(admin_key.path(data_dir))
        _log.warning("made a new admin key; the old ones stay valid until revoked", file=file, why=problem)
    admin_key.write(data_dir, secret)
    return admin_key.path(data_dir)


async def _works(database: Database, secret: str) -> bool:
    statement = (
        select(api_key.c.id)
        .join(tenant, tenant.c.id == api_key.c.tenant_id)
        .where(
            api_key.c.digest == digest(secret),
            api_key.c.revoked_at.is_(None),
            or_(api_key.c.expires_at.is_(None), api_key.c.expires_at > func.now()),
            api_key.c.scopes.contains(["admin"]),
            tenant.c.operator,
        )
    )
    async with database.transaction(None, operator=True) as connection:
        return await connection.scalar(statement) is not None


async def _new_key(database: Database) -> str:
    async with database.transaction(None, operator=True) as connection:
        owner = await connection.scalar(select(tenant.c.id).where(tenant.c.operator).order_by(tenant.c.id).limit(1))
        if owner is None:
            raise DatabaseRefused(
                "no tenant of this database is the operator's, so nobody can manage it; restore a backup"
            )
        _, secret = await insert_key(connection, owner, name="admin", scopes=["admin"])
    return secret
