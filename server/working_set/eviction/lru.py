"""LRU: what was not touched for the longest time goes first."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from server.working_set.policy import Ranked
from server.working_set.ranking import Key
from server.working_set.units import Unit


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """It has none."""


class Policy(Ranked[Parameters]):
    name: ClassVar[str] = "lru"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = (
        "The least recently touched event goes first: wins when a topic is returned to within a short while, "
        "and loses to one long digression; without touches it is fifo."
    )
    parameters_type: ClassVar[type[msgspec.Struct]] = Parameters

    def key(self, unit: Unit) -> Key:
        return (unit.used,)

    def say(self, key: Key) -> str:
        return f"last touched at step {key[0]:.0f}"
