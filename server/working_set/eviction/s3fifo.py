"""S3-FIFO: a small queue that filters, a main queue, and a ghost of what the small one let go (Yang et al., SOSP 2023).

New events enter the small queue, or the main one when the ghost remembers them. The small queue is drained while it
holds a tenth of the budget or more: what was touched twice moves to the main queue, the rest leaves and is remembered.
In the main queue, each touch (up to three) is worth one more round.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from server.working_set.policy import Eviction
from server.working_set.units import Unit

_MOST: Final = 3  # touches are counted in two bits


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    small: Annotated[float, Meta(gt=0, lt=1, description="The small queue's share of the budget.")] = 0.1
    promote_after: Annotated[
        int, Meta(ge=1, le=_MOST, description="How many touches move an event from the small queue to the main one.")
    ] = 2


class Policy:
    name: ClassVar[str] = "s3fifo"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = (
        "Lets what is touched only once leave early: wins when most events are never touched again, and loses when the "
        "second touch comes after the ghost has forgotten; without touches it is fifo, or nearly."
    )
    parameters_type: ClassVar[type[msgspec.Struct]] = Parameters

    def __init__(self, parameters: Parameters, budget: int) -> None:
        self._small_room = parameters.small * budget
        self._ghost_room = budget - self._small_room
        self._promote_after = parameters.promote_after
        # Each from its tail (the oldest) to its head; values are tokens.
        self._small: OrderedDict[int, int] = OrderedDict()
        self._main: OrderedDict[int, int] = OrderedDict()
        self._ghost: OrderedDict[int, int] = OrderedDict()
        self._touched: dict[int, int] = {}
        self._small_tokens = 0
        self._ghost_tokens = 0

    def admit(self, unit: Unit) -> None:
        remembered = self._ghost.pop(unit.id, None)
        if remembered is None:
            self._small[unit.id] = unit.charge
            self._small_tokens += unit.charge
        else:
            self._ghost_tokens -= remembered
            self._main[unit.id] = unit.charge
        self._touched[unit.id] = min(unit.touches, _MOST)

    def touch(self, unit: Unit) -> None:
        self._touched[unit.id] = min(self._touched[unit.id] + 1, _MOST)

    def withdraw(self, unit_id: int) -> None:
        self._touched.pop(unit_id, None)
        self._small_tokens -= self._small.pop(unit_id, 0)
        self._main.pop(unit_id, None)

    def evict(self) -> Eviction | None:
        while self._small or self._main:
            drain_small = self._small and (self._small_tokens >= self._small_room or not self._main)
            eviction = self._evict_small() if drain_small else self._evict_main()
            if eviction is not None:
                return eviction
        return None

    def _evict_small(self) -> Eviction | None:
        while self._small:
            unit_id, tokens = self._small.popitem(last=False)
            self._small_tokens -= tokens
            if self._touched[unit_id] < self._promote_after:
                del self._touched[unit_id]
                self._remember(unit_id, tokens)
                return Eviction(unit_id, f"touched fewer than {self._promote_after} times in the small queue")
            self._main[unit_id] = tokens
            self._touched[unit_id] = 0
        return None

    def _evict_main(self) -> Eviction:
        while True:
            unit_id, tokens = self._main.popitem(last=False)
            if not self._touched[unit_id]:
                del self._touched[unit_id]
                return Eviction(unit_id, "not touched in its last round of the main queue")
            self._touched[unit_id] -= 1
            self._main[unit_id] = tokens

    def _remember(self, unit_id: int, tokens: int) -> None:
        self._ghost[unit_id] = tokens
        self._ghost_tokens += tokens
        while self._ghost_tokens > self._ghost_room and self._ghost:
            self._ghost_tokens -= self._ghost.popitem(last=False)[1]

    def dump(self) -> Any:
        queues = [[list(pair) for pair in queue.items()] for queue in (self._small, self._main, self._ghost)]
        return [*queues, [list(pair) for pair in sorted(self._touched.items())]]

    def load(self, state: Any) -> None:
        small, main, ghost, touched = state
        self._small, self._main, self._ghost = OrderedDict(small), OrderedDict(main), OrderedDict(ghost)
        self._touched = dict(touched)
        self._small_tokens = sum(self._small.values())
        self._ghost_tokens = sum(self._ghost.values())
