"""When a worker may begin its next batch: what live requests feel, and what the throttle makes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple

from server.embeddings.lifecycle import throttle
from server.embeddings.lifecycle.throttle import Limits, Observed, Pace

_ENOUGH: Final = 20  # requests: the p99 of fewer is one request's accident


class Load(NamedTuple):
    """What one server saw in its last window."""

    p99: float | None
    requests: int
    waiting: int


def worst(loads: Iterable[Load]) -> Observed:
    """Return what the server with the slowest requests saw, with the fresh events that wait on any of them."""
    seen = list(loads)
    timed = [load for load in seen if load.p99 is not None]
    busy = [load for load in timed if load.requests >= _ENOUGH] or timed
    slowest = max(busy, key=lambda load: load.p99 or 0.0, default=Load(None, 0, 0))
    return Observed(slowest.requests, slowest.p99, sum(load.waiting for load in seen))


class Pacer:
    """The throttle at work in one process. ``quiet``: the p99 in ms before a backfill began, None without requests."""

    def __init__(self, quiet: float | None, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self._limits = limits
        self._given = quiet
        self._changed = asyncio.Event()
        self._rests_until = 0.0
        self.pace: Pace = throttle.begin(quiet, limits)

    @property
    def quiet(self) -> float | None:
        """The p99 in ms that it measures by; None while it has seen no live requests."""
        return self.pace.quiet if self._given is not None or self.pace.quiet > self._limits.floor else None

    def observe(self, seen: Observed) -> None:
        """Learn of a further window of live requests."""
        self.pace = throttle.advance(self.pace, seen, self._limits)
        self._changed.set()

    def worked(self, busy: float) -> None:
        """Learn of a batch that took so many seconds; each is rested for, also those of two batches at once."""
        rest = self.pace.rest(busy)
        self._rests_until = max(self._rests_until, time.monotonic()) + (rest or 0.0)

    async def turn(self) -> None:
        """Return when the next batch may begin."""
        while True:
            left = None if self.pace.duty <= 0 else self._rests_until - time.monotonic()
            if left is not None and left <= 0:
                return
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()
