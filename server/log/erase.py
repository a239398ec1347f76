"""Erasure: of one event, a conversation, a user, a tenant.

An event belongs to the conversation that appended it: erased, it is gone from every fork too, and a tombstone keeps its
place. A deleted conversation keeps only what live forks of it still show, until they go too. Gone means unreadable at
commit, and off the heap after the next vacuum; WAL and backups made before hold it until they are rotated out.

A server may answer from memory for FORGOTTEN_EVERYWHERE seconds after it has compared that with the database, where a
caller asks for no more than it had seen. So an erasure returns that much after its commit: then no server shows what is
gone. Retention, which nobody waits for, does without.

Rows are locked in the order of conversation ids, as appends do.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.embeddings import is_relation
from schema.tables import (
    api_key,
    checkpoint,
    embedding_comparison,
    embedding_failure,
    embedding_progress,
    end_user,
    erasure,
    event,
    golden_question,
    golden_set,
    idempotency,
    retry_chain,
    snapshot,
    touch,
)
from schema.tables import conversation as table
from schema.tables import tenant as tenant_table
from server.database.connections import Database
from server.database.ids import ConversationId, keyed_hash, user_key, uuid7
from server.database.tenant import Tenant
from server.errors import InvalidInput, NotFound
from server.log.lineage import Lineage
from server.log.registry import HOLDINGS, vectors

ROLE = "turnstone_eraser"
FORGOTTEN_EVERYWHERE = 0.1  # seconds
RELATIONS_LOCK = 0x7475726E_64726F70  # "turndrop": shared by erasures, alone for who drops a relation of vectors
_REVOKED_EVERYWHERE = 1.0  # seconds


async def erase_event(
    database: Database, tenant: Tenant, at: ConversationId, seq: int, *, actor: str
) -> list[ConversationId]:
    """Erase one event that a conversation shows; returns the conversations that changed, none when it was gone already.

    Its owner's log gains an ``erasure`` event that names the seq, so that followers learn of it. Raises NotFound, and
    InvalidInput for an ``erasure`` or a ``deletion``.
    """
    changed = await _erase_event(database, tenant, at, seq, actor)
    await asyncio.sleep(FORGOTTEN_EVERYWHERE)  # also when somebody else erased it: that may have been just now
    return changed


async def _erase_event(
    database: Database, tenant: Tenant, at: ConversationId, seq: int, actor: str
) -> list[ConversationId]:
    async with database.transaction(tenant, role=ROLE) as connection:
        shown = (await connection.execute(sa.select(table).where(_mine(tenant, at)))).mappings().first()
        if shown is None or shown["deleted_at"] is not None:
            raise NotFound("no such conversation")
        owner = Lineage(shown["lineage"] or [], shown["lineage_end"] or []).owner(at.uuid, seq)
        rows = await lock(
            connection, tenant, at.user_key, sa.or_(table.c.id == owner, table.c.lineage.contains([owner]))
        )
        if owner not in rows or at.uuid not in rows or rows[at.uuid]["deleted_at"] is not None:
            raise NotFound("no such conversation")
        kind = await connection.scalar(
            sa.select(event.c.type).where(
                event.c.user_key == at.user_key,
                event.c.conversation == owner,
                event.c.seq == seq,
                event.c.tenant_id == tenant.id,
            )
        )
        if kind is None:
            raise NotFound("no such event")
        if kind in ("erasure", "deletion"):
            raise InvalidInput(f"this event is of type {kind}: it names a seq and holds nothing that could be erased")
        if not await forget(connection, tenant, at.user_key, owner, "erase_events", seq, seq):
            return []
        await connection.execute(
            sa.update(table)
            .where(table.c.user_key == at.user_key, table.c.tenant_id == tenant.id, table.c.id.in_(list(rows)))
            .values(epoch=table.c.epoch + 1)
        )
        if rows[owner]["deleted_at"] is None:
            await _append_erasure(connection, tenant, ConversationId(at.user_key, owner), seq)
        await record(connection, tenant, at.user_key, "event", actor, 1, conversation=owner, low=seq, high=seq)
        return [ConversationId(at.user_key, changed) for changed in rows]


async def erase_conversation(database: Database, tenant: Tenant, at: ConversationId, *, actor: str) -> None:
    """Delete a conversation with all of its own events, as far as no live fork shows them; raises NotFound."""
    await remove_conversation(database, tenant, at, actor=actor)
    await asyncio.sleep(FORGOTTEN_EVERYWHERE)


async def remove_conversation(
    database: Database, tenant: Tenant, at: ConversationId, *, actor: str, scope: str = "conversation"
) -> None:
    """Do what ``erase_conversation`` does, without waiting for other servers to forget it."""
    async with database.transaction(tenant, role=ROLE) as connection:
        lineage = (await connection.execute(sa.select(table.c.lineage).where(_mine(tenant, at)))).scalar()
        rows = await lock(connection, tenant, at.user_key, table.c.id.in_([at.uuid, *(lineage or [])]))
        row = rows.get(at.uuid)
        if row is None or row["deleted_at"] is not None:
            raise NotFound("no such conversation")
        gone = {
            "deleted_at": sa.func.clock_timestamp(),
            "metadata": "{}",
            "origin_id": None,
            "epoch": table.c.epoch + 1,
        }
        await connection.execute(sa.update(table).where(_mine(tenant, at)).values(gone))
        # What is about the conversation itself, and not shared by its forks.
        for other in (idempotency, retry_chain, snapshot, golden_question, embedding_comparison):
            mine = (other.c.user_key == at.user_key, other.c.conversation == at.uuid, other.c.tenant_id == tenant.id)
            await connection.execute(sa.delete(other).where(*mine))
        erased = await _release(connection, tenant, at)
        for ancestor, state in rows.items():
            if ancestor != at.uuid and state["deleted_at"] is not None:
                await _release(connection, tenant, ConversationId(at.user_key, ancestor))
        await record(connection, tenant, at.user_key, scope, actor, erased, conversation=at.uuid)


async def was_erased(database: Database, tenant: Tenant, at: ConversationId) -> bool:
    """Say whether there was such a conversation, and a caller has deleted it."""
    mine = erasure.c.user_key == at.user_key, erasure.c.tenant_id == tenant.id, erasure.c.conversation == at.uuid
    query = sa.select(erasure.c.id).where(*mine, erasure.c.scope == "conversation").limit(1)
    async with database.transaction(tenant) as connection:
        return (await connection.execute(query)).first() is not None


async def erase_user(database: Database, tenant: Tenant, user: str, *, actor: str) -> int:
    """Erase a user with everything in all of its conversations; returns how many events went. Raises NotFound."""
    key = user_key(tenant.salt, "user", user)
    mine = sa.and_(end_user.c.user_key == key, end_user.c.tenant_id == tenant.id, end_user.c.id == user)
    async with database.transaction(tenant, role=ROLE) as connection:
        if (await connection.execute(sa.select(end_user.c.id).where(mine).with_for_update())).first() is None:
            raise NotFound("no such user")
        # The user's row keeps new conversations out.
        rows = await lock(connection, tenant, key, table.c.user_id == user)
        erased = 0
        for uuid in sorted(rows):
            erased += await forget(connection, tenant, key, uuid, "drop_conversation")
        for other in (golden_question, embedding_comparison):  # what was asked of all conversations at once, too
            own = other.c.user_key == key, other.c.tenant_id == tenant.id
            await connection.execute(sa.delete(other).where(*own))
        await connection.execute(sa.delete(end_user).where(mine))
        await record(
            connection, tenant, key, "user", actor, erased, user_digest=keyed_hash(tenant.salt, "erased_user", user)
        )
    await asyncio.sleep(FORGOTTEN_EVERYWHERE)
    return erased


async def erase_tenant(database: Database, tenant: Tenant, *, actor: str) -> None:
    """Erase a tenant with its keys, users, conversations and events; the record of it stays.

    Its keys are revoked first, and given the second in which every server comes to know it: nothing is written behind
    the erasure.
    """
    async with database.transaction(tenant) as connection:
        live = sa.update(api_key).where(api_key.c.tenant_id == tenant.id, api_key.c.revoked_at.is_(None))
        await connection.execute(live.values(revoked_at=sa.func.now()))
    await asyncio.sleep(_REVOKED_EVERYWHERE)
    async with database.transaction(tenant, role=ROLE) as connection:
        await connection.execute(sa.delete(tenant_table).where(tenant_table.c.id == tenant.id))
        every = sa.select(table.c.id).where(table.c.tenant_id == tenant.id).order_by(table.c.user_key, table.c.id)
        await connection.execute(every.with_for_update())
        erased = (await connection.execute(sa.delete(event).where(event.c.tenant_id == tenant.id))).rowcount
        derived = (idempotency, retry_chain, touch, checkpoint, snapshot, embedding_progress, embedding_failure)
        judged = (embedding_comparison, golden_question, golden_set)
        for other in (*derived, *judged, table, end_user):
            await connection.execute(sa.delete(other).where(other.c.tenant_id == tenant.id))
        for relation in await _relations(connection):
            mine = sa.table(relation, sa.column("tenant_id"))
            await connection.execute(sa.delete(mine).where(mine.c.tenant_id == tenant.id))
        await record(connection, tenant, 0, "tenant", actor, erased)


async def listing(
    database: Database, tenant: Tenant, *, after: UUID | None, limit: int, descending: bool
) -> tuple[list[sa.Row[Any]], bool]:
    """Return erasure records in order of time, and whether there are more."""
    query = sa.select(erasure).where(erasure.c.tenant_id == tenant.id)
    if after is not None:
        query = query.where(erasure.c.id < after if descending else erasure.c.id > after)
    query = query.order_by(erasure.c.id.desc() if descending else erasure.c.id).limit(limit + 1)
    async with database.transaction(tenant) as connection:
        rows = (await connection.execute(query)).all()
    return list(rows[:limit]), len(rows) > limit


def _mine(tenant: Tenant, at: ConversationId) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.user_key == at.user_key, table.c.id == at.uuid, table.c.tenant_id == tenant.id)


async def lock(
    connection: AsyncConnection, tenant: Tenant, key: int, which: sa.ColumnElement[bool]
) -> dict[UUID, sa.RowMapping]:
    """Lock a user's conversations in the order of their ids, and return their rows as they are then.

    A fork that was being made while we waited for its parent's lock shows up in the next look.
    """
    query = (
        sa.select(table)
        .where(table.c.user_key == key, table.c.tenant_id == tenant.id, which)
        .order_by(table.c.id)
        .with_for_update()
    )
    known: set[UUID] = set()
    while True:
        rows = {row["id"]: row for row in (await connection.execute(query)).mappings()}
        if rows.keys() <= known:
            return rows
        known |= rows.keys()


async def _release(connection: AsyncConnection, tenant: Tenant, at: ConversationId) -> int:
    """Drop what no live fork shows of a deleted conversation; returns how many events went."""
    place = sa.func.array_position(table.c.lineage, at.uuid)
    shared = await connection.scalar(
        sa.select(sa.func.max(table.c.lineage_end[place])).where(
            table.c.user_key == at.user_key,
            table.c.tenant_id == tenant.id,
            table.c.deleted_at.is_(None),
            table.c.lineage.contains([at.uuid]),
        )
    )
    if shared is None:
        return await forget(connection, tenant, at.user_key, at.uuid, "drop_conversation")
    erased = await forget(connection, tenant, at.user_key, at.uuid, "drop_events", shared + 1, 2**62)
    await connection.execute(sa.update(table).where(_mine(tenant, at)).values(head=shared))
    return erased


async def forget(
    connection: AsyncConnection, tenant: Tenant, key: int, owner: UUID, level: str, low: int = 0, high: int = 2**62
) -> int:
    """Run one level of the registry; returns how many events it touched."""
    parameters = {"tenant": tenant.id, "user_key": key, "conversation": owner, "low": low, "high": high}
    touched = 0
    for holding in (*HOLDINGS, *map(vectors, await _relations(connection))):
        statement = getattr(holding, level)
        if statement is not None:
            result = await connection.execute(sa.text(statement), parameters)
            if holding.table == "event":
                touched = result.rowcount
    return touched


async def _relations(connection: AsyncConnection) -> list[str]:
    """Return the relations of vectors, of whatever version: those being filled and those no longer read, too.

    None of them is dropped before this transaction ends.
    """
    await connection.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(RELATIONS_LOCK)))
    names = await connection.scalars(
        sa.text("SELECT CAST(tablename AS text) FROM pg_tables WHERE schemaname = 'public'")
    )
    return sorted(name for name in names if is_relation(name))


async def _append_erasure(connection: AsyncConnection, tenant: Tenant, at: ConversationId, seq: int) -> None:
    bumped = (
        await connection.execute(
            sa.update(table)
            .where(_mine(tenant, at))
            .values(head=table.c.head + 1, recorded_at=sa.func.greatest(table.c.recorded_at, sa.func.clock_timestamp()))
            .returning(table.c.head, table.c.recorded_at)
        )
    ).one()
    await connection.execute(
        sa.insert(event).values(
            user_key=at.user_key,
            conversation=at.uuid,
            seq=bumped.head,
            recorded_at=bumped.recorded_at,
            occurred_at=bumped.recorded_at,
            tenant_id=tenant.id,
            type="erasure",
            content=f'{{"seq":{seq}}}',
        )
    )


async def record(
    connection: AsyncConnection,
    tenant: Tenant,
    key: int,
    scope: str,
    actor: str,
    events: int,
    *,
    conversation: UUID | None = None,
    user_digest: bytes | None = None,
    low: int | None = None,
    high: int | None = None,
) -> None:
    """Write down what was erased and who asked, in the erasure's own transaction."""
    await connection.execute(
        sa.insert(erasure).values(
            user_key=key,
            id=uuid7(),
            tenant_id=tenant.id,
            scope=scope,
            conversation=conversation,
            user_digest=user_digest,
            first_seq=low,
            last_seq=high,
            events=events,
            actor=actor,
        )
    )
