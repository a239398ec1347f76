"""API keys: made, listed, revoked. Only the SHA-256 of a key is kept, so it can be shown once and never again."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.access import api_key
from schema.access import tenant as tenant_table
from schema.vocabulary import SCOPES
from server.access.key_format import PREFIX_LENGTH, digest, new_secret, parse_id, wire_id
from server.database.connections import Database
from server.database.ids import uuid7
from server.errors import InvalidInput, NotFound

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)  # Python reads no year over 9999, whatever its time zone
_COLUMNS: Final = (
    api_key.c.id,
    api_key.c.tenant_id,
    api_key.c.name,
    api_key.c.prefix,
    api_key.c.scopes,
    api_key.c.rate_limit,
    api_key.c.created_at,
    api_key.c.expires_at,
    api_key.c.revoked_at,
)


class Key(NamedTuple):
    """A key as it is stored, without its digest; ``rate_limit`` is in requests per second."""

    id: UUID
    tenant_id: int
    name: str
    prefix: str
    scopes: tuple[str, ...]
    rate_limit: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @property
    def wire_id(self) -> str:
        return wire_id(self.id)


async def create_key(
    database: Database,
    tenant_id: int,
    *,
    name: str,
    scopes: Collection[str],
    expires_at: datetime | None = None,
    rate_limit: int | None = None,
) -> tuple[Key, str]:
    """Create a key of a tenant and return it with its secret, which is stored nowhere.

    Raises InvalidInput for a name, scopes, an expiry or a limit that cannot be, NotFound when there is no such tenant.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is not a name: 1 to 100 characters, no control characters", param="name")
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise InvalidInput(f"scopes {unknown} do not exist; give some of {', '.join(SCOPES)}", param="scopes")
    if expires_at is not None and not datetime.now(UTC) < expires_at < _LATEST:
        raise InvalidInput(f"expires_at {expires_at.isoformat()} is past, or beyond the year 9000", param="expires_at")
    if rate_limit is not None and rate_limit < 1:
        raise InvalidInput(f"a rate limit of {rate_limit} lets nothing through; give 1 or more", param="rate_limit")
    async with database.transaction(tenant_id) as connection:
        exists = await connection.scalar(select(tenant_table.c.id).where(tenant_table.c.id == tenant_id))
        if exists is None:
            raise NotFound("there is no such tenant")
        return await insert_key(
            connection, tenant_id, name=name, scopes=scopes, expires_at=expires_at, rate_limit=rate_limit
        )


async def insert_key(
    connection: AsyncConnection,
    tenant_id: int,
    *,
    name: str,
    scopes: Collection[str],
    expires_at: datetime | None = None,
    rate_limit: int | None = None,
) -> tuple[Key, str]:
    """Insert a key within the caller's transaction; its values are taken as they are."""
    secret = new_secret()
    row = await connection.execute(
        insert(api_key)
        .values(
            id=uuid7(),
            tenant_id=tenant_id,
            name=name,
            digest=digest(secret),
            prefix=secret[:PREFIX_LENGTH],
            scopes=[scope for scope in SCOPES if scope in scopes],
            expires_at=expires_at,
            rate_limit=rate_limit,
        )
        .returning(*_COLUMNS)
    )
    return _key(row.one()), secret


async def list_keys(
    database: Database, tenant_id: int, *, after: UUID | None = None, limit: int = 20, descending: bool = True
) -> tuple[list[Key], bool]:
    """Return up to ``limit`` keys of a tenant by age, revoked ones included, and whether there are more."""
    statement = select(*_COLUMNS).where(api_key.c.tenant_id == tenant_id)
    if after is not None:
        statement = statement.where(api_key.c.id < after if descending else api_key.c.id > after)
    statement = statement.order_by(api_key.c.id.desc() if descending else api_key.c.id).limit(limit + 1)
    async with database.transaction(tenant_id) as connection:
        keys = [_key(row) for row in await connection.execute(statement)]
    return keys[:limit], len(keys) > limit


async def get_key(database: Database, tenant_id: int, key_id: str) -> Key:
    """Return one key of a tenant by its wire id; raises NotFound, for another tenant's key too."""
    statement = select(*_COLUMNS).where(api_key.c.id == parse_id(key_id), api_key.c.tenant_id == tenant_id)
    async with database.transaction(tenant_id) as connection:
        row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise _missing()
    return _key(row)


async def revoke_key(database: Database, tenant_id: int, key_id: str) -> Key:
    """Revoke a key for good and return it; it is refused everywhere within a second.

    Revoking again changes nothing: the first time stays. Raises NotFound, for another tenant's key too.
    """
    statement = (
        update(api_key)
        .where(api_key.c.id == parse_id(key_id), api_key.c.tenant_id == tenant_id)
        .values(revoked_at=func.coalesce(api_key.c.revoked_at, func.now()))
        .returning(*_COLUMNS)
    )
    async with database.transaction(tenant_id) as connection:
        row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise _missing()
    return _key(row)


def _missing() -> NotFound:
    # A malformed id is looked up too, as NULL: the same words and work as for a missing key and another tenant's.
    return NotFound("there is no such key")


def _key(row: Row[*tuple[Any, ...]]) -> Key:
    values = row._asdict()
    return Key(**{**values, "scopes": tuple(values["scopes"])})
