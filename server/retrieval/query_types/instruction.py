"""The rules that were set: "what are my preferences", "what did I tell you never to do"."""

from __future__ import annotations

from typing import Final

from server.retrieval.query_types.query_type import QueryType, Question, cue
from server.retrieval.query_types.wish import Wish


def _wish(_: Question) -> Wish:
    return Wish(roles=("user", "system", "developer"), all_constraints=True, coverage="sessions", breadth=1.5)


_RULES: Final = (
    r"preferences?|instructions?|constraints?|rules?|requirements?|dietary (?:restrictions?|requirements?"
    r"|needs|preferences?)"
    r"|house style|standing orders?|allergies|intolerances"
)

TYPE = QueryType(
    name="instruction",
    summary="Puts the standing instructions and preferences first, all of them: right when a question asks for the "
    "rules themselves; rules that merely govern a question come with every type.",
    determinism="exact",
    budget="Exact for the constraints, which are kept typed; what is searched beside them is as in default.",
    precedence=30,
    cues=(
        cue(
            "my rules",
            "preferences preference instructions instruction constraints constraint rules rule requirements "
            "requirement "
            "restrictions needs dietary allergies intolerances style orders restriction",
            rf"(?:what|which|list|show|recall|remember|repeat)(?: \w+){{0,4}} (?:my|our|standing) (?:\w+"
            rf" )?(?:{_RULES})",
            rf"(?:{_RULES})(?: \w+){{0,2}} (?:did|have|had) (?:i|we) (?:set|give|given|gave|state|stated"
            rf"|mention|mentioned|tell|told)",
            rf"(?:{_RULES}) (?:that )?(?:i|we)(?:'ve| have)? (?:set|given|gave|stated|mentioned|told)",
            rf"do (?:i|we) have any (?:{_RULES})",
        ),
        cue(
            "told you to",
            "told tell ask asked instruct instructed said say",
            r"what (?:did|have) i (?:\w+ )?(?:tell|told|ask|asked|instruct|instructed) you (?:to|not to|never"
            r" to|always to)(?: (?:do|avoid|use|remember|keep))?",
            r"what (?:should|must|can|may) you (?:always|never|not)\b",
            r"did i (?:tell|ask|instruct) you (?:to|not to|never to|always to)",
        ),
        cue(
            "how I like it",
            "prefer like want call address",
            r"how (?:do|would|did) (?:i|we) (?:prefer|like|want) (?:my|you|the|to be|our|it|things|code|answers)",
            r"how (?:should|do|will) you (?:call|address|refer to) me",
            r"what (?:should|do|will) you call me",
            r"what do i (?:generally |usually |normally )?prefer",
        ),
        cue(
            "meine Vorlieben",
            "vorlieben anweisungen regeln vorgaben wünsche gebeten aufgetragen",
            r"(?:was|welche)(?: \w+){0,3} meine (?:\w+ )?(?:vorlieben|anweisungen|regeln|vorgaben|wünsche)",
            r"worum habe ich dich gebeten",
            r"was habe ich dir aufgetragen",
        ),
        cue(
            "mes préférences",
            "préférences consignes instructions règles",
            r"quel(?:le)?s (?:sont|étaient) mes (?:préférences|consignes|instructions|règles)",
        ),
        cue(
            "mis preferencias",
            "preferencias instrucciones reglas",
            r"(?:cuáles son|qué) mis (?:preferencias|instrucciones|reglas)",
            r"cuáles (?:son|eran) mis (?:preferencias|instrucciones|reglas)",
        ),
    ),
    wish=_wish,
)
