"""One attribute of one thing: "what is my dog's name", "where does Ada work"."""

from __future__ import annotations

from typing import Final

from server.retrieval.query_types.query_type import QueryType, Question, cue
from server.retrieval.query_types.wish import Wish


def _wish(_: Question) -> Wish:
    # The default plan is tuned on such questions; a wish for less would only lose context.
    return Wish()


_OWNER: Final = r"(?:my|our|your|his|her|their|the|[\w-]+'s|[\w-]+s')"
_ATTRIBUTE: Final = (
    r"(?:(?:full|first|last|middle|maiden|user|nick|pet|dog|cat)[ -]?)?names?|nickname|birthday|date of birth"
    r"|age|height|weight|e-?mail(?: address)?|(?:home |work |postal )?address"
    r"|(?:phone|mobile|account|order|flight|room|serial|licen[cs]e|passport|booking|confirmation) number"
    r"|password|username|job|profession|occupation|major|degree"
    r"|salary|budget|deadline|blood type|hometown|nationality|zodiac sign|shoe size|favou?rite [\w ]{3,30}"
)

TYPE = QueryType(
    name="fact",
    summary="The default plan, told that one event suffices: right for names, numbers and places, and neither wins nor "
    "loses against the default.",
    determinism="exact",
    budget="As default.",
    precedence=80,
    cues=(
        cue(
            "attribute",
            "what what's",
            rf"^what(?:'s| is| was) (?:{_OWNER} )+(?:{_ATTRIBUTE})(?= *\?*$| (?:of|for|in|at|from|when)\b)",
        ),
        cue(
            "the name of", "name", r"^what(?:'s| is| was) the (?:name|address|price|title|number|colou?r|brand|size) of"
        ),
        cue("who is", "who who's", rf"^who(?:'s| is| was) {_OWNER} \w+(?: \w+)? *\?*$"),
        cue(
            "where does",
            "where",
            r"^where (?:do|does|did) \w+ (?:live|work|study|come from|grow up|go to (?:school|college|university))",
        ),
        cue("how old", "old tall", r"^how (?:old|tall|heavy) (?:is|am|are|was)"),
        cue("wie heißt", "heißt heisst", r"^wie hei(?:ß|ss)t (?:mein|dein|sein|ihr|unser|der|die|das)\w*"),
        cue("comment s'appelle", "appelle", r"^comment s'appelle(?:nt)?"),
        cue("cómo se llama", "llama llaman", r"^¿?cómo se llama[n]?"),
    ),
    wish=_wish,
)
