"""Conversations: create, find, list, describe, fork; and the users that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables import conversation as table
from schema.tables import end_user, idempotency
from schema.tables import tenant as tenant_table
from server.database.connections import Database, driver_connection
from server.database.ids import ConversationId, keyed_hash, user_key, uuid7
from server.database.tenant import Tenant
from server.errors import DatabaseUnavailable, IdempotencyMismatch, InvalidInput, NotFound
from server.log.append import append_first
from server.log.events import NewEvent
from server.log.lineage import Lineage

MAX_LINEAGE = 10_000
_ATTEMPTS = 20  # at a creation that others overtake


class Conversation(NamedTuple):
    """A conversation without its events; ``metadata`` is JSON text."""

    id: ConversationId
    user: str | None
    origin_id: str | None
    metadata: str
    head: int
    floor: int
    created_at: datetime
    retention_days: int | None
    parent: UUID | None
    fork_seq: int | None

    @property
    def forked_from(self) -> ConversationId | None:
        return ConversationId(self.id.user_key, self.parent) if self.parent else None


_SHOWN = (
    table.c.user_key,
    table.c.id,
    table.c.user_id,
    table.c.origin_id,
    table.c.metadata,
    table.c.head,
    table.c.floor,
    table.c.created_at,
    table.c.retention_days,
    table.c.parent,
    table.c.fork_seq,
)


def from_row(row: tuple[Any, ...]) -> Conversation:
    """Make a conversation of a row of the columns shown."""
    return Conversation(ConversationId(row[0], row[1]), *row[2:])


def visible(tenant: Tenant, at: ConversationId) -> sa.ColumnElement[bool]:
    """Return the condition that finds one conversation of one tenant, unless it is deleted."""
    return sa.and_(
        table.c.user_key == at.user_key,
        table.c.id == at.uuid,
        table.c.tenant_id == tenant.id,
        table.c.deleted_at.is_(None),
    )


async def create(
    database: Database,
    tenant: Tenant,
    *,
    user: str | None = None,
    metadata: str = "{}",
    origin_id: str | None = None,
    idempotency_key: str | None = None,
    body: bytes = b"",
    items: Sequence[NewEvent] = (),
) -> Conversation:
    """Create a conversation with its first events, or return what the same ``origin_id`` or ``idempotency_key`` made.

    Raises IdempotencyMismatch when the key came with another body.
    """
    for _ in range(_ATTEMPTS):
        try:
            return await _create(database, tenant, user, metadata, origin_id, idempotency_key, body, items)
        except _Overtaken:
            continue
    raise DatabaseUnavailable("others keep creating and deleting this conversation; try again", retry_after=1)


class _Overtaken(Exception):
    """What we looked at is no longer so: another transaction created or deleted it in between."""


async def _create(
    database: Database,
    tenant: Tenant,
    user: str | None,
    metadata: str,
    origin_id: str | None,
    idempotency_key: str | None,
    body: bytes,
    items: Sequence[NewEvent],
) -> Conversation:
    uuid = uuid7()
    if user is not None:
        key = user_key(tenant.salt, "user", user)
    elif origin_id is not None:  # what makes the creation repeatable must also place it
        key = user_key(tenant.salt, "origin", origin_id)
    elif idempotency_key is not None:
        key = user_key(tenant.salt, "create", idempotency_key)
    else:
        key = user_key(tenant.salt, "conversation", uuid.hex)
    async with database.transaction(tenant) as connection:
        # Keeps the tenant's erasure from running until we have ended: it would not see what we write.
        held = sa.select(tenant_table.c.id).filter_by(id=tenant.id).with_for_update(key_share=True, read=True)
        if (await connection.execute(held)).first() is None:
            raise NotFound("this tenant has been erased")
        if user is not None:
            await _hold_user(connection, tenant, key, user)
        known = None
        if origin_id is not None:
            same = sa.select(table.c.id).filter_by(user_key=key, tenant_id=tenant.id, origin_id=origin_id)
            known = (await connection.execute(same)).scalar_one_or_none()
        at = ConversationId(key, known or uuid)
        if idempotency_key is not None:
            claimed = await _claim(connection, tenant, at, idempotency_key, body)
            if claimed != at:
                return await _still_there(connection, tenant, claimed)
        if known is not None:
            return await _still_there(connection, tenant, at)
        now = sa.func.clock_timestamp()
        values = {
            "user_key": key,
            "id": uuid,
            "tenant_id": tenant.id,
            "user_id": user,
            "origin_id": origin_id,
            "metadata": metadata,
            "recorded_at": now,
            "created_at": now,
        }
        # RETURNING tells whether a row went in; the driver's row count does not, under SQLAlchemy.
        inserted = insert(table).values(values).on_conflict_do_nothing().returning(table.c.id)
        if (await connection.execute(inserted)).first() is None:
            raise _Overtaken
        if items:
            await append_first(await driver_connection(connection), tenant, at, items)
        return await _get(connection, tenant, at)


async def _hold_user(connection: AsyncConnection, tenant: Tenant, key: int, user: str) -> None:
    """Make sure that the user exists, and keep its erasure from running until this transaction has ended."""
    values = {"user_key": key, "tenant_id": tenant.id, "id": user}
    row = sa.select(end_user.c.id).filter_by(**values).with_for_update(key_share=True, read=True)
    if (await connection.execute(row)).first() is None:
        await connection.execute(insert(end_user).values(values).on_conflict_do_nothing())
        if (await connection.execute(row)).first() is None:
            raise _Overtaken


async def _claim(
    connection: AsyncConnection, tenant: Tenant, at: ConversationId, idempotency_key: str, body: bytes
) -> ConversationId:
    """Claim an Idempotency-Key for a creation; returns what the first request with it created, ``at`` if this is it."""
    hashed = keyed_hash(tenant.salt, "body", body)
    mine = {"user_key": at.user_key, "key_digest": keyed_hash(tenant.salt, "create", idempotency_key)}
    claim = insert(idempotency).values(
        **mine, tenant_id=tenant.id, body_digest=hashed, conversation=at.uuid, seqs=[], head=0
    )
    claimed = claim.on_conflict_do_nothing().returning(idempotency.c.conversation)
    if (await connection.execute(claimed)).first() is not None:
        return at
    first = sa.select(idempotency.c.conversation, idempotency.c.body_digest).filter_by(**mine, tenant_id=tenant.id)
    row = (await connection.execute(first)).one_or_none()
    if row is None:
        raise _Overtaken
    if bytes(row.body_digest) != hashed:
        raise IdempotencyMismatch("this Idempotency-Key was used with another body", param="Idempotency-Key")
    return ConversationId(at.user_key, row.conversation)


async def _still_there(connection: AsyncConnection, tenant: Tenant, at: ConversationId) -> Conversation:
    try:
        return await _get(connection, tenant, at)
    except NotFound:
        raise _Overtaken from None


async def _get(connection: AsyncConnection, tenant: Tenant, at: ConversationId) -> Conversation:
    row = (await connection.execute(sa.select(*_SHOWN).where(visible(tenant, at)))).first()
    if row is None:
        raise NotFound("no such conversation")
    return from_row(tuple(row))


async def get(database: Database, tenant: Tenant, at: ConversationId) -> Conversation:
    """Return one conversation; raises NotFound."""
    async with database.transaction(tenant) as connection:
        return await _get(connection, tenant, at)


async def listing(
    database: Database,
    tenant: Tenant,
    *,
    user: str | None = None,
    origin_id: str | None = None,
    after: UUID | None = None,
    limit: int = 20,
    descending: bool = True,
) -> tuple[list[Conversation], bool]:
    """Return conversations in order of creation, and whether there are more after them."""
    query = sa.select(*_SHOWN).where(table.c.tenant_id == tenant.id, table.c.deleted_at.is_(None))
    if user is not None:
        query = query.where(table.c.user_key == user_key(tenant.salt, "user", user), table.c.user_id == user)
    if origin_id is not None:
        query = query.where(table.c.origin_id == origin_id)
    if after is not None:
        query = query.where(table.c.id < after if descending else table.c.id > after)
    query = query.order_by(table.c.id.desc() if descending else table.c.id).limit(limit + 1)
    async with database.transaction(tenant) as connection:
        rows = (await connection.execute(query)).all()
    return [from_row(tuple(row)) for row in rows[:limit]], len(rows) > limit


async def describe(
    database: Database,
    tenant: Tenant,
    at: ConversationId,
    *,
    metadata: str | None = None,
    retention_days: int | sa.Null | None = None,
) -> Conversation:
    """Replace a conversation's metadata or retention (``sa.null()`` clears the latter); raises NotFound."""
    values: dict[str, Any] = {}
    if metadata is not None:
        values["metadata"] = metadata
    if retention_days is not None:
        values["retention_days"] = retention_days
    async with database.transaction(tenant) as connection:
        if values:
            await connection.execute(sa.update(table).where(visible(tenant, at)).values(values))
        return await _get(connection, tenant, at)


async def fork(
    database: Database,
    tenant: Tenant,
    at: ConversationId,
    at_seq: int,
    *,
    metadata: str | None = None,
    origin_id: str | None = None,
) -> Conversation:
    """Create a conversation that shares the first ``at_seq`` events of another and goes its own way from there.

    Nothing is copied. Raises NotFound, and InvalidInput for a seq beyond the head or a lineage of over 10,000 owners.
    """
    uuid = uuid7(after=at.uuid)  # an export lists conversations by id, and a parent comes before its forks
    async with database.transaction(tenant) as connection:
        # Shared, so that the parent cannot be deleted between our look at it and our commit.
        query = sa.select(table).where(visible(tenant, at)).with_for_update(read=True)
        parent = (await connection.execute(query)).mappings().first()
        if parent is None:
            raise NotFound("no such conversation")
        if origin_id is not None:
            known = sa.select(table.c.id).filter_by(user_key=at.user_key, tenant_id=tenant.id, origin_id=origin_id)
            existing = (await connection.execute(known)).scalar_one_or_none()
            if existing is not None:
                return await _get(connection, tenant, ConversationId(at.user_key, existing))
        if not 0 <= at_seq <= parent["head"]:
            raise InvalidInput(
                f"at_seq is {at_seq}, but the conversation has events 1 to {parent['head']}", param="at_seq"
            )
        lineage = Lineage(parent["lineage"] or [], parent["lineage_end"] or []).at(at.uuid, at_seq)
        if len(lineage.owners) > MAX_LINEAGE:
            raise InvalidInput(
                f"forks nest at most {MAX_LINEAGE} deep; export this one and import it anew", param="at_seq"
            )
        now = sa.func.clock_timestamp()
        await connection.execute(
            sa.insert(table).values(
                user_key=at.user_key,
                id=uuid,
                tenant_id=tenant.id,
                user_id=parent["user_id"],
                origin_id=origin_id,
                metadata=parent["metadata"] if metadata is None else metadata,
                head=at_seq,
                floor=min(parent["floor"], at_seq),
                recorded_at=sa.func.greatest(parent["recorded_at"], now),
                created_at=now,
                retention_days=parent["retention_days"],
                parent=at.uuid,
                fork_seq=at_seq,
                lineage=lineage.owners,
                lineage_end=lineage.ends,
            )
        )
        return await _get(connection, tenant, ConversationId(at.user_key, uuid))


async def users(
    database: Database, tenant: Tenant, *, after: str | None = None, limit: int = 20, descending: bool = False
) -> tuple[list[tuple[str, datetime]], bool]:
    """Return users (name, when first seen) in order of name, and whether there are more."""
    query = sa.select(end_user.c.id, end_user.c.created_at).where(end_user.c.tenant_id == tenant.id)
    if after is not None:
        query = query.where(end_user.c.id < after if descending else end_user.c.id > after)
    query = query.order_by(end_user.c.id.desc() if descending else end_user.c.id).limit(limit + 1)
    async with database.transaction(tenant) as connection:
        rows = (await connection.execute(query)).all()
    return [(name, created) for name, created in rows[:limit]], len(rows) > limit
