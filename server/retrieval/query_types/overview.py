"""The whole of it: "summarise our conversation", "catch me up"."""

from __future__ import annotations

from typing import Final

from server.retrieval.query_types.query_type import QueryType, Question, cue
from server.retrieval.query_types.wish import Wish


def _wish(_: Question) -> Wish:
    return Wish(coverage="span", breadth=2.0, neighbours=0)


_ASKED: Final = (
    r"^(?:(?:please|can you|could you|would you|will you|now|ok|okay|so|and|hey|hi|give me|i need|i want|i'd like"
    r"|write|make|show me|let's have|provide)[, ]+)*"
)
_TALK: Final = (
    "conversation|conversations|discussion|discussions|chat|chats|talk|talks|session|sessions|exchange|project"
    "|everything|thread"
)

TYPE = QueryType(
    name="overview",
    summary="Spreads the answer over the whole span of the conversation: right for summaries, and loses to the default "
    "on any question with one answer.",
    determinism="exact",
    budget="Exact while the scope is searched whole; which stretch of the span each event stands for is fixed by seq.",
    precedence=20,
    cues=(
        cue(
            "summarise",
            "summarise summarize recap summary overview tldr tl sum",
            rf"{_ASKED}(?:summari[sz]e|recap|sum up)(?= (?:what|everything|all|our|the (?:{_TALK})|this"
            rf" (?:{_TALK})|my|so far|where|how|it all)|[.?! ]*$)",
            rf"{_ASKED}(?:an? |the )?(?:\w+ )?(?:summary|recap|overview) of (?:what|everything|all|our|(?:the"
            rf"|this|these) (?:\w+ )?(?:{_TALK}))",
            r"^(?:tl;?dr|recap|summary)(?: please)?[.?!]*$",
            rf"(?:a|the) (?:\w+ )?(?:summary|recap|overview) of (?:our|this|the (?:whole|entire)) (?:\w+ )?(?:{_TALK})",
        ),
        cue("catch me up", "catch speed", r"catch me up", r"(?:bring|get) me up to (?:speed|date)"),
        cue(
            "what we talked about",
            "discussed talked covered discuss talk cover",
            r"what (?:all )?(?:have|did) we (?:discuss|discussed|talk about|talked about|cover|covered)(?: so"
            r" far| in total| together| until now| up to now| overall| altogether)? ?[.?!]*$",
            r"everything (?:that )?we(?:'ve| have)? (?:discussed|talked about|covered)",
        ),
        cue(
            "main points",
            "main key topics themes",
            rf"(?:the )?(?:main|key|most important) (?:points|topics|themes|takeaways|decisions|subjects)(?:"
            rf" \w+){{0,3}} (?:of|in|from|we|our) (?:our |this |the |these )?(?:{_TALK}|discuss|discussed"
            rf"|talked|covered)",
            r"what (?:topics|subjects|themes) (?:have we|did we|do we|came up)",
            r"what is (?:this|our) (?:whole )?(?:conversation|chat|discussion) about",
        ),
        cue(
            "zusammenfassen",
            "fasse fass zusammenfassung überblick zusammenfassen zusammen",
            r"fass(?:e)?(?: \w+){1,8} zusammen",
            r"(?:eine |die )?(?:kurze )?zusammenfassung (?:unser|dies|der (?:bisherigen|gespräch|unterhaltung)"
            r"|von allem|bitte)\w*",
            r"(?:einen |den )?(?:kurzen )?überblick über (?:unser|dies|das gespräch|alles|die unterhaltung)\w*",
        ),
        cue(
            "résumer",
            "résume résumez résumé récapitule récapitulez récapitulatif résumer",
            r"(?:résume|résumez|résumer|récapitule|récapitulez)(?:-moi|-nous)? (?:notre|nos|cette|ce (?:que"
            r"|qu)|tout|la (?:conversation|discussion))",
            r"(?:un |le )?(?:résumé|récapitulatif) de (?:notre|nos|cette|tout|ce que|la (?:conversation|discussion))",
        ),
        cue(
            "resumir",
            "resume resúmeme resumen resumir recapitula",
            r"(?:resume|resúmeme|resumir|recapitula) (?:nuestra|nuestras|esta|lo que|todo|la (?:conversación|charla))",
            r"(?:un |el )?resumen de (?:nuestra|nuestras|esta|todo|lo que|la (?:conversación|charla))",
        ),
    ),
    wish=_wish,
)
