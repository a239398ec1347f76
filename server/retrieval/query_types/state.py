"""The current value of something that changes: "where do I work now", "is she still vegan"."""

from __future__ import annotations

from typing import Final

from server.retrieval.query_types.query_type import QueryType, Question, cue
from server.retrieval.query_types.wish import Wish


def _wish(_: Question) -> Wish:
    return Wish(newest_value_first=True, recency=0.15, coverage="sessions")


_BE: Final = r"(?:is|are|am|do|does|'s|'re|'m)"

TYPE = QueryType(
    name="state",
    summary="Puts the newest value first and marks the older ones as superseded: right for what changes (address, job, "
    "plan), and loses when an older event told it better.",
    determinism="exact",
    budget="Exact: among events about the same thing occurred_at and then seq decide.",
    precedence=70,
    cues=(
        cue(
            "currently",
            "currently current nowadays presently",
            rf"{_BE}(?: \w+){{0,5}} currently",
            r"currently (?!un|in stock)\w+",
            r"(?:my|our|your|his|her|their|the|\w+'s) current (?!events|affairs|limit)\w+",
            r"nowadays",
        ),
        cue(
            "now",
            "now",
            r"^(?:what|where|who|which|how)\b.* (?:right )?now(?= *\?*$| that)",
            rf"^{_BE} .* now *\?*$",
            r"as of (?:right )?now",
        ),
        cue(
            "still",
            "still anymore longer",
            r"^(?:is|are|am|do|does) (?:\w+ ){1,3}still\b",
            r"^(?:is|are|am|do|does|isn't|doesn't|don't|aren't) .* any ?more *\?*$",
        ),
        cue(
            "these days",
            "days moment",
            r"these days",
            r"at the moment(?= *\?*$)",
        ),
        cue(
            "latest value",
            "latest newest recent up-to-date date updated",
            r"(?:my|our|the|his|her|their|\w+'s) (?:latest|newest|most recent|most up[- ]to[- ]date|updated)"
            r" (?!project|book|movie|film|song|news|album|trip|post|photo)\w+",
        ),
        cue(
            "derzeit",
            "derzeit aktuell momentan aktuelle aktueller aktuellen aktuelles heutzutage",
            r"derzeit\w*",
            r"aktuell(?:e[nrsm]?)?",
            r"momentan",
            r"heutzutage",
        ),
        cue(
            "actuellement",
            "actuellement actuel actuelle",
            r"actuellement",
            r"(?:mon|ma|son|sa|notre|ton|ta) \w+ actuel(?:le)?",
        ),
        cue("actualmente", "actualmente actual", r"actualmente", r"(?:mi|su|tu|nuestr[oa]) \w+ actual"),
    ),
    wish=_wish,
)
