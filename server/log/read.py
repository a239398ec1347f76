"""Reads of the log: ranges both ways, as of a seq or a time, one event by id.

Every read is one read-only transaction in one snapshot, so that a page and the head that it names belong together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple

import psycopg

from server.database.connections import SET_TENANT, Database, hot_connection
from server.database.ids import ConversationId, keyed_hash, parse_event_id
from server.database.tenant import Tenant
from server.errors import NotFound
from server.log.stored import COLUMNS, StoredEvent, from_row

BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_STATE: Final = """
SELECT c.head, c.floor, c.epoch FROM conversation c
WHERE c.user_key = %(user_key)s AND c.id = %(id)s AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
"""

# Who owns which seqs, as far as they lie in the range asked for.
_SEGMENTS: Final = """
WITH c AS (
    SELECT c.id, c.head, c.lineage, c.lineage_end, coalesce(c.lineage_end[cardinality(c.lineage_end)], 0) AS inherited
    FROM conversation c
    WHERE c.user_key = %(user_key)s AND c.id = %(id)s AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
), segment AS (
    SELECT c.id AS owner, c.inherited + 1 AS low, c.head AS high FROM c
    UNION ALL
    SELECT l.owner, coalesce(c.lineage_end[l.place - 1], 0) + 1, l.ending
    FROM c, unnest(c.lineage, c.lineage_end) WITH ORDINALITY AS l(owner, ending, place)
)
"""

# Seqs have no gaps, so a page is an interval that arithmetic finds; only what retention removed is missing from it.
_RANGE: Final = f"""
{_SEGMENTS}, page AS (
    SELECT CASE WHEN %(descending)s THEN greatest(r.low, r.high - %(limit)s + 1) ELSE r.low END AS low,
           CASE WHEN %(descending)s THEN r.high ELSE least(r.high, r.low + %(limit)s - 1) END AS high
    FROM (SELECT greatest(%(after)s, c.floor) + 1 AS low, least(%(before)s - 1, %(until)s, c.head) AS high
          FROM conversation c
          WHERE c.user_key = %(user_key)s AND c.id = %(id)s AND c.tenant_id = %(tenant)s) r
)
SELECT {COLUMNS}
FROM page p
JOIN segment s ON s.low <= p.high AND s.high >= p.low
JOIN event e ON e.user_key = %(user_key)s AND e.conversation = s.owner AND e.tenant_id = %(tenant)s
    AND e.seq BETWEEN greatest(s.low, p.low) AND least(s.high, p.high)
ORDER BY CASE WHEN %(descending)s THEN -e.seq ELSE e.seq END
"""

# recorded_at never goes back within a conversation, forks included, so a time is found by bisection over the key: about
# twenty look-ups in a million events. An event that retention removed counts as older than any time.
_SEQ_AT: Final = f"""
WITH RECURSIVE {_SEGMENTS.strip().removeprefix("WITH ")}, step(low, high) AS (
    SELECT 0::bigint, c.head FROM c
    UNION ALL
    SELECT CASE WHEN found.early THEN step.mid ELSE step.low END, CASE WHEN found.early THEN step.high ELSE step.mid - 1 END
    FROM (SELECT low, high, (low + high + 1) / 2 AS mid FROM step WHERE low < high) step
    CROSS JOIN LATERAL (
        SELECT coalesce(bool_and(e.recorded_at <= %(time)s), true) AS early
        FROM segment s JOIN event e ON e.user_key = %(user_key)s AND e.conversation = s.owner AND e.seq = step.mid
            AND e.tenant_id = %(tenant)s
        WHERE step.mid BETWEEN s.low AND s.high
    ) found
)
SELECT low FROM step WHERE low >= high
"""

_ONE: Final = f"""
{_SEGMENTS}
SELECT {COLUMNS} FROM segment s JOIN event e
    ON e.user_key = %(user_key)s AND e.conversation = s.owner AND e.seq BETWEEN s.low AND s.high AND e.tenant_id = %(tenant)s
WHERE (e.client_key = %(client_key)s OR (e.seq = %(seq)s AND e.conversation = %(owner)s))
ORDER BY e.seq LIMIT 1
"""


class Page(NamedTuple):
    """A range of events; ``head`` is the conversation's last seq in the same snapshot."""

    events: list[StoredEvent]
    has_more: bool
    head: int


class State(NamedTuple):
    """A conversation's head, floor (expired up to here) and epoch (raised when what it shows shrinks)."""

    head: int
    floor: int
    epoch: int


@asynccontextmanager
async def snapshot(database: Database, tenant: Tenant) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Open a read-only transaction that sees one state of one tenant's rows."""
    async with hot_connection(database) as connection:
        async with connection.pipeline():
            await connection.execute(BEGIN)
            await connection.execute(SET_TENANT, (str(tenant.id),))
        try:
            yield connection
        finally:
            if not connection.closed:
                await connection.rollback()


async def read_range(
    database: Database,
    tenant: Tenant,
    conversation: ConversationId,
    *,
    after_seq: int = 0,
    before_seq: int | None = None,
    limit: int = 50,
    descending: bool = False,
    as_of: int | datetime | None = None,
) -> Page:
    """Read up to ``limit`` events with ``after_seq < seq < before_seq``, from the low end or (descending) the high.

    ``as_of`` shows the log as it stood at a seq, or at a time (``recorded_at``). What has been erased since stays
    erased. Raises NotFound.
    """
    parameters: dict[str, Any] = {
        "user_key": conversation.user_key,
        "id": conversation.uuid,
        "tenant": tenant.id,
        "after": after_seq,
        "before": before_seq if before_seq is not None else 2**62,
        "until": as_of if isinstance(as_of, int) else 2**62,
        "limit": limit,
        "descending": descending,
    }
    async with hot_connection(database) as connection:
        try:
            if isinstance(as_of, datetime):
                until = await _seq_at(connection, parameters | {"time": as_of})
                parameters["until"] = until
            async with connection.pipeline():
                await connection.execute(BEGIN)
                await connection.execute(SET_TENANT, (str(tenant.id),))
                found = await connection.execute(_STATE, parameters)
                rows = await connection.execute(_RANGE, parameters)
                await connection.execute("COMMIT")
        except psycopg.Error:
            if not connection.closed:
                await connection.rollback()
            raise
        state = await found.fetchone()
        if state is None:
            raise NotFound("no such conversation")
        events = [from_row(row) for row in await rows.fetchall()]
    head, floor, _ = state
    if descending:
        lowest = max(after_seq, floor) + 1
        highest = min(parameters["before"] - 1, parameters["until"], head)
        has_more = highest - limit + 1 > lowest
    else:
        lowest = max(after_seq, floor) + 1
        has_more = lowest + limit - 1 < min(parameters["before"] - 1, parameters["until"], head)
    return Page(events, has_more, head)


async def _seq_at(connection: psycopg.AsyncConnection[Any], parameters: dict[str, Any]) -> int:
    async with connection.pipeline():
        await connection.execute(BEGIN)
        await connection.execute(SET_TENANT, (str(parameters["tenant"]),))
        cursor = await connection.execute(_SEQ_AT, parameters)
        await connection.execute("COMMIT")
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def read_state(database: Database, tenant: Tenant, conversation: ConversationId) -> State:
    """Return a conversation's head, floor and epoch; raises NotFound."""
    parameters = {"user_key": conversation.user_key, "id": conversation.uuid, "tenant": tenant.id}
    async with snapshot(database, tenant) as connection:
        row = await (await connection.execute(_STATE, parameters)).fetchone()
    if row is None:
        raise NotFound("no such conversation")
    return State(*row)


async def read_event(database: Database, tenant: Tenant, conversation: ConversationId, event_id: str) -> StoredEvent:
    """Return one event by its id, the caller's or the server's; raises NotFound."""
    named = parse_event_id(event_id)
    parameters = {
        "user_key": conversation.user_key,
        "id": conversation.uuid,
        "tenant": tenant.id,
        "client_key": None if named else keyed_hash(tenant.salt, "client_id", event_id),
        "seq": named.seq if named else 0,
        "owner": named.conversation if named else None,
    }
    async with snapshot(database, tenant) as connection:
        row = await (await connection.execute(_ONE, parameters)).fetchone()
    if row is None:
        raise NotFound("no such event")
    return from_row(row)
