"""A cue: words that show that a sentence sets a rule or states a preference."""

from __future__ import annotations

import re
from dataclasses import dataclass

from server.constraints.constraint import Kind, Polarity, Strength


@dataclass(frozen=True)
class Cue:
    """A pattern, not tried without one of ``words``.

    ``asked``: it counts in a question, too ("could you always …?"); ``stated``: also beside one ("I'm vegan, what …?").
    """

    name: str
    kind: Kind
    polarity: Polarity
    strength: Strength
    words: frozenset[str]
    pattern: re.Pattern[str]
    asked: bool = False
    stated: bool = False


def cue(
    name: str,
    kind: Kind,
    words: str,
    *patterns: str,
    avoid: bool = False,
    loose: bool = False,
    asked: bool = False,
    stated: bool = False,
) -> Cue:
    """Make a cue of words (parted by spaces) and alternatives, each of which contains one of them."""
    return Cue(
        name,
        kind,
        "avoid" if avoid else "do",
        "loose" if loose else "firm",
        frozenset(words.split()),
        re.compile("|".join(rf"(?:{pattern})" for pattern in patterns)),
        asked,
        stated,
    )
