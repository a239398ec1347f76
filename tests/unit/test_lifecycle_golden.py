"""Golden sets from files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.embeddings.lifecycle.golden import approve, read_golden, revise
from server.log.formats import FormatError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def locomo(path: Path, *asked: dict[str, Any]) -> Path:
    turns = [{"speaker": "Ida", "dia_id": f"D1:{number}", "text": f"sentence {number}"} for number in range(1, 5)]
    conversation = {
        "speaker_a": "Ida",
        "speaker_b": "Tom",
        "session_1_date_time": "1:56 pm on 8 May, 2023",
        "session_1": turns,
    }
    path.write_bytes(msgspec.json.encode([{"sample_id": "chat-1", "conversation": conversation, "qa": list(asked)}]))
    return path


def question(text: str, *evidence: str, category: int = 4) -> dict[str, Any]:
    return {"question": text, "answer": "whatever", "evidence": list(evidence), "category": category}


def test_a_locomo_file_is_a_golden_set(tmp_path: Path) -> None:
    path = locomo(
        tmp_path / "chats.json",
        question("Where?", "D1:2", "D1:2", "D1:4"),
        question("When?", "D1:1; D1:03", "D:1:4", category=2),
        question("Why?", "D"),
        question("Who?", "D9:9"),
        question(" ", "D1:1"),
    )
    golden = read_golden(path, "ours", "ida")
    assert (golden.name, golden.version, golden.owner, golden.approved) == ("ours", 1, "ida", False)
    first, second = golden.questions
    assert (first.id, first.conversation, first.text, first.category) == ("chat-1:0", "chat-1", "Where?", "single-hop")
    assert first.evidence == ("D1:2", "D1:4")
    assert (second.evidence, second.category) == (("D1:1", "D1:3", "D1:4"), "temporal")
    assert [one.id for one in golden.unusable] == ["chat-1:2", "chat-1:3", "chat-1:4"]
    assert golden.unusable[2].why == "it asks nothing"


def test_lines_are_a_golden_set(tmp_path: Path) -> None:
    path = tmp_path / "ours.jsonl"
    path.write_text(
        '\ufeff{"conversation": "conv_1", "question": "Wo?", "evidence": ["evt_1", "evt_1"], "language": "de"}\n'
        "\n"
        '{"conversation": "c", "question": "Who?", "evidence": ["m-7"], "id": "q7", "category": "fact"}\n'
        '{"conversation": "c", "question": "Why?", "evidence": []}\n'
    )
    golden = read_golden(path, "ours", "ida")
    assert [one.id for one in golden.questions] == ["ours.jsonl:1", "q7"]
    assert (golden.questions[0].evidence, golden.questions[0].language) == (("evt_1",), "de")
    assert [one.id for one in golden.unusable] == ["ours.jsonl:4"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"conversation": "c", "question": "Who?"}', "line 1"),
        ('{"conversation": "c", "question": "Who?", "evidence": ["e"], "wrong": 1}', "line 1"),
        ('{"conversation": "c", "question": "Who?", "evidence": "e"}', "line 1"),
        ("[]", "line 1"),
        ('{"conversation": "c", "question": "a", "evidence": ["e"], "id": "q"}\n' * 2, "question 'q'"),
    ],
)
def test_a_line_that_is_none_is_refused_by_its_place(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "ours.jsonl"
    path.write_text(text)
    with pytest.raises(FormatError) as caught:
        read_golden(path, "ours", "ida")
    assert caught.value.where == where


@pytest.mark.parametrize("fields", [{"category": 9}, {"category": "fact"}, {"question": None}])
def test_a_locomo_question_that_is_none_is_refused_by_its_place(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = locomo(tmp_path / "chats.json", question("Where?", "D1:1"), question("When?", "D1:1") | fields)
    with pytest.raises(FormatError) as caught:
        read_golden(path, "ours", "ida")
    assert caught.value.where == "record 1 (chat-1), qa[1]"


def test_a_change_of_questions_is_a_new_version_that_nobody_has_approved(tmp_path: Path) -> None:
    path = tmp_path / "chats.json"
    first = approve(read_golden(locomo(path, question("Where?", "D1:1")), "ours", "ida"), "tom", NOON)
    assert (first.approved, first.approved_by, first.approved_at) == (True, "tom", NOON)
    again = revise(first, read_golden(path, "ours", "eve"))
    assert (again.version, again.approved, again.owner) == (1, True, "eve")
    changed = revise(first, read_golden(locomo(path, question("Where?", "D1:2")), "ours", "ida"))
    assert (changed.version, changed.approved) == (2, False)
    with pytest.raises(ValueError, match="nothing to approve"):
        approve(read_golden(locomo(path, question("Why?")), "ours", "ida"), "tom", NOON)
