"""SIEVE: one queue and a hand that gives touched events a second life in place (Zhang et al., NSDI 2024).

A hit sets a bit. To evict, the hand moves from the tail towards the head, clears set bits, and takes the first event
whose bit is not set; there it stays, and from the head it goes back to the tail. New events enter at the head.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from server.working_set.policy import Eviction
from server.working_set.units import Unit


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """It has none."""


class Policy:
    name: ClassVar[str] = "sieve"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = (
        "A window that spares whatever was touched since the hand last passed: wins when some events are touched again "
        "and most never are, and loses when touches come long after; without touches it is fifo, or nearly."
    )
    parameters_type: ClassVar[type[msgspec.Struct]] = Parameters

    def __init__(self, parameters: Parameters, budget: int) -> None:
        # A doubly linked list: `newer` points towards the head, `older` towards the tail.
        self._newer: dict[int, int | None] = {}
        self._older: dict[int, int | None] = {}
        self._head: int | None = None
        self._tail: int | None = None
        self._hand: int | None = None
        self._visited: set[int] = set()

    def admit(self, unit: Unit) -> None:
        new, head = unit.id, self._head
        self._newer[new], self._older[new] = None, head
        if head is None:
            self._tail = new
        else:
            self._newer[head] = new
        self._head = new
        if unit.touches:  # it was held when it was touched
            self._visited.add(new)

    def touch(self, unit: Unit) -> None:
        self._visited.add(unit.id)

    def withdraw(self, unit_id: int) -> None:
        if unit_id not in self._newer:
            return
        newer, older = self._newer.pop(unit_id), self._older.pop(unit_id)
        if newer is None:
            self._head = older
        else:
            self._older[newer] = older
        if older is None:
            self._tail = newer
        else:
            self._newer[older] = newer
        if self._hand == unit_id:
            self._hand = newer
        self._visited.discard(unit_id)

    def evict(self) -> Eviction | None:
        at = self._tail if self._hand is None else self._hand
        if at is None:
            return None
        while at in self._visited:
            self._visited.discard(at)
            newer = self._newer[at]
            at = self._tail if newer is None else newer
            assert at is not None
        self._hand = at
        self.withdraw(at)
        return Eviction(at, "not touched since the hand last passed")

    def dump(self) -> Any:
        queue, at = [], self._tail
        while at is not None:
            queue.append(at)
            at = self._newer[at]
        return [queue, sorted(self._visited), self._hand]

    def load(self, state: Any) -> None:
        queue, visited, self._hand = state
        self._visited = set(visited)
        self._older = dict(zip(queue, [None, *queue], strict=False))
        self._newer = dict(zip(queue, [*queue[1:], None], strict=True)) if queue else {}
        self._tail, self._head = (queue[0], queue[-1]) if queue else (None, None)
