"""What is appended and erased on a server in the course of a migration, done again on one that never saw any."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from benchmarks.migration_fleet import Fleet

_BEGUN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_BATCH: Final = 50
_TIES: Final = 1e-4  # of scores: vectors that were made in another batch differ in their last bits


class Ranked(NamedTuple):
    """How the answers of two servers agree: equal rankings, those equal but for ties, and the largest score apart."""

    asked: int
    equal: int
    tied: int
    apart: float
    example: str


class Deeds:
    """What was done to a fleet, in order, by names that another fleet knows too."""

    def __init__(self, fleet: Fleet, ids: dict[str, str], texts: Sequence[str]) -> None:
        self._fleet = fleet
        self._ids = ids
        self._texts = texts
        self._done: list[tuple[str, str, Any]] = []
        self._number = 0

    def append(self, count: int, origins: Sequence[str]) -> float:
        """Append events to conversations in turns; returns appends a second."""
        began = time.perf_counter()
        for start in range(0, count, _BATCH):
            origin = origins[start // _BATCH % len(origins)]
            events = []
            for _ in range(min(_BATCH, count - start)):
                self._number += 1
                number = self._number
                events.append(
                    {
                        "id": f"later-{number}",
                        "role": "user",
                        "content": f"{self._texts[number * 7 % len(self._texts)]} That was note {number}.",
                        "occurred_at": (_BEGUN + timedelta(seconds=number)).isoformat(),
                    }
                )
            self._done.append(("append", origin, events))
            _append(self._fleet, self._ids[origin], events)
        return count / (time.perf_counter() - began)

    def erase(self, origin: str, event: str) -> tuple[str, int]:
        """Erase an event; returns its conversation and seq."""
        self._done.append(("erase", origin, event))
        return self._ids[origin], _erase(self._fleet, self._ids[origin], event)

    def again(self, other: Fleet, ids: dict[str, str]) -> None:
        """Do all of it to another fleet."""
        for deed, origin, given in self._done:
            if deed == "append":
                _append(other, ids[origin], given)
            else:
                _erase(other, ids[origin], given)


def _append(fleet: Fleet, conversation: str, events: list[dict[str, Any]]) -> None:
    answer = fleet.client.post(f"/v1/conversations/{conversation}/events", json={"events": events})
    answer.raise_for_status()


def _erase(fleet: Fleet, conversation: str, event: str) -> int:
    answer = fleet.client.delete(f"/v1/conversations/{conversation}/events/{event}").raise_for_status()
    return int(answer.json()["seq"])


def ranks(one: Fleet, other: Fleet, asked: Sequence[tuple[str, str]], k: int = 50) -> Ranked:
    """Ask two fleets the same of the same users, and compare the rankings by the events' own ids."""
    equal = tied = 0
    apart = 0.0
    example = ""
    for user, query in asked:
        first, second = (_ranking(fleet, user, query, k) for fleet in (one, other))
        scores = [0.0 if a == b else abs(a - b) for (_, a), (_, b) in zip(first, second, strict=False)]
        apart = max([apart, *scores])
        if [name for name, _ in first] == [name for name, _ in second]:
            equal += 1
        elif len(first) == len(second) and max(scores, default=1.0) < _TIES:
            tied += 1
        elif not example:
            example = f"{user}: {query}"
    return Ranked(len(asked), equal, tied, apart, example)


def _ranking(fleet: Fleet, user: str, query: str, k: int) -> list[tuple[str, float]]:
    answer = fleet.client.post("/v1/search", json={"query": query, "user": user, "k": k}).raise_for_status().json()
    return [(one["id"], float("inf") if one["score"] is None else one["score"]) for one in answer["data"]]
