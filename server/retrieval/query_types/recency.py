"""What was said last: "what did you just say", "repeat your last answer"."""

from __future__ import annotations

from typing import Final

from schema.vocabulary import Role
from server.retrieval.query_types.query_type import QueryType, Question, cue
from server.retrieval.query_types.wish import Wish

_TAIL: Final = 10  # messages: the exchange that "just now" can mean
_YOURS: Final = frozenset(
    [
        "you",
        "your",
        "du",
        "dein",
        "deine",
        "deiner",
        "ihr",
        "tu",
        "ta",
        "ton",
        "votre",
        "vous",
        "tus",
        "acabas",
        "dijiste",
    ]
)
_MINE: Final = frozenset(["i", "my", "ich", "mein", "meine", "je", "j", "ma", "mon", "mi", "yo"])


def _wish(question: Question) -> Wish:
    roles: tuple[Role, ...] = ()
    mine, yours = not _MINE.isdisjoint(question.words), not _YOURS.isdisjoint(question.words)
    # "Did I just tell you …" names both: whose words are meant is then unclear.
    if not question.speakers and mine != yours:
        roles = ("user",) if mine else ("assistant",)
    return Wish(order="newest", tail=_TAIL, roles=roles, speakers=question.speakers, recency=1.0, neighbours=1)


_SAID: Final = (
    "say|said|tell|told|mention|mentioned|ask|asked|write|wrote|suggest|suggested|explain|explained|show|send|sent"
)
_TURN: Final = "message|messages|answer|reply|response|question|statement|sentence|remark|suggestion|turn"

TYPE = QueryType(
    name="recency",
    summary="Reads the end of the conversation, newest first, without a search: right for what was said a moment ago, "
    "and blind to anything older.",
    determinism="exact",
    budget="Exact: the order of the log decides.",
    precedence=10,
    cues=(
        cue(
            "just said",
            "just",
            rf"(?:what|did|that|which|the \w+|whatever)(?: \w+){{0,3}} just (?:now )?(?:{_SAID}|talk(?:ed|ing)?"
            rf" about|discuss(?:ed|ing)?)",
            rf"(?:you|i|we)(?:'ve| have) just (?:{_SAID})",
            rf"(?:what|who)(?: \w+){{0,3}} (?:{_SAID}|talking about|discussing|saying|speaking of) just now",
        ),
        cue(
            "last message",
            "last previous latest preceding recent",
            rf"(?:your|my|the|his|her|their|\w+'s) (?:very )?(?:last|previous|latest|preceding|most recent)"
            rf" (?:\w+ )?(?:{_TURN})(?! (?:of|in|on|to|from|about) )",
            rf"the last (?:thing|things|few things) (?:that )?(?:you|i|we|he|she|they|\w+) (?:{_SAID})",
            rf"what (?:\w+ ){{1,3}}(?:{_SAID}) last(?= *\?| *$)",
        ),
        cue("a moment ago", "moment second minute", r"(?:a|one) (?:moment|second|minute) ago"),
        cue(
            "say it again",
            "again repeat",
            r"(?:say|tell me|show me) (?:that|it) (?:once )?again",
            r"^(?:please |can you |could you |would you )*repeat (?:that|it|yourself|what you said|your last \w+)",
        ),
        cue("where were we", "were", r"where were we", r"what were we (?:just )?(?:talking about|discussing|saying)"),
        cue(
            "gerade gesagt",
            "gerade eben zuletzt soeben letzte vorige letzten vorigen wiederhole",
            r"(?:gerade|eben|soeben|zuletzt) (?:gesagt|geschrieben|gefragt|erwähnt|gemeint|erzählt|vorgeschlagen)",
            r"(?:deine|ihre|meine|die) (?:letzten?|vorigen?) (?:antwort|nachricht|frage|aussage)",
            r"^(?:bitte )?wiederhole? (?:das|es|bitte)",
        ),
        cue(
            "viens de dire",
            "viens venez dernière dernier répète répétez",
            r"(?:viens|venez|venons|vient)(?:-tu|-vous)? d(?:e |')(?:me )?(?:dire|écrire|demander|mentionner|proposer)",
            r"(?:ta|votre|ma|la) dernière (?:réponse|question|phrase)",
            r"(?:ton|votre|mon) dernier message",
            r"^(?:s'il te plaît |s'il vous plaît )?(?:répète|répétez)(?! mot)",
        ),
        cue(
            "acabas de decir",
            "acabas acaba acabo última último repite repítelo",
            r"acab(?:as|a|o|amos) de (?:decir|escribir|preguntar|mencionar|proponer)(?:me)?",
            r"(?:tu|mi|su|la) última (?:respuesta|pregunta|frase)",
            r"(?:tu|mi|su) último mensaje",
            r"^(?:por favor,? )?(?:repite|repítelo)",
        ),
    ),
    wish=_wish,
)
