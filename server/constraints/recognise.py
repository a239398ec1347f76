"""Recognising standing instructions and preferences when they are written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from server.constraints.constraint import Constraint
from server.constraints.cues import CUES, ORDERS, Cue
from server.constraints.topics import topic_of
from server.retrieval.analysis import query_terms
from server.retrieval.times import lower

# Goes up with any change of what is recognised or of how constraints bear on one another.
RECOGNISER: Final = "constraints/1"

# Anything else that speaks (assistants, tools) could smuggle orders in; see DESIGN.
SETTERS: Final = frozenset({"user", "system", "developer"})

# Of a longer user text the middle is a paste: what its writer wants stands before or behind it.
_ENDS: Final = 2_000
_LONGEST: Final = 20_000
_LONGEST_SENTENCE: Final = 400

_WORD: Final = re.compile(r"[^\W_]+")
_SENTENCE: Final = re.compile(r"[^.!?\n。！？]+(?:\.(?=\w)[^.!?\n。！？]*)*[.!?。！？]*")
_LEAD: Final = re.compile(
    r"\s*(?:[-*•#>]+\s+|\(?\d{1,2}[.)]\s+|[\"“(]\s*)*"
    r"(?:(?:and|but|so|also|then|ok|okay|hey|hi|hello|oh|well|btw|by the way|actually|yeah|sure|thanks|thank you|just"
    r"|again|additionally|great|cool|alright|sorry|und|aber|ja|danke|übrigens|et|mais|alors|y|pero|gracias|bueno)\s+"
    r"|(?!please\b)(?:\w+|by the way|thank you|one more thing|one thing|p\.s\.|also note)\s?[,:;–—!]+\s*)*"
)
_FENCED: Final = re.compile(r"```.*?(?:```|\Z)|^>.*$", re.DOTALL | re.MULTILINE)
_CORRECTS: Final = re.compile(
    r"\b(?:actually|instead|no longer|not? any ?more|anymore|from now on|now|again|changed my mind|scratch"
    r" that|correction"
    r"|on second thought|i've switched|rather than|ab jetzt|nicht mehr|doch lieber|stattdessen|désormais"
    r"|finalement|plutôt"
    r"|ne \w+ plus|ahora|ya no|en cambio|mejor)\b"
)


def _by_word(cues: Sequence[Cue]) -> dict[str, tuple[int, ...]]:
    """Return the places of the cues that each word calls for."""
    places: dict[str, tuple[int, ...]] = {}
    for place, cue in enumerate(cues):
        for word in cue.words:
            places[word] = (*places.get(word, ()), place)
    return places


_ALL: Final = CUES + ORDERS
_OF_USERS: Final = _by_word(CUES)
_OF_ALL: Final = _by_word(_ALL)


def recognise(text: str, role: str | None) -> list[Constraint]:
    """Return the constraints that a text sets, by place, at most one for each sentence.

    Nothing for a role that may not set one. Costs a few microseconds for a turn without a cue's words.
    """
    if role not in SETTERS or not text:
        return []
    calls = _OF_USERS if role == "user" else _OF_ALL
    found: list[Constraint] = []
    for start, part in _parts(text, role):
        lowered = lower(part).replace("’", "'")
        if calls.keys().isdisjoint(_WORD.findall(lowered)):
            continue
        if "```" in lowered or ">" in lowered:
            lowered = _FENCED.sub(_blank, lowered)
        for sentence in _SENTENCE.finditer(lowered):
            called = calls.keys() & _WORD.findall(sentence.group())
            if not called:
                continue
            cues = [_ALL[place] for place in sorted({place for word in called for place in calls[word]})]
            read = _read(lowered, sentence, cues)
            if read is not None:
                first, last, cue = read
                whole = lowered[sentence.start() : last]
                found.append(_constraint(part[first:last], whole, start + first, cue))
    return found


def stated(text: str) -> list[Constraint]:
    """Return what a text sets whose writer says that it sets something: what is recognised in it, else all of it."""
    found = recognise(text, "system")
    if found or not text:
        return found
    lowered = lower(text[:_LONGEST_SENTENCE]).replace("’", "'")
    return [
        Constraint(
            kind="instruction",
            polarity="do",
            topic=topic_of(lowered),
            subject=_subject(text[:_LONGEST_SENTENCE]),
            text=text,
            first=0,
            last=len(text),
            cue="explicit",
            strength="firm",
        )
    ]


def _parts(text: str, role: str | None) -> Iterator[tuple[int, str]]:
    if role == "user" and len(text) > 2 * _ENDS:
        yield 0, text[:_ENDS]
        yield len(text) - _ENDS, text[-_ENDS:]
    else:
        yield 0, text[:_LONGEST]


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match.group())


def _read(lowered: str, sentence: re.Match[str], cues: list[Cue]) -> tuple[int, int, Cue] | None:
    """Return where the sentence stands without its lead-in, and the first cue that it shows."""
    lead = _LEAD.match(lowered, sentence.start(), sentence.end())
    first = sentence.start() if lead is None else lead.end()
    last = min(sentence.end(), first + _LONGEST_SENTENCE)
    said = lowered[first:last].rstrip()
    if len(said) < 6:
        return None
    asked = said.endswith(("?", "？"))
    for cue in cues:
        if asked and not (cue.asked and _ASKS_FOR.match(said)) and not (cue.stated and not _ASKS.match(said)):
            continue
        match = cue.pattern.search(said)
        if match is None:
            continue
        if said[: match.start()].count('"') % 2:
            continue  # somebody else's words
        return first, first + len(said), cue
    return None


_ASKS: Final = re.compile(
    r"(?:if|do|does|did|is|are|am|was|were|can|could|would|will|should|may|have|has|what|who|when|where|why"
    r"|how|which|wenn"
    r"|was|wer|wie|wo|ist|bin|si|est-ce|que|qué|cómo)\b"
)
_ASKS_FOR: Final = re.compile(
    r"(?:(?:can|could|would|will) you (?!speak \w+ ?\?)|please|kannst|könntest|können|peux|pourrais|pouvez"
    r"|pourriez|puedes|podrías|bitte)"
)


def _constraint(sentence: str, lowered: str, first: int, cue: Cue) -> Constraint:
    return Constraint(
        kind=cue.kind,
        polarity=cue.polarity,
        topic=topic_of(lowered),
        subject=_subject(sentence),
        corrects=_CORRECTS.search(lowered) is not None,
        text=sentence,
        first=first,
        last=first + len(sentence),
        cue=cue.name,
        strength=cue.strength,
    )


def _subject(sentence: str) -> tuple[str, ...]:
    return tuple(term.terms[0] for term in query_terms(sentence) if term.word not in _EMPTY)[:16]


# Words of the cues, and verbs of any order, say nothing of the subject.
_EMPTY: Final = frozenset(
    re.findall(
        r"\w+",
        "always never please prefer would like want need sure make ensure keep mind remember note instead now ever "
        "only no longer actually anymore forward future henceforth whenever every time each do don must should "
        "rule preference rather just again use using show showing write writing give giving add adding put include "
        "including get bitte immer nie niemals toujours jamais siempre nunca prefiero préfère bevorzuge ab jetzt "
        "désormais",
    )
)
