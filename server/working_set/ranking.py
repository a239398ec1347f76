"""An order of units by key, lowest first: a heap whose outdated entries are passed over."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any

Key = tuple[float, ...]


class Ranking:
    """Units by key; equal keys are ordered by id. Put, drop and pop are O(log n), amortised."""

    def __init__(self) -> None:
        self.keys: dict[int, Key] = {}
        self._heap: list[tuple[Key, int]] = []

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, unit_id: int) -> bool:
        return unit_id in self.keys

    def put(self, unit_id: int, key: Key) -> None:
        """Add a unit, or move it to another key."""
        if self.keys.get(unit_id) == key:
            return
        self.keys[unit_id] = key
        heappush(self._heap, (key, unit_id))
        if len(self._heap) > 2 * len(self.keys) + 64:
            self._rebuild()

    def drop(self, unit_id: int) -> None:
        """Remove a unit, if it is there."""
        self.keys.pop(unit_id, None)

    def pop(self) -> tuple[Key, int] | None:
        """Remove the unit with the lowest key and return both; None when empty."""
        while self._heap:
            key, unit_id = heappop(self._heap)
            if self.keys.get(unit_id) == key:
                del self.keys[unit_id]
                return key, unit_id
        return None

    def dump(self) -> Any:
        """Return plain pairs of id and key, ascending by id."""
        return [[unit_id, list(self.keys[unit_id])] for unit_id in sorted(self.keys)]

    def load(self, state: Any) -> None:
        """Take up dumped pairs."""
        self.keys = {unit_id: tuple(key) for unit_id, key in state}
        self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(key, unit_id) for unit_id, key in self.keys.items()]
        heapify(self._heap)
