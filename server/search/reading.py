"""What a search reads of the log: events to be indexed, which of them are still there, and those that are answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final
from uuid import UUID

from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId
from server.database.round_trip import SETTING_TENANT, Statement, array, round_trip
from server.database.tenant import Tenant
from server.log.stored import COLUMNS, StoredEvent, from_row
from server.retrieval.text import TEXT_BEARING
from server.search.family import Family

Range = tuple[UUID, int, int]  # owner, first and last seq

TYPES: Final = tuple(sorted({*TEXT_BEARING, "deletion"}))
_PAGE: Final = 2_000  # seqs that one read looks at
_PAGE_BYTES: Final = 4 * 1024 * 1024  # of content

_OWN: Final = """
    FROM unnest(%(owners)s::uuid[], %(lows)s::bigint[], %(highs)s::bigint[]) WITH ORDINALITY AS r(owner, low, high, ord)
    CROSS JOIN LATERAL (
        SELECT e.* FROM event e
        WHERE e.user_key = %(user_key)s AND e.conversation = r.owner AND e.seq BETWEEN r.low AND r.high
          AND e.tenant_id = %(tenant)s AND e.erased_at IS NULL AND e.type = ANY (%(types)s::text[])
        OFFSET 0
    ) e
"""
_EVENTS: Final = Statement(f"""
SELECT e.ord, e.rows, {COLUMNS} FROM (
    SELECT r.ord, e.*, count(*) OVER () AS rows,
        sum(octet_length(e.content)) OVER (ORDER BY r.ord, e.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
            AS before
    {_OWN}
) e WHERE coalesce(e.before, 0) < %(bytes)s
ORDER BY e.ord, e.seq
""")
_LIVE: Final = Statement(f"SELECT e.conversation, array_agg(e.seq) {_OWN} GROUP BY e.conversation")
_ANSWERS: Final = Statement(f"""
SELECT w.ord, {COLUMNS}
FROM unnest(%(keys)s::bigint[], %(owners)s::uuid[], %(seqs)s::bigint[]) WITH ORDINALITY AS w(user_key, owner, seq, ord)
JOIN event e ON e.user_key = w.user_key AND e.conversation = w.owner AND e.seq = w.seq AND e.tenant_id = %(tenant)s
WHERE e.erased_at IS NULL
""")


async def events(
    database: Database, tenant: Tenant, family: Family, ranges: Sequence[Range]
) -> AsyncIterator[list[tuple[UUID, StoredEvent]]]:
    """Yield the text-bearing events and deletions of ranges, page by page, each with its owner; no tombstones.

    A page holds about 4 MiB of content at most. Raises DatabaseUnavailable.
    """
    for page in _pages(ranges):
        left = page
        while left:
            rows = await _read(database, _EVENTS, tenant, family, left, bytes=_PAGE_BYTES)
            if rows:
                yield [(row[2], from_row(row[2:])) for row in rows]
            if not rows or len(rows) == rows[0][1]:
                break
            place, last = rows[-1][0] - 1, rows[-1][3]
            owner, _, high = left[place]
            left = [*([(owner, last + 1, high)] if last < high else []), *left[place + 1 :]]


async def live(database: Database, tenant: Tenant, family: Family, ranges: Sequence[Range]) -> dict[UUID, list[int]]:
    """Return which seqs of ranges still hold a text, or a deletion. Raises DatabaseUnavailable."""
    rows = await _read(database, _LIVE, tenant, family, ranges)
    return dict(rows)


async def answers(
    database: Database, tenant: Tenant, places: Sequence[tuple[ConversationId, int]]
) -> list[StoredEvent | None]:
    """Return events by owner and seq in one statement, None for what is gone. Raises DatabaseUnavailable."""
    if not places:
        return []
    values = {
        "tenant": tenant.id,
        "keys": array(at.user_key for at, _ in places),
        "owners": array(at.uuid for at, _ in places),
        "seqs": array(seq for _, seq in places),
    }
    async with hot_connection(database) as connection:
        rows = await round_trip(connection, [SETTING_TENANT(values), _ANSWERS(values)])
    found: list[StoredEvent | None] = [None] * len(places)
    for place, *columns in rows:
        found[place - 1] = from_row(tuple(columns))
    return found


def _pages(ranges: Sequence[Range]) -> list[list[Range]]:
    pages: list[list[Range]] = [[]]
    room = _PAGE
    for owner, first, high in ranges:
        low = first
        while low <= high:
            if room == 0:
                pages.append([])
                room = _PAGE
            end = min(high, low + room - 1)
            pages[-1].append((owner, low, end))
            room -= end - low + 1
            low = end + 1
    return pages if pages[-1] else pages[:-1]


async def _read(
    database: Database, statement: Statement, tenant: Tenant, family: Family, ranges: Sequence[Range], **more: object
) -> list[tuple[Any, ...]]:
    assert family.tenant == tenant.id, "a family belongs to one tenant"
    values = {
        "tenant": tenant.id,
        "user_key": family.user_key,
        "owners": array(owner for owner, _, _ in ranges),
        "lows": array(low for _, low, _ in ranges),
        "highs": array(high for _, _, high in ranges),
        "types": array(TYPES),
        **more,
    }
    async with hot_connection(database) as connection:
        return await round_trip(connection, [SETTING_TENANT(values), statement(values)])
