"""Time: a date, a range, before and after, order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from server.retrieval.query_types.query_type import Fired, QueryType, Question, cue
from server.retrieval.query_types.wish import Wish

_ASKS: Final = ("asks when", "asks how long", "wann", "quand", "cuándo")


def _wish(question: Question) -> Wish:
    asks = any(fired.cue in _ASKS for fired in TYPE.seen(question))
    return Wish(asks_time=asks, anchors=question.times.anchors)


def _rule(question: Question) -> Iterator[Fired]:
    for one in question.times.ranges[:3]:
        yield Fired("date" if one.explicit else "relative date", one.text)
    for anchor in question.times.anchors:
        if anchor.relation in ("first", "last"):
            yield Fired(f"the {anchor.relation} time", anchor.phrase)


_UNITS: Final = "days|weeks|months|years|hours|minutes"

TYPE = QueryType(
    name="temporal",
    summary="Prefers events inside a named time, and turns that state one when a time is asked for: right for dates, "
    "ranges and order, and loses where a relative time was meant from the teller's day and not from today.",
    determinism="exact",
    budget="Exact given the conversation's clock; an event that a question dates by (an anchor) is found by the "
    "default search, as approximately as that.",
    precedence=60,
    cues=(
        cue(
            "asks when",
            "when date day month year week time since",
            r"^(?:(?:and|so|but|do you (?:remember|know|recall)|tell me|can you tell me|remind me|i forgot"
            r"|exactly)[, ]+)*(?:since )?when(?!ever| (?:i|you|we) \w+,)",
            r"^(?:on |in |around |at )?(?:what|which) (?:exact |specific )?(?:date|day|month|year|week|time of"
            r" (?:day|year)|us holiday|holiday|season)(?! (?:off|trip|job|plan|pass)\b)",
        ),
        cue(
            "asks how long",
            "long many much",
            r"how long (?:ago|has|have|had|did|was|were|until|before|after|since)",
            rf"how many (?:{_UNITS}) (?:\w+ )?(?:ago|passed|since|until|before|after|between|did|has|have|apart|later)",
            r"how much time (?:passed|did|has|between|since)",
        ),
        cue(
            "asks the order",
            "first order earlier later sooner before after",
            r"which (?:\w+ ){0,4}(?:came|happened|was|were|did \w+ \w+) (?:first|last|earlier|later)",
            r"(?:in|the) (?:what|which|chronological|correct) order",
            r"what (?:happened|did \w+ do|came) (?:first|next|last)",
            r"before or after",
            r"who (?:\w+ ){1,4}first,",
        ),
        cue("wann", "wann", r"(?:seit |ab |bis )?wann", r"wie lange"),
        cue("quand", "quand", r"^(?:depuis |jusqu'à )?quand(?: est-ce)?(?! j'| je | tu | on )"),
        cue("cuándo", "cuándo", r"(?:desde |hasta )?cuándo"),
    ),
    rule=_rule,
    wish=_wish,
)
