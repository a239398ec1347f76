"""Sink and window: the first events and the last ones (after the attention sinks of Xiao et al., ICLR 2024)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from server.working_set.policy import Eviction
from server.working_set.ranking import Ranking
from server.working_set.units import Unit


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sink: Annotated[
        float, Meta(ge=0, le=1, description="The share of the budget that the conversation's first events keep.")
    ] = 0.1


class Policy:
    name: ClassVar[str] = "sink_window"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = (
        "Keeps how it began and what was just said: wins when the first turns set the task, "
        "and loses all that was said in between."
    )
    parameters_type: ClassVar[type[msgspec.Struct]] = Parameters

    def __init__(self, parameters: Parameters, budget: int) -> None:
        self._room = parameters.sink * budget
        self._is_open = True
        self._sink: list[int] = []
        self._window = Ranking()

    def admit(self, unit: Unit) -> None:
        # The sink closes with the first event that does not fit, or it would fill up with later short ones.
        if self._is_open and unit.charge <= self._room:
            self._room -= unit.charge
            self._sink.append(unit.id)
        else:
            self._is_open = False
            self._window.put(unit.id, (unit.entered,))

    def touch(self, unit: Unit) -> None:
        """A touch changes nothing."""

    def withdraw(self, unit_id: int) -> None:
        self._window.drop(unit_id)
        if unit_id in self._sink:
            self._sink.remove(unit_id)

    def evict(self) -> Eviction | None:
        lowest = self._window.pop()
        if lowest is not None:
            return Eviction(lowest[1], f"came in at step {lowest[0][0]:.0f}, after the sink had closed")
        return Eviction(self._sink.pop(), "last of the sink, and the window is empty") if self._sink else None

    def dump(self) -> Any:
        return [self._room, self._is_open, self._sink, self._window.dump()]

    def load(self, state: Any) -> None:
        self._room, self._is_open, sink, window = state
        self._sink = list(sink)
        self._window.load(window)
