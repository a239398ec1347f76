"""The exact words: quotes, ids, numbers, "word for word"."""

from __future__ import annotations

from collections.abc import Iterator

from server.retrieval.query_types.query_type import Fired, QueryType, Question, cue
from server.retrieval.query_types.wish import Wish


def _wish(question: Question) -> Wish:
    return Wish(phrases=question.codes + question.quoted, phrase_weight=1.0, lexical=1.25)


def _rule(question: Question) -> Iterator[Fired]:
    for code in question.codes[:3]:
        yield Fired("code", code)


TYPE = QueryType(
    name="verbatim",
    summary="Puts events that hold the quoted words, id or number literally before all others: right when the wording "
    "is known, and loses when the words are remembered only roughly.",
    determinism="exact",
    budget="Exact for literal matches; what follows them is as in default.",
    precedence=40,
    cues=(
        cue(
            "exact words",
            "exact exactly verbatim word literally quote phrasing wording words",
            r"(?:exact|precise) (?:words|wording|phrasing|phrase|quote|text|sentence|message)",
            r"verbatim",
            r"word[- ]for[- ]word",
            r"what exactly did \w+ (?:say|write|ask|tell)",
            r"what did \w+ (?:say|write|ask) exactly",
            r"^(?:please )?quote (?:me|what|my|your|the|him|her)",
        ),
        cue(
            "who said the quote",
            "said wrote say write mentioned mention used use",
            r"(?:who|when|where|did)(?: \w+){0,3} (?:said|wrote|say|write|mentioned|mention)(?= [\"“„«‘'])",
        ),
        cue("wörtlich", "wörtlich wortlaut wortwörtlich", r"(?:wort)?wörtlich", r"(?:genauen? )?wortlaut"),
        cue(
            "mot pour mot", "mot exacts textuellement", r"mot (?:pour|à) mot", r"(?:les )?mots exacts", r"textuellement"
        ),
        cue(
            "palabras exactas",
            "exactas literalmente textualmente",
            r"palabras exactas",
            r"literalmente",
            r"textualmente",
        ),
    ),
    rule=_rule,
    wish=_wish,
)
