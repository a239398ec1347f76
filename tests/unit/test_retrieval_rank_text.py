"""What is indexed of an event, the languages of its words, and the dates of a question."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import pytest
from msgspec import UNSET, Raw, UnsetType

from schema.vocabulary import EventType, Role
from server.retrieval import analysis
from server.retrieval.dates import Date, dates_in
from server.retrieval.text import build


class Event(NamedTuple):
    content: Raw | UnsetType
    type: EventType = "message"
    role: Role | None = "user"
    name: str | None = None


def event(content: Any, kind: EventType = "message", name: str | None = None) -> Event:
    return Event(Raw(msgspec.json.encode(content)), kind, "user", name)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("I moved to Lisbon.", "I moved to Lisbon."),
        ([{"type": "text", "text": "Look"}, {"type": "image", "caption": "a red boat"}], "Look\na red boat"),
        ([{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}], "one\ntwo"),
        ([{"type": "tool_result", "content": [{"type": "text", "text": "12 degrees"}]}], "12 degrees"),
        ({"city": "Lisbon"}, '{"city":"Lisbon"}'),
        ("see " + "QUJD" * 300, "see QUJDQUJDQUJDQUJD…"),
    ],
)
def test_text_is_what_a_reader_would_see(content: Any, text: str) -> None:
    found = build(event(content))
    assert found is not None
    assert found.text == text


@pytest.mark.parametrize("content", ["", "  ", [], [{"type": "image_url", "image_url": {"url": "data:"}}], None])
def test_nothing_to_read_is_no_text(content: Any) -> None:
    assert build(event(content)) is None


def test_control_events_and_tombstones_have_no_text() -> None:
    assert build(event({"seq": 3}, "pin")) is None
    assert build(event({"scope": "event"}, "erasure")) is None
    assert build(Event(UNSET)) is None


def test_a_speaker_is_of_a_message_and_a_tool_is_no_speaker() -> None:
    said = build(event("Shall we go?", name="Ada"))
    called = build(event({"q": "weather?"}, "tool_call", name="search"))
    assert said is not None
    assert (said.text, said.speaker, said.asks) == ("Ada: Shall we go?", "Ada", True)
    assert called is not None
    assert called.text.startswith("search: ")
    assert (called.speaker, called.asks) == (None, False)


def test_a_question_is_one_also_above_a_picture() -> None:
    found = build(event([{"type": "text", "text": "Nice, no？"}, {"type": "image", "caption": "a boat"}]))
    assert found is not None
    assert found.asks


def test_long_output_keeps_its_head_and_tail() -> None:
    found = build(event("start " + "line\n" * 5000 + " exit code 3", "tool_result"))
    assert found is not None
    assert len(found.text) < 5000
    assert found.text.startswith("start")
    assert found.text.endswith("exit code 3")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What did she say to the others?", "english"),
        ("Ich habe gestern einen Termin gehabt", "german"),
        ("Où est-ce que tu habites ?", "french"),
        ("¿Dónde está el libro que compré?", "spanish"),
        ("Я вчера была в театре", "russian"),
        ("ذهبت إلى السوق", "arabic"),
        ("Wow, ok", "english"),
        ("", "english"),
    ],
)
def test_language_is_told_by_script_and_function_words(text: str, language: str) -> None:
    assert analysis.language_of(text) == language


def test_function_words_count_when_there_is_nothing_else() -> None:
    assert [term.word for term in analysis.query_terms("Who are you?")] == ["who", "are", "you"]
    assert [term.word for term in analysis.query_terms("Who found the lantern?")] == ["found", "lantern"]


def test_a_word_is_looked_for_in_every_language_of_the_scope() -> None:
    (term,) = analysis.query_terms("Häuser", ["german", "english"])
    assert set(analysis.terms("die Häuser", "german")[1:]) <= set(term.terms)
    assert set(analysis.terms("Häuser", "english")) <= set(term.terms)


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("What happened on 7 May 2023?", [Date(2023, 5, 7)]),
        ("on May 7th, 2023", [Date(2023, 5, 7)]),
        ("When did she camp in July?", [Date(None, 7, None)]),
        ("am 3. Mai 2022", [Date(2022, 5, 3)]),
        ("le 5 août", [Date(None, 8, 5)]),
        ("since 2023-05-07", [Date(2023, 5, 7)]),
        ("in 2021", [Date(2021, None, None)]),
        ("May I march to the top?", []),
        ("2023-13-41", []),
        ("", []),
    ],
)
def test_dates_of_a_question(question: str, found: list[Date]) -> None:
    assert dates_in(question) == found
