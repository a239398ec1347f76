"""Retention: events recorded longer ago than their conversation (or else its tenant) keeps them are erased for good.

``recorded_at`` never goes back, so what has expired is always the beginning of what a conversation appended: its rows
are deleted and ``floor`` says up to where. Forks lose what they shared. A conversation of which nothing is left, and
that has been silent for as long, is deleted itself: its metadata and its user's name are text too.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables import conversation as table
from schema.tables import tenant as tenant_table
from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.errors import DatabaseUnavailable, NotFound
from server.log import erase
from server.log.retries import WINDOW

logger = logging.getLogger(__name__)

ACTOR = "retention"
_PAGE = 500

_EXPIRED = sa.text(
    """
    SELECT c.user_key, c.id, coalesce(c.retention_days, t.retention_days) AS days
    FROM conversation c
    JOIN tenant t ON t.id = c.tenant_id
    LEFT JOIN LATERAL (
        SELECT e.recorded_at FROM event e
        WHERE e.user_key = c.user_key AND e.conversation = c.id AND e.tenant_id = :tenant ORDER BY e.seq LIMIT 1
    ) oldest ON true
    WHERE c.tenant_id = :tenant AND c.id > :after
      AND coalesce(oldest.recorded_at, CASE WHEN c.deleted_at IS NULL THEN c.recorded_at END)
          < now() - make_interval(days => coalesce(c.retention_days, t.retention_days))
    ORDER BY c.id LIMIT :page
    """
).bindparams(sa.bindparam("after", type_=sa.Uuid))

_OWN = "e.user_key = :user_key AND e.conversation = :conversation AND e.tenant_id = :tenant"
_BOUNDS = sa.text(
    f"""
    SELECT max(e.seq) FILTER (WHERE e.recorded_at < now() - make_interval(days => :days)) AS expired, max(e.seq) AS last
    FROM event e WHERE {_OWN}
    """
)


class Expired(NamedTuple):
    """What one run removed."""

    conversations: int
    events: int


async def run(database: Database, tenant: Tenant) -> Expired:
    """Erase all that has expired for one tenant, one conversation a transaction; safe to run on several servers."""
    conversations = events = 0
    after = UUID(int=0)
    while True:
        async with database.transaction(tenant, role=erase.ROLE) as connection:
            values = {"tenant": tenant.id, "after": after, "page": _PAGE}
            page = (await connection.execute(_EXPIRED, values)).all()
        for row in page:
            after = row.id
            removed, emptied = await _expire(database, tenant, ConversationId(row.user_key, row.id), row.days)
            events += removed
            conversations += emptied
        if len(page) < _PAGE:
            return Expired(conversations, events)


async def _expire(database: Database, tenant: Tenant, at: ConversationId, days: int) -> tuple[int, bool]:
    async with database.transaction(tenant, role=erase.ROLE) as connection:
        which = sa.or_(table.c.id == at.uuid, table.c.lineage.contains([at.uuid]))
        rows = await erase.lock(connection, tenant, at.user_key, which)
        if at.uuid not in rows:
            return 0, False
        parameters = {"user_key": at.user_key, "conversation": at.uuid, "tenant": tenant.id, "days": days}
        bounds = (await connection.execute(_BOUNDS, parameters)).one()
        removed = 0
        if bounds.expired is not None:
            removed = await erase.forget(connection, tenant, at.user_key, at.uuid, "drop_events", 0, bounds.expired)
            await _raise_floors(connection, tenant, at, rows, bounds.expired)
            await erase.record(
                connection, tenant, at.user_key, "retention", ACTOR, removed, conversation=at.uuid, high=bounds.expired
            )
        silent = sa.select(table.c.recorded_at < sa.func.now() - sa.func.make_interval(0, 0, 0, days)).where(
            table.c.user_key == at.user_key, table.c.id == at.uuid
        )
        empty = bounds.last == bounds.expired and rows[at.uuid]["deleted_at"] is None
        emptied = empty and bool(await connection.scalar(silent))
    if emptied:
        try:
            await erase.remove_conversation(database, tenant, at, actor=ACTOR, scope="retention")
        except NotFound:  # somebody else was faster
            return removed, False
    return removed, emptied


async def _raise_floors(
    connection: AsyncConnection, tenant: Tenant, at: ConversationId, rows: dict[UUID, sa.RowMapping], expired: int
) -> None:
    """Tell the owner and its forks up to where they show nothing any more.

    What a fork shows before an expired event is older still, so that a floor hides nothing that should be seen; an
    ancestor that keeps its events longer goes on showing them itself.
    """
    for uuid, row in rows.items():
        shared = dict(zip(row["lineage"] or [], row["lineage_end"] or [], strict=True)).get(at.uuid, expired)
        values = {"epoch": table.c.epoch + 1, "floor": sa.func.greatest(table.c.floor, min(expired, shared))}
        mine = sa.and_(table.c.user_key == at.user_key, table.c.id == uuid, table.c.tenant_id == tenant.id)
        await connection.execute(sa.update(table).where(mine).values(values))


async def tenants(database: Database) -> list[Tenant]:
    """Return every tenant."""
    async with database.transaction(None, operator=True) as connection:
        rows = (await connection.execute(sa.select(tenant_table).order_by(tenant_table.c.id))).all()
    return [Tenant(row.id, row.name, bytes(row.salt), row.operator, row.retention_days) for row in rows]


async def forget_keys(database: Database, tenant: Tenant, hours: int) -> None:
    """Forget the Idempotency-Keys that are older than ``hours``, and the chains of retries that have ended."""
    async with database.transaction(tenant, role=erase.ROLE) as connection:
        for table, age in (("idempotency", hours * 3600), ("retry_chain", WINDOW)):
            await connection.execute(
                sa.text(
                    f"DELETE FROM {table} "
                    "WHERE tenant_id = :tenant AND created_at < now() - make_interval(secs => :age)"
                ),
                {"tenant": tenant.id, "age": age},
            )


async def run_forever(database: Database, *, interval: float, idempotency_hours: int) -> None:
    """Run retention for every tenant each ``interval`` seconds, until cancelled."""
    while True:
        # Spread out, so that servers that started together do not all look at once.
        await asyncio.sleep(interval * random.uniform(0.8, 1.2))  # noqa: S311
        try:
            for tenant in await tenants(database):
                expired = await run(database, tenant)
                await forget_keys(database, tenant, idempotency_hours)
                if expired.events or expired.conversations:
                    logger.info("retention removed %d events, %d conversations", expired.events, expired.conversations)
        except DatabaseUnavailable as error:
            logger.warning("retention waits for the database: %s", error)
        except Exception:
            logger.exception("retention failed; it tries again in %.0f s", interval)
