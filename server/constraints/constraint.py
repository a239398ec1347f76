"""A standing instruction or preference as it was written, with what is needed to govern and to be superseded."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["instruction", "prohibition", "preference", "identity", "restriction"]
Polarity = Literal["do", "avoid"]
Strength = Literal["firm", "loose"]
Topic = Literal[
    "name", "language", "length", "tone", "format", "units", "manner", "diet", "allergy", "contact", "code", "travel"
]


class Constraint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one sentence sets.

    ``kind``: an instruction to do or (``prohibition``) not to do something; a preference; an ``identity``, how somebody
    is to be called; a ``restriction`` that body or conscience sets (diet, allergy). ``topic``: of a closed set, None
    when it is none of them. ``subject``: its telling words, stemmed, in order. ``corrects``: it says that it changes
    what held before ("instead", "no longer"). ``text``: the sentence; ``first`` and ``last``: where it stands in the
    whole text, half-open. ``cue``: what showed it, and its ``strength``: firm cues rarely mean anything else, loose
    ones may.
    """

    kind: Kind
    polarity: Polarity
    topic: Topic | None
    subject: tuple[str, ...]
    corrects: bool = False
    text: str
    first: int
    last: int
    cue: str
    strength: Strength
