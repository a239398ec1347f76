"""FIFO: a window over the last events."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from server.working_set.policy import Ranked
from server.working_set.ranking import Key
from server.working_set.units import Unit


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """It has none."""


class Policy(Ranked[Parameters]):
    name: ClassVar[str] = "fifo"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = (
        "The oldest event goes first: wins when only what was just said matters, "
        "and loses everything older at once, however much it mattered."
    )
    parameters_type: ClassVar[type[msgspec.Struct]] = Parameters

    def key(self, unit: Unit) -> Key:
        return (unit.entered,)

    def touch(self, unit: Unit) -> None:
        """A touch changes nothing: that is what makes it FIFO."""

    def say(self, key: Key) -> str:
        return f"came in at step {key[0]:.0f}"
