"""GDSF: Greedy-Dual-Size-Frequency, with tokens as sizes (Cherkasova, HP Labs report HPL-98-69R1, 1998).

An event's priority is L + frequency * cost / size when it comes in or is touched; L is the priority of the last victim,
so that what is not touched ages. The cost of bringing an event back is ``overhead`` + its tokens.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from server.working_set.policy import Eviction, Ranked
from server.working_set.ranking import Key
from server.working_set.units import Unit


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    overhead: Annotated[
        float,
        Meta(
            ge=0,
            le=1e6,
            description="What bringing back any event costs beside its tokens, in tokens: large values keep short "
            "events, 0 looks at frequency alone.",
        ),
    ] = 50.0


class Policy(Ranked[Parameters]):
    name: ClassVar[str] = "gdsf"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = (
        "Keeps what is cheap to keep for how often it is touched: wins when touches are skewed and sizes differ a lot "
        "(tool results), and loses long events that carry the facts; without touches it keeps short ones."
    )
    parameters_type: ClassVar[type[msgspec.Struct]] = Parameters

    def __init__(self, parameters: Parameters, budget: int) -> None:
        super().__init__(parameters, budget)
        self._inflation = 0.0

    def key(self, unit: Unit) -> Key:
        cost = self.parameters.overhead + unit.charge
        return (self._inflation + (unit.touches + 1) * cost / unit.charge, unit.used)

    def evict(self) -> Eviction | None:
        lowest = self.ranking.pop()
        if lowest is None:
            return None
        key, unit_id = lowest
        self._inflation = key[0]
        return Eviction(unit_id, self.say(key))

    def say(self, key: Key) -> str:
        return f"priority {key[0]:.4g}, where the last victim's was {self._inflation:.4g}"

    def dump(self) -> Any:
        return [self._inflation, super().dump()]

    def load(self, state: Any) -> None:
        self._inflation, ranking = state
        super().load(ranking)
