"""Events that a text dates by: "before we moved", "after the accident", "the first time".

Their time is in the conversation, not in the calendar: an anchor carries the phrase to search for.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

Relation = Literal["before", "after", "since", "until", "during", "first", "last"]


class Anchor(msgspec.Struct, frozen=True):
    """``relation`` to the event that ``phrase`` tells of; ``first`` and ``last``: where both stand in the text."""

    relation: Relation
    phrase: str
    first: int
    last: int


# "before nine", "after all", "before long" and the like name no event.
_NO_EVENT: Final = (
    r"(?!(?:all|long|that|this|it|then|them|now|nine|ten|one|two|noon|midnight|lunch|dinner|breakfast|the end|else)\b"
    r"[^\w]*(?:$|[?.!,;])|\d)"
)
_EVENT: Final = r"(?P<event>[^\s?.!,;:\"()](?:[^?.!,;:\"()\n]{2,60}))"
_CUES: Final[dict[Relation, tuple[str, ...]]] = {
    "first": (
        r"the (?:very )?first time(?: (?:that|when))?",
        r"das erste mal,? (?:dass|als)",
        r"la première fois (?:que|qu'|où)",
        r"la primera vez que",
    ),
    "last": (
        r"the (?:very )?last time(?: (?:that|when))?",
        r"das letzte mal,? (?:dass|als)",
        r"la dernière fois (?:que|qu'|où)",
        r"la última vez que",
    ),
    "before": ("before", "bevor", "avant (?:que|de|le|la|les|notre|mon|ma|mes|nos)", "antes de(?: que)?"),
    "after": ("after", "nachdem", "après (?:que|avoir|le|la|les|notre|mon|ma|mes|nos)", "después de(?: que)?"),
    "since": ("since", "seitdem", "depuis que", "desde que"),
    "until": ("until", "jusqu'à ce que", "hasta que"),
    "during": ("during", "während (?:des|der|unserer|meiner)", "pendant", "durante"),
}
_RULES: Final = tuple(
    (relation, re.compile(rf"(?<![\w'’])(?:{'|'.join(cues)}) {_NO_EVENT}{_EVENT}")) for relation, cues in _CUES.items()
)
# One of these words is in every cue; without any, nothing is searched.
GATE: Final = frozenset(
    re.findall(
        r"\w+",
        "time mal fois vez before bevor avant antes after nachdem après después since seitdem depuis desde until jusqu "
        "hasta during während pendant durante",
    )
)


def anchors(text: str, lowered: str, tokens: frozenset[str]) -> tuple[Anchor, ...]:
    """Return the anchors of a text, by place, at most one of each relation."""
    if GATE.isdisjoint(tokens):
        return ()
    found = []
    for relation, pattern in _RULES:
        match = pattern.search(lowered)
        if match is not None:
            phrase = text[match.start("event") : match.end()].rstrip()
            found.append(Anchor(relation, phrase, match.start(), match.start("event") + len(phrase)))
    return tuple(sorted(found, key=lambda anchor: anchor.first))
