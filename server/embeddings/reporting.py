"""What a server says of itself in its row: the epoch that it follows, and while a migration runs, how busy it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

from server.database.connections import Database, hot_connection
from server.database.round_trip import Statement, round_trip
from server.operations import metrics

WINDOW: Final = 5.0  # seconds that one report of a server's load covers

_FOLLOW: Final = Statement("""
UPDATE server SET routing_epoch = %(epoch)s::bigint, reading = %(reading)s::integer WHERE id = %(identity)s::uuid
""")
_LOAD: Final = Statement("""
UPDATE server SET load_at = now(), p99_ms = %(p99)s::double precision, requests = %(requests)s::bigint,
    waiting = %(waiting)s::bigint
WHERE id = %(identity)s::uuid
""")


class Said(NamedTuple):
    """What the row says, as far as a step of a migration waits for it; ``reading``: requests of an earlier epoch."""

    epoch: int
    reading: int


class Reporter:
    """Writes one server's row; without an identity it keeps silent."""

    def __init__(self, database: Database, identity: UUID | None) -> None:
        self._database = database
        self._identity = identity
        self._since: float | None = None

    async def report(self, now: Said, stored: Said, *, waiting: int, migrating: bool) -> None:
        """Write what has changed; ``stored``: what the row says. Raises DatabaseUnavailable."""
        if self._identity is None:
            return
        calls = []
        values = {"identity": self._identity, "epoch": now.epoch, "reading": now.reading}
        if now != stored:
            calls.append(_FOLLOW(values))
        if not migrating:
            self._since = None
        elif self._since is None:
            self._since = time.monotonic()
            metrics.take_window()  # what was before
        elif time.monotonic() - self._since >= WINDOW:
            self._since = time.monotonic()
            window = metrics.take_window()
            load = {"p99": p99(window), "requests": len(window), "waiting": waiting}
            calls.append(_LOAD(values | load))
        if calls:
            async with hot_connection(self._database) as connection:
                await round_trip(connection, calls)


def p99(seconds: Sequence[float]) -> float | None:
    """Return the 99th percentile in milliseconds, by the nearest rank; None of nothing."""
    if not seconds:
        return None
    ranked = sorted(seconds)
    return 1000 * ranked[-(len(ranked) // 100) - 1]
