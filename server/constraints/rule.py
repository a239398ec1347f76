"""What is kept of a constraint where no text may be: its kind, its place in the event, and hashes of its words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from zlib import crc32

import msgspec

from server.constraints.constraint import Constraint, Kind, Polarity, Topic
from server.retrieval.analysis import terms


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A constraint without its text; ``words`` are hashes of its subject, ``numbers`` those of them that are numbers.

    ``first`` and ``last``: where its sentence stands in the event's text, half-open. ``firm``: its cue rarely means
    anything else. The other fields are the constraint's own.
    """

    kind: Kind
    polarity: Polarity
    cue: str
    first: int
    last: int
    topic: Topic | None = None
    words: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()
    corrects: bool = False
    firm: bool = True


def rule_of(constraint: Constraint) -> Rule:
    """Return what is kept of a constraint."""
    words = [word for word in constraint.subject if not _is_number(word)]
    numbers = [word for word in constraint.subject if _is_number(word)]
    return Rule(
        kind=constraint.kind,
        polarity=constraint.polarity,
        cue=constraint.cue,
        first=constraint.first,
        last=constraint.last,
        topic=constraint.topic,
        words=tuple(sorted(hashes(words))),
        numbers=tuple(sorted(hashes(numbers))),
        corrects=constraint.corrects,
        firm=constraint.strength == "firm",
    )


def hashes(words: Iterable[str]) -> frozenset[int]:
    """Return the hashes of words."""
    return frozenset(crc32(word.encode()) for word in words)


def _is_number(word: str) -> bool:
    return word.isdigit() or word in _NUMBERS


_NUMBERS: Final = frozenset(
    terms("one two three four five six seven eight nine ten eleven twelve noon midnight am pm", "english")
)
