"""Tenants: created, found, listed, changed; and the first one, made when a database is new.

A tenant is addressed by its wire id ``ten_<number>`` or by its name, which therefore never begins with ``ten_``.
Erasing a tenant with all it holds belongs to the erasure of log data, not here.
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, Select, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from schema.access import tenant
from server.access.keys import insert_key
from server.database.connections import Database
from server.database.tenant import Tenant
from server.errors import Conflict, InvalidInput, NotFound

NAME_PATTERN: Final = "^(?!ten_)[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MAX_RETENTION_DAYS: Final = 36500

_NAME = re.compile(NAME_PATTERN.strip("^$"), re.ASCII)
_ID = re.compile(r"ten_([1-9][0-9]{0,9})", re.ASCII)
_LARGEST_ID: Final = 2**31 - 1
_BOOTSTRAP_LOCK: Final = 0x7475_726E_0001  # "turn", then which of its locks
_COLUMNS: Final = (
    tenant.c.id,
    tenant.c.name,
    tenant.c.salt,
    tenant.c.operator,
    tenant.c.retention_days,
    tenant.c.created_at,
)


class TenantRow(NamedTuple):
    """A tenant and when it was created."""

    tenant: Tenant
    created_at: datetime

    @property
    def wire_id(self) -> str:
        return wire_id(self.tenant.id)


class Unchanged:
    """What ``update_tenant`` leaves as it is, since None clears."""


UNCHANGED: Final = Unchanged()


def wire_id(tenant_id: int) -> str:
    """Return the id of a tenant as callers see it."""
    return f"ten_{tenant_id}"


def parse_id(text: str) -> int | None:
    """Return the number of a wire id, or None for what is not one."""
    match = _ID.fullmatch(text)
    return int(match[1]) if match and int(match[1]) <= _LARGEST_ID else None


async def create_tenant(database: Database, name: str, *, retention_days: int | None = None) -> TenantRow:
    """Create a tenant with a salt of its own; raises Conflict when the name is taken, InvalidInput for a bad one."""
    _check(name, retention_days)
    statement = (
        insert(tenant)
        .values(name=name, salt=secrets.token_bytes(32), retention_days=retention_days)
        .on_conflict_do_nothing(index_elements=[tenant.c.name])
        .returning(*_COLUMNS)
    )
    async with database.transaction(None, operator=True) as connection:
        row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise _taken(name)
    return _row(row)


async def find_tenant(database: Database, reference: str, *, caller: Tenant) -> TenantRow:
    """Return the tenant with this wire id or name, if the caller may see it; raises NotFound otherwise.

    An operator sees all tenants, another caller its own: row-level security hides the others, so that a tenant that
    exists and one that does not cost the same and answer the same.
    """
    statement = _by_reference(reference)
    async with database.transaction(caller, operator=caller.operator) as connection:
        row = None if statement is None else (await connection.execute(statement)).one_or_none()
    if row is None:
        raise _missing()
    return _row(row)


async def list_tenants(
    database: Database, *, after: int | None = None, limit: int = 20, descending: bool = True
) -> tuple[list[TenantRow], bool]:
    """Return up to ``limit`` tenants by age, and whether there are more; for operators."""
    statement = select(*_COLUMNS).order_by(tenant.c.id.desc() if descending else tenant.c.id).limit(limit + 1)
    if after is not None:
        statement = statement.where(tenant.c.id < after if descending else tenant.c.id > after)
    async with database.transaction(None, operator=True) as connection:
        rows = [_row(row) for row in await connection.execute(statement)]
    return rows[:limit], len(rows) > limit


async def update_tenant(
    database: Database,
    tenant_id: int,
    *,
    name: str | Unchanged = UNCHANGED,
    retention_days: int | Unchanged | None = UNCHANGED,
) -> TenantRow:
    """Change a tenant's name or retention (None keeps events for good), and return it.

    Raises Conflict when the name is taken, InvalidInput for a bad value, NotFound when there is no such tenant.
    """
    values: dict[str, Any] = {
        column: value
        for column, value in (("name", name), ("retention_days", retention_days))
        if not isinstance(value, Unchanged)
    }
    _check(values.get("name"), values.get("retention_days"))
    changed = update(tenant).where(tenant.c.id == tenant_id).values(values).returning(*_COLUMNS)
    statement = changed if values else select(*_COLUMNS).where(tenant.c.id == tenant_id)
    try:
        async with database.transaction(tenant_id) as connection:
            row = (await connection.execute(statement)).one_or_none()
    except IntegrityError as error:
        raise _taken(values["name"]) from error
    if row is None:
        raise _missing()
    return _row(row)


async def bootstrap(database: Database) -> str | None:
    """Make a new database usable: create the operator's tenant ``default`` and return its admin key's secret.

    Returns None when there is a tenant already. Servers that start at once take turns, so one of them does it.
    """
    async with database.transaction(None, operator=True) as connection:
        await connection.execute(select(func.pg_advisory_xact_lock(_BOOTSTRAP_LOCK)))
        if await connection.scalar(select(tenant.c.id).limit(1)) is not None:
            return None
        tenant_id: int | None = await connection.scalar(
            insert(tenant).values(name="default", salt=secrets.token_bytes(32), operator=True).returning(tenant.c.id)
        )
        assert tenant_id is not None
        _, secret = await insert_key(connection, tenant_id, name="admin", scopes=["admin"])
        return secret


def _by_reference(reference: str) -> Select[Any] | None:
    number = parse_id(reference)
    if number is not None:
        return select(*_COLUMNS).where(tenant.c.id == number)
    return select(*_COLUMNS).where(tenant.c.name == reference) if _NAME.fullmatch(reference) else None


def _check(name: str | None, retention_days: int | None) -> None:
    if name is not None and not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is not a tenant's name: 1 to 64 letters, digits, '.', '_' and '-', not beginning with 'ten_'",
            param="name",
        )
    if retention_days is not None and not 1 <= retention_days <= MAX_RETENTION_DAYS:
        raise InvalidInput(
            f"{retention_days} days of retention is not between 1 and {MAX_RETENTION_DAYS}", param="retention_days"
        )


def _taken(name: str) -> Conflict:
    return Conflict(f"there is a tenant named {name!r} already; choose another name", param="name")


def _missing() -> NotFound:
    return NotFound("there is no such tenant")


def _row(row: Row[*tuple[Any, ...]]) -> TenantRow:
    return TenantRow(Tenant(*row[:-1]), row[-1])
