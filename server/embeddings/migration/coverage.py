"""Which texts have their vector, and which vectors their text: the whole log, tenant by tenant, both ways.

The log is read in short transactions, as each tenant's own worker would. What comes meanwhile is not missed: an event
that had no vector is looked at again, since the servers need a moment for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import cache
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg

from schema.embeddings import relation_name
from server.database.connections import Database
from server.database.round_trip import SETTING_TENANT, HotConnection, Statement, array, round_trip
from server.database.tenant import Tenant
from server.embeddings.lifecycle.gates.verification import Coverage
from server.embeddings.making import text_hash
from server.embeddings.session import session
from server.embeddings.texts import TYPES, build
from server.log.retention import tenants
from server.log.stored import COLUMNS, from_row

_PAGE: Final = 500  # conversations, and events, in one statement
_PATIENCE: Final = 5.0  # seconds in which a fresh event must have got its vector
_LOOK: Final = 0.25  # seconds
_REMEMBERED: Final = 10_000  # places without a vector that are looked at again; more are no freshness

_CONVERSATIONS: Final = Statement("""
SELECT c.user_key, c.id, c.head FROM conversation c
WHERE c.tenant_id = %(tenant)s AND c.id > %(after)s::uuid ORDER BY c.id LIMIT %(page)s
""")
_EVENTS: Final = """
SELECT e.user_key, v.text_hash, f.seq IS NOT NULL, {columns}
FROM unnest(%(keys)s::bigint[], %(owners)s::uuid[], %(lows)s::bigint[], %(highs)s::bigint[]) AS r(key, owner, low, high)
JOIN event e ON e.user_key = r.key AND e.conversation = r.owner AND e.tenant_id = %(tenant)s
    AND e.seq BETWEEN r.low AND r.high AND e.erased_at IS NULL AND e.type = ANY (%(types)s::text[])
LEFT JOIN {relation} v ON v.user_key = e.user_key AND v.conversation = e.conversation AND v.seq = e.seq
    AND v.tenant_id = %(tenant)s
LEFT JOIN embedding_failure f ON f.user_key = e.user_key AND f.conversation = e.conversation
    AND f.version = %(version)s AND f.seq = e.seq AND f.tenant_id = %(tenant)s
"""
_STILL: Final = """
SELECT e.user_key, e.conversation, e.seq
FROM unnest(%(keys)s::bigint[], %(owners)s::uuid[], %(lows)s::bigint[]) AS r(key, owner, seq)
JOIN event e ON e.user_key = r.key AND e.conversation = r.owner AND e.seq = r.seq AND e.tenant_id = %(tenant)s
    AND e.erased_at IS NULL
WHERE NOT EXISTS (
    SELECT FROM {relation} v WHERE v.user_key = e.user_key AND v.conversation = e.conversation AND v.seq = e.seq
        AND v.tenant_id = %(tenant)s
) AND NOT EXISTS (
    SELECT FROM embedding_failure f WHERE f.user_key = e.user_key AND f.conversation = e.conversation
        AND f.version = %(version)s AND f.seq = e.seq AND f.tenant_id = %(tenant)s
)
"""
# A vector whose event is gone, erased, or of a type that has no text.
_ORPHANS: Final = """
SELECT v.tenant_id, count(*)
FROM {relation} v
LEFT JOIN event e ON e.user_key = v.user_key AND e.conversation = v.conversation AND e.seq = v.seq
WHERE e.seq IS NULL OR e.erased_at IS NOT NULL OR e.type <> ALL (%s) OR e.tenant_id <> v.tenant_id
GROUP BY v.tenant_id
"""

Place = tuple[int, UUID, int]


class _Range(NamedTuple):
    key: int
    owner: UUID
    low: int
    high: int


class _Tally:
    """What one tenant's log comes to."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.texts = self.dead = self.without_text = self.wrong_text = 0
        self.missing: list[Place] = []
        self.more_missing = 0

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Hold events against their vectors; blocking."""
        for key, stored, is_dead, *event_row in rows:
            event = from_row(tuple(event_row))
            try:
                built = build(event)
            except Exception:  # such an event is a dead letter, or ought to be
                built = None
                if not is_dead:
                    self._miss((key, event_row[0], event.seq))
                continue
            if built is None:
                self.without_text += stored is not None
                continue
            self.texts += 1
            if stored is not None:
                self.wrong_text += bytes(stored) != text_hash(self.tenant, built.text)
            elif is_dead:
                self.dead += 1
            else:
                self._miss((key, event_row[0], event.seq))

    def _miss(self, place: Place) -> None:
        if len(self.missing) < _REMEMBERED:
            self.missing.append(place)
        else:
            self.more_missing += 1


async def measure(database: Database, owner: psycopg.AsyncConnection[Any], version: int) -> tuple[Coverage, ...]:
    """Count what is missing, refused, left over and of another text, for each tenant.

    ``owner``: a connection as the tables' owner. 10,000 events take about a second. Raises DatabaseUnavailable.
    """
    tallies = []
    async with session(database) as connection:
        for tenant in await tenants(database):
            tally = _Tally(tenant)
            async for ranges in _ranges(connection, tenant):
                rows = await round_trip(connection, _events(tenant, version, ranges))
                await asyncio.to_thread(tally.add, rows)
            tallies.append(tally)
        await _look_again(connection, version, tallies)
    query = _ORPHANS.format(relation=relation_name(version))
    cursor = await owner.execute(query.encode(), (list(TYPES),))
    orphans: dict[int, int] = dict(await cursor.fetchall())
    return tuple(
        Coverage(
            tenant=tally.tenant.name,
            texts=tally.texts,
            missing=len(tally.missing) + tally.more_missing,
            dead=tally.dead,
            extra=orphans.get(tally.tenant.id, 0) + tally.without_text,
            wrong_text=tally.wrong_text,
        )
        for tally in tallies
    )


async def _ranges(connection: HotConnection, tenant: Tenant) -> AsyncIterator[list[_Range]]:
    """Yield stretches of the tenant's conversations, of about a page of events together."""
    after = UUID(int=0)
    batch: list[_Range] = []
    room = _PAGE
    while True:
        values = {"tenant": tenant.id, "after": after, "page": _PAGE}
        found = await round_trip(connection, [SETTING_TENANT(values), _CONVERSATIONS(values)])
        for key, uuid, head in found:
            low = 1
            while low <= head:
                high = min(head, low + room - 1)
                batch.append(_Range(key, uuid, low, high))
                room -= high - low + 1
                low = high + 1
                if room == 0:
                    yield batch
                    batch, room = [], _PAGE
        if len(found) < _PAGE:
            break
        after = found[-1][1]
    if batch:
        yield batch


async def _look_again(connection: HotConnection, version: int, tallies: Sequence[_Tally]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while any(tally.missing for tally in tallies):
        for tally in tallies:
            if tally.missing:
                ranges = [_Range(key, owner, seq, seq) for key, owner, seq in tally.missing]
                tally.missing = await round_trip(connection, _events(tally.tenant, version, ranges, still=True))
        if time.monotonic() > deadline or any(tally.more_missing for tally in tallies):
            return
        await asyncio.sleep(_LOOK)


def _events(tenant: Tenant, version: int, ranges: Sequence[_Range], *, still: bool = False) -> list[Any]:
    values = {
        "tenant": tenant.id,
        "version": version,
        "keys": array(one.key for one in ranges),
        "owners": array(one.owner for one in ranges),
        "lows": array(one.low for one in ranges),
        "highs": array(one.high for one in ranges),
        "types": array(TYPES),
    }
    statement = _still(version) if still else _reading(version)
    return [SETTING_TENANT(values), statement(values)]


@cache
def _reading(version: int) -> Statement:
    return Statement(_EVENTS.format(relation=relation_name(version), columns=COLUMNS))


@cache
def _still(version: int) -> Statement:
    return Statement(_STILL.format(relation=relation_name(version)))
