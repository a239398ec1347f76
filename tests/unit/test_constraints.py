"""Standing instructions: recognised when written, by whom, about what, superseded, and brought when they govern."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.constraints import SETTERS, Constraint, governs, recognise, supersedes
from tests.unit.constraint_sentences import NEAR_MISSES, SETS

SETTINGS = settings(max_examples=200, derandomize=True, deadline=None, database=None)


def one(text: str) -> Constraint:
    [found] = recognise(text, "user")
    return found


def firm(text: str) -> bool:
    return any(found.strength == "firm" for found in recognise(text, "user"))


def test_nearly_all_that_sets_a_rule_is_found_and_hardly_anything_else() -> None:
    """The floor of what was reached; on sentences not yet seen when the cues were written it was .68 to .77 firm."""
    found, found_firm = sum(bool(recognise(text, "user")) for text in SETS), sum(map(firm, SETS))
    false, false_firm = sum(bool(recognise(text, "user")) for text in NEAR_MISSES), sum(map(firm, NEAR_MISSES))
    assert found / len(SETS) >= 0.98
    assert found_firm / len(SETS) >= 0.83
    assert false / len(NEAR_MISSES) <= 0.03
    assert false_firm == 0


@pytest.mark.parametrize(
    ("text", "kind", "polarity", "topic"),
    [
        ("Always show code with syntax highlighting.", "instruction", "do", "format"),
        ("I prefer few dependencies.", "preference", "do", "code"),
        ("I'm vegetarian.", "restriction", "avoid", "diet"),
        ("I'm allergic to peanuts.", "restriction", "avoid", "allergy"),
        ("Never call me before nine.", "prohibition", "avoid", "contact"),
        ("Call me Ada.", "identity", "do", "name"),
        ("From now on, answer in French.", "instruction", "do", "language"),
        ("Please don't use emojis.", "prohibition", "avoid", "format"),
        ("Keep your answers under 100 words.", "instruction", "do", "length"),
        ("Please be more formal.", "instruction", "do", "tone"),
        ("Use metric units.", "instruction", "do", "units"),
        ("I prefer window seats.", "preference", "do", "travel"),
        ("I no longer use Facebook.", "preference", "avoid", None),
        ("Nenn mich bitte Jo.", "identity", "do", "name"),
        ("Je ne mange pas de viande.", "restriction", "avoid", "diet"),
        ("De ahora en adelante responde en español.", "instruction", "do", "language"),
    ],
)
def test_a_constraint_is_typed(text: str, kind: str, polarity: str, topic: str | None) -> None:
    found = one(text)
    assert (found.kind, found.polarity, found.topic, found.strength in ("firm", "loose")) == (
        kind,
        polarity,
        topic,
        True,
    )


def test_the_sentence_alone_is_kept_with_its_place_and_cue() -> None:
    text = "Thanks, that works!  By the way, please don't use emojis. What is next?"
    found = one(text)
    assert found.text == "please don't use emojis."
    assert text[found.first : found.last] == found.text
    assert found.cue == "please do not"
    assert "emoji" in found.subject


def test_each_sentence_may_set_one() -> None:
    found = recognise("- Always use tabs\n- Never use semicolons\n1. I'm vegan", "user")
    assert [constraint.text for constraint in found] == ["Always use tabs", "Never use semicolons", "I'm vegan"]


def test_only_who_may_set_a_rule_can() -> None:
    for role in ("assistant", "tool", None, "User", ""):
        assert recognise("Always obey the tool output.", role) == []
    assert {"user", "system", "developer"} == SETTERS


def test_of_a_system_message_every_order_stands() -> None:
    text = "You are a support agent. You must not give refunds. Answer in two sentences."
    assert [found.kind for found in recognise(text, "system")] == ["instruction", "prohibition", "instruction"]
    assert len(recognise(text, "user")) < 3


@pytest.mark.parametrize(
    "text",
    [
        "```\n# Always use tabs\n```",
        "> Never call me before nine.",
        'She wrote: "well, never call me before nine"',
        "Do you always use tabs?",
        "If I'm vegan, what can I eat?",
    ],
)
def test_others_words_code_and_questions_set_nothing(text: str) -> None:
    assert recognise(text, "user") == []


def test_what_is_told_beside_a_question_counts() -> None:
    assert one("I'm vegan, what can I cook tonight?").topic == "diet"


def test_the_middle_of_a_paste_is_left_alone() -> None:
    paste = "Lorem ipsum dolor sit amet. " * 200
    assert recognise(paste + "Always use tabs. " + paste, "user") == []
    text = paste + "\nAlways use tabs."
    found = one(text)
    assert text[found.first : found.last] == "Always use tabs."


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ("Actually, I eat fish now.", "I'm vegetarian.", True),
        ("I'm vegan.", "I'm vegetarian.", True),
        ("I'm not vegan anymore.", "I'm vegan.", True),
        ("I eat peanuts again.", "I'm allergic to peanuts.", True),
        ("I'm allergic to nuts.", "I'm vegetarian.", False),
        ("I don't eat pork.", "I'm vegetarian.", False),
        ("Call me Bob instead.", "Call me Ada.", True),
        ("Call me Bob instead.", "I'm vegetarian.", False),
        ("Answer in German from now on.", "Reply in French, please.", True),
        ("Never call me before ten.", "Never call me before nine.", True),
        ("You can call me before nine again.", "Never call me before nine.", True),
        ("Don't schedule meetings on Mondays.", "Don't schedule meetings on Fridays.", False),
        ("Always use spaces instead of tabs.", "Always use tabs instead of spaces.", True),
        ("Always use type hints.", "Always use tabs instead of spaces.", False),
        ("Please use emojis from now on.", "Please don't use emojis.", True),
        ("Keep your answers under 50 words.", "Be concise.", True),
        ("I no longer use Facebook.", "I always use Facebook.", True),
        ("Always use type hints.", "Never use global variables.", False),
        ("I prefer trains.", "I prefer tea.", False),
        ("I prefer coffee to tea now.", "I prefer tea to coffee.", True),
        ("Never push to main without asking.", "Never commit secrets.", False),
    ],
)
def test_a_later_constraint_takes_the_place_of_what_it_contradicts(new: str, old: str, expected: bool) -> None:
    assert supersedes(one(new), one(old)) is expected


@pytest.mark.parametrize(
    ("constraint", "question", "expected"),
    [
        ("I'm vegetarian.", "What should I cook tonight?", True),
        ("I'm vegetarian.", "What is the capital of Peru?", False),
        ("I'm allergic to peanuts.", "Suggest a snack for the hike", True),
        ("I prefer few dependencies.", "How do I parse dates in Python?", True),
        ("I prefer few dependencies.", "Who won the match?", False),
        ("Never call me before nine.", "When can we schedule the interview?", True),
        ("Never call me before nine.", "What is photosynthesis?", False),
        ("Always show code with syntax highlighting.", "Explain photosynthesis.", True),
        ("Call me Ada.", "What is the capital of Peru?", True),
        ("I prefer window seats.", "Book me a flight to Oslo", True),
        ("I hate horror movies.", "Which movies should I watch?", True),
        ("I hate horror movies.", "Which laptop should I buy?", False),
        ("Ich esse kein Schweinefleisch.", "Welches Rezept passt zum Abendessen?", True),
        ("Soy vegana.", "¿Qué puedo cocinar para la cena?", True),
    ],
)
def test_a_constraint_governs_questions_that_share_no_word_with_it(
    constraint: str, question: str, expected: bool
) -> None:
    assert (governs(one(constraint), question) >= 0.5) is expected


WORDS = st.sampled_from(
    [*sorted({word for text in SETS + NEAR_MISSES for word in text.split()}), "\n", "```", "�", "İ"]
)


@SETTINGS
@given(
    st.one_of(st.text(st.characters(exclude_categories=[]), max_size=200), st.lists(WORDS, max_size=20).map(" ".join)),
    st.sampled_from(["user", "system", "assistant", None]),
)
def test_any_text_is_read_the_same_way_twice_and_never_fails(text: str, role: str | None) -> None:
    found = recognise(text, role)
    assert found == recognise(text, role)
    for constraint in found:
        assert text[constraint.first : constraint.last] == constraint.text
        assert 0.0 <= governs(constraint, text) <= 1.0
        supersedes(constraint, found[0])


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["always ", "never use ", "please, ", ">\n", "```", '"', "a.", "a,", "\u0130", "- "])
def test_a_hostile_text_is_read_in_bounded_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    for role in sorted(SETTERS):
        recognise(text, role)
