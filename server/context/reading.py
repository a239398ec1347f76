"""What the fold of one conversation reads beside its pages of events: checkpoints, touches, and single events.

Inherited rows are found by the lineage, which never changes: every statement gets the owners and the ranges of theirs
that are asked for, and looks each up by key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId
from server.database.round_trip import SETTING_TENANT, Statement, array, round_trip
from server.database.tenant import Tenant
from server.errors import NotFound
from server.log import statements
from server.log.lineage import Lineage
from server.log.read import read_events
from server.log.stored import COLUMNS, StoredEvent, from_row

CALL_EVENTS: Final = 64  # of one tool call; those beyond do not come back with it
TOUCH_PAGE: Final = 2000
_FOREVER: Final = 2**62

# OFFSET 0 keeps the order of the join whatever the planner believes of the tables: ranges first, and then their rows.
_RANGES: Final = "unnest(%(owners)s::uuid[], %(lows)s::bigint[], %(highs)s::bigint[]) AS s(owner, low, high)"
_EVENTS: Final = f"""
SELECT {COLUMNS} FROM {_RANGES} CROSS JOIN LATERAL (
    SELECT e.* FROM event e
    WHERE e.user_key = %(user_key)s AND e.conversation = s.owner AND e.tenant_id = %(tenant)s
      AND e.seq BETWEEN s.low AND s.high AND {{}}
    OFFSET 0
) e
"""

_CALL: Final = Statement(
    _EVENTS.format("e.call_id = %(call_id)s::text AND e.type IN ('tool_call', 'tool_result')")
    + "ORDER BY e.seq LIMIT %(limit)s"
)

_ERASED: Final = Statement(_EVENTS.format("e.erased_at IS NOT NULL") + "LIMIT 1")

# Of one position only one owner's rows count, so that (at, ord) is one order over all of them.
_TOUCHES: Final = Statement(f"""
SELECT t.at, t.ord, t.seqs FROM {_RANGES} CROSS JOIN LATERAL (
    SELECT t.at, t.ord, t.seqs FROM touch t
    WHERE t.user_key = %(user_key)s AND t.conversation = s.owner AND t.tenant_id = %(tenant)s
      AND t.at BETWEEN s.low AND s.high
      AND (t.at > %(at)s::bigint OR t.ord > %(ord)s::bigint)
      AND (t.conversation <> %(id)s::uuid OR t.ord <= %(touches)s::bigint)
      AND (t.at < %(until)s::bigint OR t.recorded_at <= coalesce(%(time)s::timestamptz, 'infinity'))
    ORDER BY t.at, t.ord LIMIT %(limit)s
) t
ORDER BY t.at, t.ord LIMIT %(limit)s
""")

_CHECKPOINT: Final = Statement("""
SELECT k.head, k.fold FROM unnest(%(owners)s::uuid[], %(highs)s::bigint[]) AS s(owner, high) CROSS JOIN LATERAL (
    SELECT k.head, k.fold FROM checkpoint k
    WHERE k.user_key = %(user_key)s AND k.conversation = s.owner AND k.tenant_id = %(tenant)s
      AND k.head <= s.high AND k.floor = %(floor)s::bigint
    ORDER BY k.head DESC LIMIT 1
) k
ORDER BY k.head DESC LIMIT 1
""")


class TouchRow(NamedTuple):
    """What was touched together when the head was ``at``."""

    at: int
    ord: int
    seqs: list[int]


class _Range(NamedTuple):
    owner: UUID
    low: int
    high: int


class Reader:
    """Reads what one conversation shows, inherited rows included."""

    def __init__(self, database: Database, tenant: Tenant, conversation: ConversationId, lineage: Lineage) -> None:
        self.database = database
        self.tenant = tenant
        self.conversation = conversation
        self.lineage = lineage
        self._values = {"tenant": tenant.id, "user_key": conversation.user_key, "id": conversation.uuid}

    @classmethod
    async def open(cls, database: Database, tenant: Tenant, conversation: ConversationId) -> Reader:
        """Learn the lineage; raises NotFound."""
        values = {"tenant": tenant.id, "user_key": conversation.user_key, "id": conversation.uuid}
        async with hot_connection(database) as connection:
            rows = await round_trip(connection, [SETTING_TENANT(values), statements.LINEAGE(values)])
        if not rows:
            raise NotFound("no such conversation")
        _, _, owners, ends = rows[0]
        return cls(database, tenant, conversation, Lineage(owners or [], ends or []))

    async def events(self, seqs: Iterable[int]) -> dict[int, StoredEvent]:
        """Return the events at these seqs, those that there are."""
        return await read_events(self.database, self.tenant, self.conversation, seqs)

    async def call(self, call_id: str, floor: int, until: int) -> list[StoredEvent]:
        """Return the first events of a tool call that are above the floor and not after ``until``, in order."""
        rows = await self._in_ranges(_CALL, floor + 1, until, call_id=call_id, limit=CALL_EVENTS)
        return [from_row(row) for row in rows]

    async def has_erased(self, low: int, high: int) -> bool:
        """Say whether an event from ``low`` to ``high`` has been erased."""
        return bool(await self._in_ranges(_ERASED, low, high))

    async def touches(
        self, after: tuple[int, int], until: int, *, touches: int, time: datetime | None = None
    ) -> list[TouchRow]:
        """Return the next touches after one (its ``at`` and ``ord``), up to the position ``until``, in order.

        ``touches``: how many of the conversation's own count; ``time``: of those at ``until`` itself, up to when.
        """
        at, last = after
        ranges = self._ranges(at, until, of_touches=True)
        if not ranges:
            return []
        rows = await self._read(
            _TOUCHES,
            **_arrays(ranges),
            at=at,
            ord=last,
            touches=touches,
            until=until,
            time=time,
            limit=TOUCH_PAGE,
        )
        return [TouchRow(*row) for row in rows]

    async def checkpoint(self, floor: int, high: int) -> tuple[int, bytes] | None:
        """Return the newest checkpoint up to ``high`` that began at this floor: its head and bytes.

        What an owner of inherited events has folded up to its last inherited one, is folded for this conversation too.
        """
        ends = [*self.lineage.ends, _FOREVER]
        owners = [*self.lineage.owners, self.conversation.uuid]
        highs = [min(high, end) for end in ends]
        rows = await self._read(_CHECKPOINT, owners=array(owners), highs=array(highs), floor=floor)
        return (rows[0][0], bytes(rows[0][1])) if rows else None

    async def _in_ranges(self, statement: Statement, low: int, high: int, **values: object) -> list[tuple[Any, ...]]:
        ranges = self._ranges(low, high)
        return await self._read(statement, **_arrays(ranges), **values) if ranges else []

    def _ranges(self, low: int, high: int, *, of_touches: bool = False) -> list[_Range]:
        """Cut a range of seqs (or of positions of touches, which belong to whoever appended next) by owner."""
        shift = 0 if of_touches else 1
        found = []
        start = 0
        for owner, end in zip(
            [*self.lineage.owners, self.conversation.uuid], [*self.lineage.ends, _FOREVER], strict=True
        ):
            first, last = max(low, start + shift), min(high, end + shift - 1)
            if first <= last:
                found.append(_Range(owner, first, last))
            start = end
        return found

    async def _read(self, statement: Statement, **values: object) -> list[tuple[Any, ...]]:
        bound = self._values | values
        async with hot_connection(self.database) as connection:
            return await round_trip(connection, [SETTING_TENANT(bound), statement(bound)])


def _arrays(ranges: Sequence[_Range]) -> dict[str, bytes]:
    owners, lows, highs = zip(*ranges, strict=True)
    return {"owners": array(owners), "lows": array(lows), "highs": array(highs)}
