"""Frozen text features: all that a policy may know of an event's text.

They depend on the text, the role and ``SCORER`` alone, so the same event scores the same in any process and year.
The cues are English; a text in another language simply shows none, and its rarity still counts.
"""

from __future__ import annotations

import re
from typing import Final
from zlib import crc32

import msgspec

SCORER: Final = "text/1"
BUCKETS: Final = 8192  # of the word counts, see rarity.py

_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_READ: Final = 20_000  # characters; what follows adds tokens, but no features
_SHORT: Final = 6  # words

_REFERENCE: Final = re.compile(
    r"\b(it|that|this|those|these|they|them|he|him|his|she|her|there|then|one|ones|same|both|latter|former)\b"
)
_CORRECTION: Final = re.compile(
    r"\b(actually|correction|i meant|i mean|scratch that|not anymore|no longer|instead|rather than|sorry,|wait,"
    r"|on second thought|changed? (?:my mind|it|to)|turns out)\b|^no\b"
)
_CONSTRAINT: Final = re.compile(
    r"\b(always|never|from now on|going forward|every time|whenever you|make sure|remember (?:that|to)|must(?:n't)?"
    r"|do not|don't|please (?:use|avoid|keep|stop|only)|i (?:prefer|hate)|i'm allergic|only (?:use|ever))\b"
)
_CHANGE: Final = re.compile(
    r"\b(now|new|changed|moved|updated|instead|until|by|rescheduled|increased|decreased|raised|lowered)\b"
)
_NUMBER: Final = re.compile(r"\d")
_INSTRUCTS: Final = frozenset({"user", "system", "developer"})


class Features(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a text: how many words, which (hashed, distinct, ascending), and cues.

    ``question``: it asks. ``short_reply``: up to six words. ``reference``: it leans on what was said before.
    ``correction``: it takes something back. ``constraint``: it sets a rule, and its role may. ``number_change``: a
    number that is said to be new or moved.
    """

    length: int = 0
    words: tuple[int, ...] = ()
    question: bool = False
    short_reply: bool = False
    reference: bool = False
    correction: bool = False
    constraint: bool = False
    number_change: bool = False


def features(text: str, role: str | None) -> Features:
    """Read the features of a text."""
    lowered = text[:_READ].lower().strip()
    words = _WORD.findall(lowered)
    return Features(
        length=len(words),
        words=tuple(sorted({crc32(word.encode()) % BUCKETS for word in words})),
        question=lowered.endswith("?"),
        short_reply=len(words) <= _SHORT,
        reference=_REFERENCE.search(lowered) is not None,
        correction=_CORRECTION.search(lowered) is not None,
        constraint=role in _INSTRUCTS and _CONSTRAINT.search(lowered) is not None,
        number_change=_NUMBER.search(lowered) is not None and _CHANGE.search(lowered) is not None,
    )
