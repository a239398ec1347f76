"""A ranked policy that leaves a window over the newest units alone: conversation is mostly about what was just said."""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from server.working_set.policy import Eviction, Ranked
from server.working_set.ranking import Key
from server.working_set.units import Unit


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every windowed policy has; its own come after it."""

    window: Annotated[
        float, Meta(ge=0, le=1, description="The share of the budget that the newest events keep, whatever they say.")
    ] = 0.3


W = TypeVar("W", bound=Parameters)


class Windowed(Ranked[W]):
    """Units enter the window, and are ranked only when newer ones have pushed them out of it."""

    def __init__(self, parameters: W, budget: int) -> None:
        super().__init__(parameters, budget)
        self._room = parameters.window * budget
        self._window: OrderedDict[int, tuple[int, Key]] = OrderedDict()  # tokens and key, the oldest first
        self._tokens = 0

    def admit(self, unit: Unit) -> None:
        self._window[unit.id] = (unit.charge, self.key(unit))
        self._tokens += unit.charge
        while self._tokens > self._room:
            oldest, (tokens, key) = self._window.popitem(last=False)
            self._tokens -= tokens
            self.ranking.put(oldest, key)

    def touch(self, unit: Unit) -> None:
        if unit.id in self._window:
            self._window[unit.id] = (self._window[unit.id][0], self.key(unit))
        else:
            self.ranking.put(unit.id, self.key(unit))

    def withdraw(self, unit_id: int) -> None:
        tokens, _ = self._window.pop(unit_id, (0, ()))
        self._tokens -= tokens
        self.ranking.drop(unit_id)

    def evict(self) -> Eviction | None:
        eviction = super().evict()
        if eviction is not None or not self._window:
            return eviction
        oldest, (tokens, _) = self._window.popitem(last=False)
        self._tokens -= tokens
        return Eviction(oldest, "the oldest of the window, and nothing else is left")

    def dump(self) -> Any:
        return [[[unit_id, tokens, list(key)] for unit_id, (tokens, key) in self._window.items()], super().dump()]

    def load(self, state: Any) -> None:
        window, ranking = state
        self._window = OrderedDict((unit_id, (tokens, tuple(key))) for unit_id, tokens, key in window)
        self._tokens = sum(tokens for tokens, _ in self._window.values())
        super().load(ranking)
