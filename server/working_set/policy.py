"""What an eviction policy is: one file in eviction/ with a class ``Policy`` that fits ``EvictionPolicy``.

As in libCacheSim, a policy is told of what enters, is touched and leaves, and is asked for a victim. It sees units,
never text, and it has no clock: ``unit.entered`` and ``unit.used`` are steps of the fold. What the hard rules hold
(pins, the newest user event, constraints) is withdrawn from the policy and handed back when it is free again.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import msgspec

from server.working_set.ranking import Key, Ranking
from server.working_set.units import Unit

P = TypeVar("P", bound=msgspec.Struct)


class Eviction(NamedTuple):
    """Which unit leaves, and how it stood; with ``placeholder``, only its tool results do, each for so many tokens."""

    id: int
    standing: str = ""
    placeholder: int | None = None


@runtime_checkable
class EvictionPolicy(Protocol):
    """Chooses which unit leaves when the budget is exceeded; equal calls give equal victims in any process.

    ``version`` goes up with any change of behaviour: checkpoints of another version are folded anew.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    summary: ClassVar[str]
    parameters_type: ClassVar[type[msgspec.Struct]]

    def __init__(self, parameters: Any, budget: int) -> None: ...

    def admit(self, unit: Unit) -> None:
        """A unit became a candidate: it arrived, was faulted in (``unit.faulted``), or is held no longer."""

    def touch(self, unit: Unit) -> None:
        """A candidate was touched."""

    def withdraw(self, unit_id: int) -> None:
        """A candidate left for a reason that is not the policy's."""

    def evict(self) -> Eviction | None:
        """Choose the next victim, and forget it unless a placeholder stays; None without candidates."""

    def dump(self) -> Any:
        """Return the state as plain lists, dicts and numbers."""

    def load(self, state: Any) -> None:
        """Take up a dumped state."""


class Ranked(Generic[P]):
    """A policy whose victim is always the unit with the lowest key, the older one between equals."""

    def __init__(self, parameters: P, budget: int) -> None:
        self.parameters = parameters
        self.budget = budget
        self.ranking = Ranking()

    def key(self, unit: Unit) -> Key:
        """Return the unit's key; it may not depend on anything that changes before its next touch."""
        raise NotImplementedError

    def admit(self, unit: Unit) -> None:
        self.ranking.put(unit.id, self.key(unit))

    def touch(self, unit: Unit) -> None:
        self.ranking.put(unit.id, self.key(unit))

    def withdraw(self, unit_id: int) -> None:
        self.ranking.drop(unit_id)

    def evict(self) -> Eviction | None:
        lowest = self.ranking.pop()
        return None if lowest is None else Eviction(lowest[1], self.say(lowest[0]))

    def say(self, key: Key) -> str:
        """Say what a key means, for explanations."""
        return "key " + ", ".join(f"{part:.6g}" for part in key)

    def dump(self) -> Any:
        return self.ranking.dump()

    def load(self, state: Any) -> None:
        self.ranking.load(state)
