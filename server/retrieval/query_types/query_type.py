"""What a query type is: one file in query_types/ with a ``TYPE`` that names its cues and what it wishes for.

A type is chosen only on a cue that rarely means anything else; a question without one runs the default plan.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from server.retrieval.query_types.wish import Wish
from server.retrieval.times import Times

Determinism = Literal["exact", "approximate"]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question as the cues see it.

    ``lowered`` is ``text`` letter for letter, in lower case and with straight apostrophes; ``words`` are its words.
    ``speakers``: who of the conversation is named. ``quoted``: what stands in quotation marks. ``codes``: ids, numbers,
    addresses and the like, which mean nothing but themselves.
    """

    text: str
    lowered: str
    words: frozenset[str]
    times: Times
    speakers: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()


class Fired(NamedTuple):
    """A cue that was seen, and the words that showed it."""

    cue: str
    text: str


@dataclass(frozen=True)
class Cue:
    """A pattern over lower-case text; it is not tried without one of ``words``, which keeps the classifier fast."""

    name: str
    words: frozenset[str]
    pattern: re.Pattern[str]


def cue(name: str, words: str, *patterns: str) -> Cue:
    """Make a cue of words (parted by spaces) and alternatives, each of which contains one of them."""
    return Cue(name, frozenset(words.split()), re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)"))


def _nothing(_: Question) -> Iterator[Fired]:
    return iter(())


@dataclass(frozen=True, kw_only=True)
class QueryType:
    """``determinism``: whether its answer is always the same, or where approximation enters (``budget``).

    ``precedence``: of several types that are seen, the one with the lowest number is chosen. ``rule``: cues that are no
    pattern. ``wish``: what it wants for this question.
    """

    name: str
    summary: str
    determinism: Determinism
    budget: str
    precedence: int
    cues: tuple[Cue, ...] = ()
    rule: Callable[[Question], Iterator[Fired]] = _nothing
    wish: Callable[[Question], Wish]

    def seen(self, question: Question) -> list[Fired]:
        """Return the cues that a question shows."""
        fired = []
        for one in self.cues:
            if not one.words.isdisjoint(question.words):
                match = one.pattern.search(question.lowered)
                if match is not None:
                    fired.append(Fired(one.name, question.text[match.start() : match.end()]))
        fired.extend(self.rule(question))
        return fired
