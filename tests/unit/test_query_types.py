"""Query types: each by its cues in several languages, silence without one, and what a question then wishes for."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import InvalidInput
from server.retrieval.classify import LONGEST_QUESTION, Classified, classify, read
from server.retrieval.query_types import find, query_types
from server.retrieval.query_types.query_type import Question
from server.retrieval.query_types.wish import Wish

NOW = datetime(2023, 7, 20, 12, tzinfo=UTC)
SETTINGS = settings(max_examples=200, derandomize=True, deadline=None, database=None)

CASES = {
    "recency": [
        "What did you just say?",
        "What did Ada just tell us?",
        "Can you repeat your last answer?",
        "Say that again.",
        "What was my last question?",
        "What did I say a moment ago?",
        "Where were we?",
        "Was hast du gerade gesagt?",
        "Wiederhole das bitte",
        "Qu'est-ce que tu viens de dire ?",
        "Ta dernière réponse ?",
        "¿Qué acabas de decir?",
        "Repite, por favor",
    ],
    "overview": [
        "Summarise our conversation.",
        "Please summarize what we said about the budget.",
        "Give me an overview of everything.",
        "tl;dr",
        "Catch me up.",
        "What have we discussed so far?",
        "What are the main points of our discussion?",
        "Fasse unser Gespräch zusammen",
        "Résume notre conversation",
        "Hazme un resumen de nuestra charla",
    ],
    "instruction": [
        "What are my dietary restrictions?",
        "List all my preferences.",
        "What did I ask you to always do?",
        "What did I tell you never to mention?",
        "How should you address me?",
        "How do I like my coffee?",
        "Which rules did we set?",
        "Was sind meine Vorgaben?",
        "Quelles sont mes préférences ?",
        "¿Cuáles son mis preferencias?",
    ],
    "verbatim": [
        "What were her exact words about the move?",
        "Quote me word for word.",
        "What about ORD-44713?",
        "Which file has parse_header in it?",
        "Did anybody post https://example.org/x?a=1?",
        "What was wrong with 10.0.0.12?",
        'Who said "never trust a duck"?',
        "Was war der genaue Wortlaut?",
        "Répète mot pour mot ce qu'elle a écrit sur le bail",
        "¿Cuáles fueron sus palabras exactas?",
    ],
    "multi_evidence": [
        "How many times have I been to the dentist?",
        "How many bikes does Jo own?",
        "Which books has Ada read?",
        "What places have we visited?",
        "List all the films I mentioned.",
        "What do Ada and Jo have in common?",
        "How much did I spend in total?",
        "What kinds of tea does she drink, what types of cake has she baked?",
        "Wie oft war ich beim Zahnarzt?",
        "Combien de livres ai-je lus ?",
        "¿Cuántas veces fui al dentista?",
    ],
    "temporal": [
        "When did Ada move?",
        "Since when has she lived there?",
        "What day was the wedding?",
        "How long have I owned the boat?",
        "How many weeks passed between the two trips?",
        "Which came first, the move or the wedding?",
        "What did Jo buy on 7 May 2023?",
        "What did we decide last Tuesday?",
        "What did she wear the first time we met?",
        "Wann ist sie umgezogen?",
        "Quand a-t-elle déménagé ?",
        "¿Cuándo se mudó?",
    ],
    "state": [
        "Where do I work now?",
        "What is my current address?",
        "Is Jo still vegan?",
        "What is Ada currently reading?",
        "Do I own a car anymore?",
        "What is the latest version of the plan?",
        "Wo arbeite ich derzeit?",
        "Où est-ce que je travaille actuellement ?",
        "¿Dónde trabajo actualmente?",
    ],
    "fact": [
        "What is my dog's name?",
        "What's Ada's e-mail address?",
        "Who is my landlord?",
        "Where does Jo live?",
        "How old is Ada?",
        "Wie heißt mein Hund?",
        "Comment s'appelle mon chien ?",
        "¿Cómo se llama mi perro?",
    ],
    "default": [
        "",
        "?",
        "a",
        "🙂🙂",
        "the of and",
        "\x00\x01\x02",
        "Why did Ada choose the blue one?",
        "What did Jo think of the film?",
        "Tell me about the boat.",
        "Would she enjoy a theme park?",
        "Is justice overrated?",
        "What does the just ruler say?",
        "Write a summary of chapter two.",
        "How do I resume a download?",
        "I have been there once or twice.",
        "Whenever you like.",
        "What happened after the accident?",
        "先週何を話しましたか",
        "Что она сказала о переезде?",
    ],
}
CUED = [(type_, text) for type_, texts in CASES.items() for text in texts]


def ask(question: str, **more: object) -> Classified:
    return classify(question, now=NOW, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("expected", "question"), CUED)
def test_a_type_is_chosen_by_its_cues(expected: str, question: str) -> None:
    got = ask(question)
    assert got.type == expected, got.cues
    assert bool(got.cues) == (expected != "default")
    assert not got.forced


@pytest.mark.parametrize("name", sorted(query_types()))
def test_every_type_says_when_it_wins_and_how_exact_it_is(name: str) -> None:
    one = query_types()[name]
    assert "." in one.summary
    assert one.budget.endswith(".")
    assert one.determinism in ("exact", "approximate")
    assert len({cue.name for cue in one.cues}) == len(one.cues)
    forced = ask("What about the boat?", forced=name)
    assert (forced.type, forced.forced, forced.cues) == (name, True, ())
    assert msgspec.json.decode(msgspec.json.encode(forced.wish), type=Wish) == forced.wish


@pytest.mark.parametrize("name", sorted(query_types()))
def test_every_cue_is_reached_through_its_own_words(name: str) -> None:
    """A cue whose words are in none of the table's questions is never tried: the table must show each language."""
    seen = {cue.cue for text in CASES[name] for cue in query_types()[name].seen(_read(text))}
    tables = {cue.name for cue in query_types()[name].cues}
    assert len(tables & seen) >= len(tables) * 0.6


def _read(text: str) -> Question:
    return read(text, now=NOW)


def test_there_are_the_nine_types_and_default_comes_last() -> None:
    names = list(query_types())
    assert sorted(names) == sorted(CASES)
    assert names[-1] == "default"


def test_an_unknown_type_is_refused_with_what_exists() -> None:
    with pytest.raises(InvalidInput, match=r"no query type 'vibes'; there are default, fact") as error:
        ask("?", forced="vibes")
    assert error.value.param == "type"
    assert error.value.details["types"] == sorted(CASES)
    with pytest.raises(InvalidInput):
        find("query_type")


def test_default_and_fact_wish_for_the_default_plan() -> None:
    assert ask("Tell me about the boat.").wish == Wish()
    assert ask("Who is my landlord?").wish == Wish()


def test_a_date_is_wished_for_by_any_type() -> None:
    got = ask("How many times did Ada swim in May 2023?")
    assert (got.type, got.also) == ("multi_evidence", ("temporal",))
    assert [one.text for one in got.wish.ranges] == ["May 2023"]
    assert got.wish.coverage == "sessions"


def test_a_full_date_counts_more_than_a_relative_one_and_replaces_it() -> None:
    exact = ask("What did Jo buy on 7 May 2023?").wish
    loose = ask("What did Jo buy last year?").wish
    assert exact.range_weight > loose.range_weight > 0
    both = ask("What did Jo finish last Friday on 7 May 2023?")
    assert [one.text for one in both.wish.ranges] == ["7 May 2023"]
    assert len(both.times.ranges) == 2


def test_a_summary_of_last_week_counts_from_today() -> None:
    got = ask("Summarise what we discussed last week.")
    assert got.type == "overview"
    assert got.wish.range_weight == ask("What did Jo buy on 7 May 2023?").wish.range_weight


def test_recency_reads_the_end_and_knows_whose_words() -> None:
    wish = ask("What did you just say?").wish
    assert (wish.order, wish.roles) == ("newest", ("assistant",))
    assert wish.tail
    assert ask("What was my last question?").wish.roles == ("user",)
    named = ask("What did Ada just say?", speakers=["Ada", "Jo"]).wish
    assert (named.roles, named.speakers) == ((), ("Ada",))


def test_when_asks_for_a_time_and_a_date_does_not() -> None:
    assert ask("When did Ada move?").wish.asks_time
    assert not ask("What did Ada buy on 7 May 2023?").wish.asks_time


def test_literal_words_count_fully_as_codes_and_lightly_as_titles() -> None:
    code = ask("What about ORD-44713?").wish
    assert (code.phrases, code.phrase_weight) == (("ORD-44713",), 1.0)
    title = ask("What did she think of the book “Small Gods”?")
    assert (title.type, title.wish.phrases) == ("default", ("Small Gods",))
    assert 0 < title.wish.phrase_weight < 1
    assert ask("What's wrong with Ada's and Jo's boat?").wish.phrases == ()
    assert ask("What happened on 2023-05-07?").wish.phrases == ()


def test_a_paste_shows_no_cue() -> None:
    question = "When did you just say that? "
    assert ask(question).type != "default"
    assert ask(question + "x" * LONGEST_QUESTION).type == "default"


def test_the_state_puts_the_newest_first() -> None:
    assert ask("Where do I work now?").wish.newest_value_first


WORDS = st.sampled_from(
    [*sorted({word for texts in CASES.values() for text in texts for word in text.split()}), "�", "\x00", "İ"]
)


@SETTINGS
@given(
    st.one_of(st.text(st.characters(exclude_categories=[]), max_size=120), st.lists(WORDS, max_size=14).map(" ".join))
)
def test_any_question_has_a_type_the_same_one_each_time(question: str) -> None:
    got = ask(question, speakers=["Ada", ""])
    assert got == ask(question, speakers=["Ada", ""])
    assert got.type in CASES
    assert got.type not in got.also


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["how many x ", "what is my ", '"a ', "a_", "a@", "1-", "'b ", "when ", "all the xs "]
)
def test_a_hostile_question_is_read_in_bounded_time(piece: str) -> None:
    for length in (LONGEST_QUESTION, 100_000):
        ask((piece * (length // len(piece)))[:length].strip())
