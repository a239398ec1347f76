"""Reads of the log: ranges both ways, as of a seq or a time, one event by id.

Every read is one statement, so that a page and the head that it names belong together. What a scan of events is bounded
by must be a plain column of a MATERIALIZED query: row-level security runs before any arithmetic that is not leakproof,
so that a bound computed in place would be a filter over the whole conversation instead of a condition of the index.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId, EventId, keyed_hash, parse_event_id
from server.database.round_trip import SETTING_TENANT, Statement, array, round_trip
from server.database.tenant import Tenant
from server.errors import NotFound
from server.log.stored import COLUMNS, StoredEvent, from_row

BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"  # of a reader that needs several statements

STATE_COLUMNS: Final = "c.head, c.floor, c.epoch, c.touches, c.recorded_at"
_STATE: Final = Statement(f"""
SELECT {STATE_COLUMNS} FROM conversation c
WHERE c.user_key = %(user_key)s AND c.id = %(id)s AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
""")

# Who owns which seqs.
_SEGMENTS: Final = f"""
c AS MATERIALIZED (
    SELECT c.id, {STATE_COLUMNS}, c.lineage, c.lineage_end FROM conversation c
    WHERE c.user_key = %(user_key)s AND c.id = %(id)s AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
), segment AS MATERIALIZED (
    SELECT c.id AS owner, coalesce(c.lineage_end[cardinality(c.lineage_end)], 0) + 1 AS low, c.head AS high FROM c
    UNION ALL
    SELECT l.owner, coalesce(c.lineage_end[l.place - 1], 0) + 1, l.ending
    FROM c, unnest(c.lineage, c.lineage_end) WITH ORDINALITY AS l(owner, ending, place)
)
"""

# Seqs above the floor have no gaps, so a page is an interval that arithmetic finds. A page is cut where it would grow
# beyond a size (octet_length looks at no content), but for its first event, the one that has nothing before it. With
# that one comes the state: on every row it would cost as much as a tenth of the events.
_RANGE: Final = Statement(f"""
WITH {_SEGMENTS}, page AS (
    SELECT CASE WHEN %(descending)s THEN greatest(r.low, r.high - %(limit)s + 1) ELSE r.low END AS low,
           CASE WHEN %(descending)s THEN r.high ELSE least(r.high, r.low + %(limit)s - 1) END AS high
    FROM (SELECT greatest(%(after)s, c.floor) + 1 AS low, least(%(before)s::bigint - 1, %(until)s, c.head) AS high
          FROM c) r
), part AS MATERIALIZED (
    SELECT s.owner, greatest(s.low, p.low) AS low, least(s.high, p.high) AS high
    FROM page p JOIN segment s ON s.low <= p.high AND s.high >= p.low
)
SELECT state.*, {COLUMNS}
FROM c LEFT JOIN (
    SELECT e.*, sum(octet_length(e.content)) OVER (ORDER BY CASE WHEN %(descending)s THEN -e.seq ELSE e.seq END
                                                  ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM part JOIN event e ON e.user_key = %(user_key)s AND e.conversation = part.owner
        AND e.tenant_id = %(tenant)s AND e.seq BETWEEN part.low AND part.high
) e ON coalesce(e.before, 0) < %(bytes)s
LEFT JOIN LATERAL (SELECT {STATE_COLUMNS}) state ON e.before IS NULL
ORDER BY e.seq
""")

# recorded_at never goes back within a conversation, forks included, so a time is found by bisection over the key: about
# twenty look-ups in a million events. An event that retention removed counts as older than any time.
_SEQ_AT: Final = Statement(f"""
WITH RECURSIVE {_SEGMENTS}, step(low, high) AS (
    SELECT 0::bigint, c.head FROM c
    UNION ALL
    SELECT CASE WHEN found.early THEN step.mid ELSE step.low END,
           CASE WHEN found.early THEN step.high ELSE step.mid - 1 END
    FROM (SELECT low, high, (low + high + 1) / 2 AS mid FROM step WHERE low < high OFFSET 0) step
    CROSS JOIN LATERAL (
        SELECT coalesce(bool_and(e.recorded_at <= %(time)s), true) AS early
        FROM segment s JOIN event e ON e.user_key = %(user_key)s AND e.conversation = s.owner AND e.seq = step.mid
            AND e.tenant_id = %(tenant)s
        WHERE step.mid BETWEEN s.low AND s.high
    ) found
)
SELECT low FROM step WHERE low >= high
""")

_ONE: Final = f"""
WITH {_SEGMENTS}
SELECT {COLUMNS} FROM c, segment s JOIN event e ON e.user_key = %(user_key)s AND e.conversation = s.owner
    AND e.seq BETWEEN s.low AND s.high AND e.tenant_id = %(tenant)s
"""
_ONE_BY_CLIENT_KEY: Final = Statement(
    f"{_ONE} WHERE e.seq > c.floor AND e.client_key = %(client_key)s ORDER BY e.seq LIMIT 1"
)
_ONE_BY_SEQ: Final = Statement(f"{_ONE} WHERE e.seq > c.floor AND s.owner = %(owner)s AND e.seq = %(seq)s")
# By the id of its deletion, which is that of the event that it deletes, and so looked up whatever else was deleted.
_ONE_AND_DELETION: Final = Statement(f"""
WITH {_SEGMENTS}
SELECT {COLUMNS}, EXISTS (
    SELECT FROM segment o JOIN event d ON d.user_key = %(user_key)s AND d.conversation = o.owner
        AND d.client_key = %(client_key)s AND d.seq BETWEEN o.low AND o.high AND d.tenant_id = %(tenant)s
)
FROM c, segment s JOIN event e ON e.user_key = %(user_key)s AND e.conversation = s.owner
    AND e.seq BETWEEN s.low AND s.high AND e.tenant_id = %(tenant)s
WHERE e.seq > c.floor AND s.owner = %(owner)s AND e.seq = %(seq)s
""")
_BY_SEQS: Final = Statement(f"""
WITH {_SEGMENTS}, wanted AS MATERIALIZED (
    SELECT s.owner, w.seq FROM c, unnest(%(seqs)s::bigint[]) AS w(seq)
    JOIN segment s ON w.seq BETWEEN s.low AND s.high WHERE w.seq > c.floor
)
SELECT {COLUMNS}
FROM c LEFT JOIN (
    wanted w JOIN event e ON e.user_key = %(user_key)s AND e.conversation = w.owner AND e.seq = w.seq
        AND e.tenant_id = %(tenant)s
) ON true
""")

_DELETED: Final = Statement(f"""
WITH {_SEGMENTS}
SELECT e.content FROM c, segment s JOIN event e ON e.user_key = %(user_key)s AND e.conversation = s.owner
    AND e.seq BETWEEN s.low AND s.high AND e.tenant_id = %(tenant)s AND e.type = 'deletion'
""")

PAGE_BYTES: Final = 8 * 1024 * 1024  # of content; one event more may begin below it
_FOREVER: Final = 2**62  # a seq that no conversation reaches
_STATES: Final = 5  # columns


class State(NamedTuple):
    """How far a conversation has come; two states of it are equal only if nothing changed in between.

    ``floor``: expired up to here; ``epoch``: raised when what it shows shrinks; ``touches``: how many were recorded;
    ``recorded_at``: of its last event, which tells it from one that was deleted and restored to the same head.
    """

    head: int
    floor: int
    epoch: int
    touches: int
    recorded_at: datetime


class Page(NamedTuple):
    """A range of events, and the conversation's state in the same snapshot."""

    events: list[StoredEvent]
    has_more: bool
    state: State

    @property
    def head(self) -> int:
        return self.state.head


async def _read(database: Database, statement: Statement, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Run one statement that sees one tenant's rows."""
    async with hot_connection(database) as connection:
        return await round_trip(connection, [SETTING_TENANT(values), statement(values)])


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

    A page holds about 8 MiB at the most, and at least one event. ``as_of`` shows the log as it stood at a seq, or at a
    time (``recorded_at``). What has been erased since stays erased. Raises NotFound.
    """
    values: dict[str, Any] = {
        "user_key": conversation.user_key,
        "id": conversation.uuid,
        "tenant": tenant.id,
        "after": after_seq,
        "before": _FOREVER if before_seq is None else before_seq,
        "until": as_of if isinstance(as_of, int) else _FOREVER,
        "limit": limit,
        "descending": descending,
        "bytes": PAGE_BYTES,
    }
    if isinstance(as_of, datetime):
        found = await _read(database, _SEQ_AT, values | {"time": as_of})
        values["until"] = found[0][0] if found else 0
    rows = await _read(database, _RANGE, values)
    if not rows:
        raise NotFound("no such conversation")
    state = State(*rows[-1 if descending else 0][:_STATES])
    events = [from_row(row[_STATES:]) for row in rows] if rows[0][_STATES] is not None else []
    if descending:
        events.reverse()
        lowest = max(after_seq, state.floor) + 1
        has_more = bool(events) and events[-1].seq > lowest
    else:
        has_more = bool(events) and events[-1].seq < min(values["before"] - 1, values["until"], state.head)
    return Page(events, has_more, state)


async def read_events(
    database: Database, tenant: Tenant, conversation: ConversationId, seqs: Iterable[int]
) -> dict[int, StoredEvent]:
    """Return some events of a conversation by their seqs, without those that are not there; raises NotFound."""
    values = {"user_key": conversation.user_key, "id": conversation.uuid, "tenant": tenant.id, "seqs": array(seqs)}
    rows = await _read(database, _BY_SEQS, values)
    if not rows:
        raise NotFound("no such conversation")
    return {row[1]: from_row(row) for row in rows if row[1] is not None}


async def read_state(database: Database, tenant: Tenant, conversation: ConversationId) -> State:
    """Return a conversation's state; raises NotFound."""
    values = {"user_key": conversation.user_key, "id": conversation.uuid, "tenant": tenant.id}
    rows = await _read(database, _STATE, values)
    if not rows:
        raise NotFound("no such conversation")
    return State(*rows[0])


async def read_event(database: Database, tenant: Tenant, conversation: ConversationId, event_id: str) -> StoredEvent:
    """Return one event by its id, the caller's or the server's; raises NotFound."""
    values = {"user_key": conversation.user_key, "id": conversation.uuid, "tenant": tenant.id}
    named = parse_event_id(event_id)
    if named is not None:
        rows = await _read(database, _ONE_BY_SEQ, values | {"owner": named.conversation, "seq": named.seq})
    else:
        rows = await _read(database, _ONE_BY_CLIENT_KEY, values | {"client_key": _client_key(tenant, event_id)})
    if not rows:
        raise NotFound("no such event")
    return from_row(rows[0])


async def read_event_and_deletion(
    database: Database, tenant: Tenant, conversation: ConversationId, event: EventId, deletion_id: str
) -> tuple[StoredEvent, bool]:
    """Return one event by the server's id, and whether there is one by that of its deletion; raises NotFound."""
    values = {"user_key": conversation.user_key, "id": conversation.uuid, "tenant": tenant.id}
    named = {"owner": event.conversation, "seq": event.seq, "client_key": _client_key(tenant, deletion_id)}
    rows = await _read(database, _ONE_AND_DELETION, values | named)
    if not rows:
        raise NotFound("no such event")
    return from_row(rows[0][:-1]), rows[0][-1]


def _client_key(tenant: Tenant, event_id: str) -> bytes:
    """Return the keyed hash of a caller's id, as PostgreSQL's text form has it."""
    return b"\\x%b" % keyed_hash(tenant.salt, "client_id", event_id).hex().encode()


async def read_deleted(database: Database, tenant: Tenant, conversation: ConversationId) -> set[int]:
    """Return the seqs that have been deleted, as the conversation's deletions name them."""
    values = {"user_key": conversation.user_key, "id": conversation.uuid, "tenant": tenant.id}
    rows = await _read(database, _DELETED, values)
    return {msgspec.json.decode(content)["seq"] for (content,) in rows}
