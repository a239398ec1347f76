"""Many events make the answer: "list all", "how many times", "which books has she read"."""

from __future__ import annotations

from typing import Final

from server.retrieval.query_types.query_type import QueryType, Question, cue
from server.retrieval.query_types.wish import Wish


def _wish(_: Question) -> Wish:
    return Wish(coverage="sessions", breadth=1.5)


# "How many weeks passed" asks for a time, not for a count of events.
_COUNTED: Final = r"(?!(?:days?|weeks?|months?|years?|hours?|minutes?|people)\b)"
_ASPECT: Final = r"(?:has|have|'s|'ve)"

TYPE = QueryType(
    name="multi_evidence",
    summary="Looks for evidence in every session it may be in, and never drops any for variety: right for lists and "
    "counts, and loses nothing but room when one event would do.",
    determinism="exact",
    budget="Exact while the scope is searched whole; above the threshold the index may miss a rare session.",
    precedence=50,
    cues=(
        cue(
            "how many",
            "many often",
            r"how many times (?:has|have|did|do|does|'ve)",
            rf"how many (?:of )?{_COUNTED}(?:\w+ ){{1,3}}(?:has|have|did|do|does|were|are)",
            r"how often (?:has|have|did)",
        ),
        cue(
            "all of them",
            "all every each list everything everyone",
            r"list (?:all|every|each|the|of all)",
            r"(?:what|which|who|where)(?: \w+){0,3} (?:are|were) all",
            r"all (?:of )?(?:the|my|our|your|his|her|their|\w+'s) (?:different |various )?\w+s",
            r"(?:everything|every \w+|each \w+) (?:that )?(?:i|we|you|he|she|they|\w+)(?:'ve| have| has|'s)?"
            r" (?:\w+ed|said|told|done|bought|read|seen|made|given|been)",
        ),
        cue(
            "in common",
            "common both total altogether combined overall across",
            r"(?:have|has|share|got) (?:\w+ )?in common",
            r"^(?:what|which|how|where|who|do|did|have|has)\b.* both",
            r"in total",
            r"altogether",
            r"combined",
            r"across (?:all |our |the |my )?(?:sessions|conversations|chats)",
        ),
        cue(
            "plural of a perfect",
            "has have",
            rf"^(?!.* (?:kind|sort|type) of )(?:what|which|in what|in which)(?: \w+){{0,4}} \w+(?<!s)s"
            rf" (?:{_ASPECT}) (?!to\b)(?:\w+ ){{1,4}}?(?:\w+ed|been|done|had|seen|read|made|met|bought|given"
            rf"|gone|taken|won|written|found|eaten|sung|run|lost|got|gotten|held|worn|said|told|shown|drawn"
            rf"|built|taught|kept|left|sent|spent|felt|grown|known|begun|chosen|driven|flown|forgotten|heard"
            rf"|learnt|led|paid|put|ridden|set|sold|spoken|stood|swum|thought|understood|visited)",
            rf"^where {_ASPECT} (?:\w+ ){{1,2}}(?:been|\w+ed|gone)",
        ),
        cue(
            "several names",
            "names",
            r"^(?:what|which) (?:are|were) (?:[\w']+ ){0,4}names",
        ),
        cue(
            "kinds of",
            "kinds types sorts",
            r"^(?:what|which)(?: \w+){0,3} (?:kinds|types|sorts) of \w+(?: \w+){0,3} (?:has|have|does|do|did)",
        ),
        cue(
            "wie viele",
            "viele oft alle sämtliche",
            r"wie (?:oft|viele)(?! (?:tage|wochen|monate|jahre|stunden))",
            r"(?:liste|nenne?|zähle?)(?: \w+)? (?:mir )?(?:alle|sämtliche)",
            r"welche(?: \w+){0,3} (?:habe|hat|haben)(?: \w+)* (?:alle|schon|bisher|insgesamt)",
        ),
        cue(
            "combien de",
            "combien tous toutes liste",
            r"combien de (?!jours|semaines|mois|temps|années)\w+",
            r"(?:liste|énumère|cite)(?:-moi|r)? (?:tous|toutes)",
        ),
        cue(
            "cuántas veces",
            "cuántos cuántas todos todas",
            r"cuánt[ao]s (?!días|semanas|meses|años|horas)\w+",
            r"(?:enumera|lista|dime|nombra) (?:todos|todas)",
        ),
    ),
    wish=_wish,
)
