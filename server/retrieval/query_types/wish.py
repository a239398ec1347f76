"""What a question wants of its answer, as data: a planner turns it into a change of the default plan.

A wish that changes nothing is the default plan. Every field is a preference over the strong default ranking, so that a
wish that nothing fulfils (a range without events, a phrase nobody wrote) leaves the default answer.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from schema.vocabulary import Role
from server.retrieval.times import Anchor, TimeRange

Order = Literal["score", "newest", "oldest"]
Coverage = Literal["none", "sessions", "span"]


class Wish(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields at their defaults ask for nothing.

    ``order``: of the answer; by score, or by time among what scores well enough. ``tail``: only the last so many
    messages before the question, and no search at all. ``roles`` and ``speakers``: whose words are preferred; with
    ``tail``, the only ones.

    ``ranges``: the times that the question names, and ``range_weight`` how strongly events inside them are preferred: 0
    not at all, 1 as strongly as all else in the score together. Ranges are of ``occurred_at``, but people tell of a
    day after it: for ``range_slack_days`` after a range an event still counts, ever less. ``anchors``: events that the
    question dates by; they are to be found first, then that side of them is preferred. ``asks_time``: the answer is a
    time, so turns that state one (``times.states_time``) are preferred.

    ``recency``: how much newer is better, as a share of the score. ``newest_value_first``: of events about the same
    thing the newest stands first and the older ones are marked as superseded. ``phrases``: literal words, and
    ``phrase_weight`` how strongly events that hold one are preferred: 1 puts them before all others. ``lexical``: a
    factor on the lexical weight.

    ``coverage``: what the answer spreads over: each session that may hold evidence, or the whole span of the
    conversation. It adds what a list by score leaves out, and never drops evidence for variety's sake. ``breadth``: a
    factor on how many candidates are considered. ``neighbours``: turns on each side that come along, None for the
    plan's own number. ``all_constraints``: every standing instruction first, not only those that govern the question.
    """

    order: Order = "score"
    tail: int | None = None
    roles: tuple[Role, ...] = ()
    speakers: tuple[str, ...] = ()
    ranges: tuple[TimeRange, ...] = ()
    range_weight: float = 0.0
    range_slack_days: float = 0.0
    anchors: tuple[Anchor, ...] = ()
    asks_time: bool = False
    recency: float = 0.0
    newest_value_first: bool = False
    phrases: tuple[str, ...] = ()
    phrase_weight: float = 0.0
    lexical: float = 1.0
    coverage: Coverage = "none"
    breadth: float = 1.0
    neighbours: int | None = None
    all_constraints: bool = False
