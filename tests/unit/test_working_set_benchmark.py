"""The eviction benchmark on small invented conversations, where the right figures are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from benchmarks import eviction
from benchmarks.eviction_bounds import Belady, Clairvoyant, bm25_fault_path, offline
from benchmarks.eviction_data import Conversation, load
from benchmarks.eviction_figures import compare, figure
from benchmarks.eviction_replay import END, Outcome, Timing, asks, budgets, replay
from benchmarks.eviction_tuning import leave_one_out

TURNS = 120


def sample(name: str = "talk-1") -> dict[str, Any]:
    """Return a conversation in LoCoMo's shape: every turn has the same length, and one fact each."""
    turns = [
        {
            "speaker": "Ada" if number % 2 else "Ben",
            "dia_id": f"D1:{number}",
            "text": f"the thing about item{number:03d} is that",
        }
        for number in range(1, TURNS + 1)
    ]
    asked = {"question": "What about item003?", "answer": "", "evidence": ["D1:3"], "category": 4}
    late = {"question": "And item118?", "answer": "", "evidence": [f"D1:{TURNS - 2}"], "category": 1}
    broken = {"question": "And these?", "answer": "", "evidence": ["D1:5; D:1:6"], "category": 2}
    lost = {"question": "And that?", "answer": "", "evidence": ["D9:99"], "category": 2}
    conversation = {"speaker_a": "Ada", "speaker_b": "Ben", "session_1": turns}
    conversation["session_1_date_time"] = "1:56 pm on 8 May, 2023"
    return {"sample_id": name, "conversation": conversation, "qa": [asked, late, broken, lost]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "talks.json"
    path.write_bytes(msgspec.json.encode([sample("talk-1"), sample("talk-2")]))
    return path


@pytest.fixture
def conversation(data: Path) -> Conversation:
    return load(data)[0]


def recall(outcomes: list[Outcome], share: float, lag: int, category: str) -> float:
    rows = [one for one in outcomes if (one.share, one.lag, one.category) == (share, lag, category)]
    return sum(one.found / one.wanted for one in rows) / len(rows)


def test_malformed_citations_are_repaired_or_counted(conversation: Conversation) -> None:
    assert [question.evidence for question in conversation.questions] == [(3,), (118,), (5, 6)]
    assert conversation.unusable == 1


def test_corrections_replace_citations(data: Path, tmp_path: Path) -> None:
    corrections = tmp_path / "corrections.json"
    right = {"sample_id": "talk-2", "question": "And item118?", "correct_evidence": ["D1:118", "D1:119"]}
    corrections.write_bytes(msgspec.json.encode([right]))
    first, second = load(data, corrections=corrections)
    assert first.questions[1].evidence == (118,)
    assert second.questions[1].evidence == (118, 119)


def test_questions_are_asked_after_their_last_evidence_and_at_the_end(conversation: Conversation) -> None:
    found = {(ask.question.text, ask.lag): ask.head for ask in asks(conversation)}
    assert found["What about item003?", 8] == 11
    assert found["And these?", 100] == 106
    assert found["And item118?", END] == TURNS
    assert ("And item118?", 8) not in found


def test_no_ask_gets_more_than_its_share(conversation: Conversation) -> None:
    seen = [sum(item.tokens for item in conversation.items[:head]) for head in range(TURNS + 1)]
    for budget, heads in budgets(conversation, asks(conversation)).items():
        for head, found in heads.items():
            for _, share in found:
                assert budget <= max(1.0, share * seen[head])
                assert budget >= share * seen[head] / 1.05 - 1


def test_fifo_has_what_is_recent(conversation: Conversation) -> None:
    outcomes = replay(conversation, eviction.policy_rule("fifo"), Timing())
    assert recall(outcomes, 0.10, END, "multi-hop") == 1.0
    assert recall(outcomes, 0.10, END, "single-hop") == 0.0
    assert recall(outcomes, 0.50, 8, "temporal") == 0.0  # half of the first 14 turns, asked about 5 and 6
    assert all(one.tokens <= 0.5 * sum(item.tokens for item in conversation.items) for one in outcomes)


def test_bounds_are_bounds(conversation: Conversation) -> None:
    fifo = figure(replay(conversation, eviction.policy_rule("fifo"), Timing(), lags=(END,)))
    for bound in (Clairvoyant, Belady):
        assert figure(replay(conversation, bound, Timing(), lags=(END,))).fractional >= fifo.fractional
    assert recall(replay(conversation, Clairvoyant, Timing()), 0.05, END, "single-hop") == 1.0


def test_the_servers_search_is_a_fault_path(conversation: Conversation) -> None:
    search = eviction.FAULT_PATHS["static"]
    question, late = conversation.questions[0], conversation.questions[1]
    size = conversation.items[2].tokens
    assert 3 in search(conversation, question, TURNS, {}, 3 * size)
    found = search(conversation, question, TURNS, {3: size}, 5 * size)
    assert 3 not in found, "what is resident is not brought in again"
    assert sum(found.values()) <= 5 * size
    assert search(conversation, question, TURNS, {}, 0) == {}
    assert all(seq <= 60 for seq in search(conversation, late, 60, {}, 500)), "what was not said yet is not found"


def test_the_fault_path_gets_the_rest_of_the_same_budget(conversation: Conversation) -> None:
    rule = eviction.policy_rule("fifo")
    outcomes = replay(conversation, rule, Timing(), fault_path=bm25_fault_path, resident_share=0.5)
    alone = replay(conversation, rule, Timing())
    assert recall(outcomes, 0.10, END, "single-hop") == 1.0
    assert recall(alone, 0.10, END, "single-hop") == 0.0
    limit = {share: share * sum(item.tokens for item in conversation.items) for share in (0.02, 0.05, 0.1, 0.25, 0.5)}
    assert all(one.tokens <= limit[one.share] for one in outcomes if one.lag == END)


def test_sets_chosen_at_the_end_keep_to_the_budget(conversation: Conversation) -> None:
    total = sum(item.tokens for item in conversation.items)
    for chosen in offline(conversation, 0.25).values():
        assert 0 < sum(chosen.values()) <= 0.25 * total
    assert max(offline(conversation, 0.25)["FIFO window"]) == TURNS


def outcome(name: str, found: int, wanted: int = 2) -> Outcome:
    return Outcome(name, "all", 0.1, END, found, wanted, 10)


def test_recall_is_counted_three_ways() -> None:
    one = figure([outcome("a", 0), outcome("a", 1), outcome("b", 2), outcome("b", 2)])
    assert (one.fractional, one.any, one.all, one.questions) == (0.625, 0.75, 0.5, 4)
    # Resampled by conversation: a's mean is .25 and b's is 1.
    assert (one.low, one.high) == (0.25, 1.0)


def test_a_ratio_to_nothing_has_no_upper_bound() -> None:
    ours = [outcome("a", 2), outcome("b", 2)]
    against = compare(ours, [outcome("a", 0), outcome("b", 1)])
    assert against.ratio == 4.0
    assert against.ratio_high == float("inf")
    assert (against.difference, against.low, against.high) == (0.75, 0.5, 1.0)


def test_a_choice_is_judged_on_what_it_was_not_made_on() -> None:
    by_choice = {"good on a": {"a": 1.0, "b": 0.0, "c": 0.3}, "good on b, c": {"a": 0.2, "b": 0.9, "c": 0.9}}
    assert leave_one_out(by_choice) == [
        ("a", "good on b, c", 0.2),
        ("b", "good on a", 0.0),
        ("c", "good on b, c", 0.9),
    ]


def test_the_command_reports_tables_and_json(data: Path, tmp_path: Path) -> None:
    arguments = [str(data), "--policy", "importance", "--touches", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(eviction.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "2 conversations, 6 questions (2 left out" in result.output
    report = msgspec.json.decode((tmp_path / "out" / "eviction-touches.json").read_bytes())
    rules = report["labels as given"]["rules"]
    assert set(rules) == {"fifo", "importance", "random", "clairvoyant", "belady"}
    assert {row["lag"] for row in rules["fifo"]["figures"]} == {"+8", "+15", "+30", "+100", "end"}


def test_any_json_lines_with_labels_will_do(tmp_path: Path) -> None:
    lines = [{"conversation": "mine", "role": "user", "content": f"fact {n}", "id": f"e{n}"} for n in range(1, 30)]
    path, labels = tmp_path / "mine.jsonl", tmp_path / "labels.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    labels.write_bytes(msgspec.json.encode({"conversation": "mine", "question": "what?", "evidence": ["e3", 29]}))
    (mine,) = load(path, labels)
    assert mine.questions[0].evidence == (3, 29)
    with pytest.raises(SystemExit, match="--labels"):
        load(path)
    labels.write_bytes(msgspec.json.encode({"conversation": "yours", "question": "what?", "evidence": [1]}))
    with pytest.raises(SystemExit, match="does not have: yours"):
        load(path, labels)
