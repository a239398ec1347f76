"""Importance times recency, after Generative Agents (Park et al., UIST 2023), without a model and without a query.

Importance is how dense a text is in words that are rare in its conversation (see rarity.py), in place of a model's
score from 1 to 10; recency halves with every ``half_life`` steps since the last touch, in place of 0.995 an hour.
Relevance needs a query, and eviction has none. With exponential decay the order of two events never changes by itself,
so the key is a constant: log2(importance) + last touch / half-life.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from server.working_set import windowed
from server.working_set.ranking import Key
from server.working_set.rarity import density
from server.working_set.units import Unit

_LEAST = 0.01  # nats a word: what says nothing rare at all is not worth nothing


class Parameters(windowed.Parameters, frozen=True, forbid_unknown_fields=True):
    half_life: Annotated[
        float,
        Meta(
            gt=0,
            le=1e9,
            description="After how many events and touches an untouched event counts half: small values come close to "
            "lru, large ones keep what is telling however old.",
        ),
    ] = 2000.0
    question: Annotated[
        float, Meta(gt=0, le=1, description="What a question counts, where a statement with the same words counts 1.")
    ] = 0.7


class Policy(windowed.Windowed[Parameters]):
    name: ClassVar[str] = "importance"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = (
        "Keeps statements full of words that are rare in this conversation: the best without a fault path when old "
        "facts are asked for, and loses to fifo on what was said a moment ago and on plainly worded turns."
    )
    parameters_type: ClassVar[type[msgspec.Struct]] = Parameters

    def key(self, unit: Unit) -> Key:
        importance = max(
            density(part.rarity, part.features.length) * (self.parameters.question if part.features.question else 1.0)
            for part in unit.parts
        )
        return (math.log2(max(importance, _LEAST)) + unit.used / self.parameters.half_life,)

    def say(self, key: Key) -> str:
        return f"importance and recency {key[0]:.4g}"
