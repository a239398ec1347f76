"""Recoverable: evicts first what retrieval could bring back, and keeps what it could not.

An event is worth keeping when it will be asked about and a search would miss it. The first is read from how dense it is
in rare words, as in importance.py; the second falls with the sum of their rarity, against ``enough``, since each rare
word is one to be found by, and rises when the text leans on what was said before. What takes something back, sets a
rule or moves a number counts for more: a search finds the old statement just as well, and a rule shares no words with
what it governs.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from server.working_set import windowed
from server.working_set.ranking import Key
from server.working_set.rarity import density
from server.working_set.units import Part, Unit

_LEAST = 0.01  # nats a word, as in importance.py
_QUESTION = 0.7  # a question tells less than a statement with the same words
_REFERENCE = 0.8


class Parameters(windowed.Parameters, frozen=True, forbid_unknown_fields=True):
    enough: Annotated[
        float, Meta(gt=0, le=10_000, description="The rarity, in nats, at which a search finds every second event.")
    ] = 60.0
    cue: Annotated[
        float, Meta(ge=0, le=100, description="How much each cue (correction, constraint, moved number) adds.")
    ] = 0.5
    half_life: Annotated[
        float, Meta(gt=0, le=1e9, description="After how many events and touches an untouched event counts half.")
    ] = 2000.0


class Policy(windowed.Windowed[Parameters]):
    name: ClassVar[str] = "recoverable"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = (
        "Lets go of what a search would find again: made for use with retrieval, and loses to importance without it; "
        "with plain BM25 on LoCoMo it wins nothing over importance either."
    )
    parameters_type: ClassVar[type[msgspec.Struct]] = Parameters

    def key(self, unit: Unit) -> Key:
        worth = max(self._worth(part) for part in unit.parts)
        return (math.log2(worth) + unit.used / self.parameters.half_life,)

    def _worth(self, part: Part) -> float:
        read = part.features
        asked = max(density(part.rarity, read.length), _LEAST) * (_QUESTION if read.question else 1.0)
        found = part.rarity / (part.rarity + self.parameters.enough) * (_REFERENCE if read.reference else 1.0)
        cues = read.correction + read.constraint + read.number_change
        return asked * (1.0 - found) * (1.0 + self.parameters.cue * cues)

    def say(self, key: Key) -> str:
        return f"hardness to find again, and recency, {key[0]:.4g}"
