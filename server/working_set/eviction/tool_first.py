"""Tool results go first, the oldest first, each leaving a placeholder; then the oldest events.

What agents call clearing of tool results: the call stays, so the model sees what was done and can do it again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from server.working_set.policy import Eviction
from server.working_set.ranking import Ranking
from server.working_set.units import Unit


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keep: Annotated[int, Meta(ge=0, le=1000, description="How many of the last tool calls keep their results.")] = 3
    placeholder_tokens: Annotated[
        int, Meta(ge=1, le=1000, description="What the placeholder of one tool result takes.")
    ] = 16


class Policy:
    name: ClassVar[str] = "tool_first"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = (
        "Old tool results become placeholders before anything else leaves: wins for agents, whose results are long and "
        "can be had again, and loses when a result was the only place of a fact; without tools it is fifo."
    )
    parameters_type: ClassVar[type[msgspec.Struct]] = Parameters

    def __init__(self, parameters: Parameters, budget: int) -> None:
        self._keep = parameters.keep
        self._placeholder = parameters.placeholder_tokens
        self._whole: OrderedDict[int, None] = OrderedDict()  # tool calls whose results are long and still there
        self._all = Ranking()

    def admit(self, unit: Unit) -> None:
        self._all.put(unit.id, (unit.entered,))
        gain = sum(
            charge > self._placeholder
            for charge, part in zip(unit.charges(), unit.parts, strict=True)
            if part.type == "tool_result"
        )
        if gain:
            self._whole[unit.id] = None

    def touch(self, unit: Unit) -> None:
        """A touch changes nothing; a placeholder that is touched comes in anew."""

    def withdraw(self, unit_id: int) -> None:
        self._all.drop(unit_id)
        self._whole.pop(unit_id, None)

    def evict(self) -> Eviction | None:
        if len(self._whole) > self._keep:
            unit_id, _ = self._whole.popitem(last=False)
            standing = f"the oldest of more than {self._keep} tool results"
            return Eviction(unit_id, standing, placeholder=self._placeholder)
        lowest = self._all.pop()
        if lowest is None:
            return None
        self._whole.pop(lowest[1], None)
        return Eviction(lowest[1], f"came in at step {lowest[0][0]:.0f}")

    def dump(self) -> Any:
        return [list(self._whole), self._all.dump()]

    def load(self, state: Any) -> None:
        whole, everything = state
        self._whole = OrderedDict.fromkeys(whole)
        self._all.load(everything)
