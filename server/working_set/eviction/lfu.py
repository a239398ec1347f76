"""LFU: what was touched the fewest times since it came in goes first, the least recently touched among equals."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from server.working_set.policy import Ranked
from server.working_set.ranking import Key
from server.working_set.units import Unit


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """It has none."""


class Policy(Ranked[Parameters]):
    name: ClassVar[str] = "lfu"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = (
        "The least often touched event goes first: wins when a few facts are used all the time, "
        "and loses when interests move on, since old favourites stay; without touches it is fifo."
    )
    parameters_type: ClassVar[type[msgspec.Struct]] = Parameters

    def key(self, unit: Unit) -> Key:
        return (unit.touches + 1, unit.used)

    def say(self, key: Key) -> str:
        return f"used {key[0]:.0f} times, last at step {key[1]:.0f}"
