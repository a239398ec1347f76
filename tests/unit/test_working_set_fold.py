"""The fold's rules one by one, and what it reads of events."""

from __future__ import annotations

import random
import socket
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from server.errors import InvalidInput
from server.log.stored import StoredEvent
from server.working_set import checkpoint, tokens
from server.working_set.choice import Choice, check
from server.working_set.eviction import policies
from server.working_set.explain import explain, residents
from server.working_set.features import BUCKETS, Features, features
from server.working_set.fold import Fold
from server.working_set.items import Covers, Item, Touch, measure
from server.working_set.rarity import WordCounts
from server.working_set.units import cut

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Talk:
    """A fold and the next seq."""

    def __init__(self, budget: int = 100, policy: str = "fifo", **parameters: Any) -> None:
        self.fold = Fold(Choice(policy=policy, budget_tokens=budget, parameters=parameters))
        self.items: list[Item] = []

    def add(self, kind: str = "assistant", size: int = 10, **fields: Any) -> str | None:
        names = {"user": "message", "assistant": "message"}
        item = Item(
            seq=self.fold.head + 1,
            type=names.get(kind, kind),  # type: ignore[arg-type]
            role="user" if kind in ("user", "constraint") else "assistant",
            tokens=size,
            **fields,
        )
        self.items.append(item)
        return self.fold.apply(item).refused

    @property
    def seqs(self) -> list[int]:
        return [resident.seq for resident in residents(self.fold)]


def test_a_window_moves_on() -> None:
    talk = Talk(budget=30)
    for _ in range(5):
        talk.add()
    assert talk.seqs == [3, 4, 5]


def test_the_newest_user_message_stays_until_the_next() -> None:
    talk = Talk(budget=30)
    talk.add("user")
    for _ in range(5):
        talk.add()
    assert talk.seqs == [1, 5, 6]
    talk.add("user")
    assert talk.seqs == [5, 6, 7]


def test_an_event_larger_than_the_budget_is_cut_to_half() -> None:
    talk = Talk(budget=100)
    talk.add("user", 20)
    talk.add("assistant", 5000)
    shown = residents(talk.fold)
    assert [(one.seq, one.tokens, one.whole) for one in shown] == [(1, 20, 20), (2, 50, 5000)]
    talk.add("user", 9000)
    assert [(one.seq, one.tokens) for one in residents(talk.fold)] == [(2, 50), (3, 50)]


def test_what_is_cut_is_the_longest_first() -> None:
    assert cut([5, 100, 30], 50) == [5, 23, 22]
    assert cut([1, 2, 3], 50) == [1, 2, 3]
    assert cut([4, 4, 4], 2) == [0, 1, 1]


def test_a_call_and_its_results_leave_and_come_together() -> None:
    talk = Talk(budget=60)
    talk.add("tool_call", 5, call_id="a")
    talk.add("tool_result", 10, call_id="a")
    for _ in range(5):
        talk.add()
    assert talk.seqs == [3, 4, 5, 6, 7]
    talk.add("tool_result", 10, call_id="a")
    assert talk.seqs == [1, 2, 5, 6, 7, 8]


def test_a_result_without_its_call_is_not_resident() -> None:
    talk = Talk()
    assert "tool call of the result 1 is not at hand" in str(talk.add("tool_result", 5, call_id="a"))
    assert talk.seqs == []


def test_a_call_that_waits_for_its_result_says_so() -> None:
    talk = Talk()
    talk.add("tool_call", 5, call_id="a")
    assert [one.complete for one in residents(talk.fold)] == [False]
    talk.add("tool_result", 5, call_id="a")
    assert [one.complete for one in residents(talk.fold)] == [True, True]


def test_pins_never_leave_and_have_a_quota() -> None:
    talk = Talk(budget=100)
    talk.add("assistant", 40)
    talk.add("pin", 0, seq_named=1)
    for _ in range(20):
        talk.add()
    assert talk.seqs[0] == 1
    talk.add("pin", 0, seq_named=talk.seqs[1])
    refused = talk.add("pin", 0, seq_named=talk.seqs[2])
    assert refused is not None
    assert "pins may take 50 tokens" in refused
    assert "raise the budget to 120" in refused
    with pytest.raises(InvalidInput, match="raise the budget to 120"):
        talk.fold.check_pin(talk.seqs[2])
    talk.add("unpin", 0, seq_named=1)
    for _ in range(10):
        talk.add()
    assert 1 not in talk.seqs


def test_a_pinned_result_goes_with_its_erased_call() -> None:
    talk = Talk()
    talk.add("tool_call", 5, call_id="a")
    talk.add("tool_result", 5, call_id="a")
    talk.add("pin", 0, seq_named=2)
    talk.add("erasure", 0, seq_named=1)
    assert talk.seqs == []
    assert talk.fold.kept.pins == set()


def test_a_deleted_event_leaves_and_neither_pin_nor_touch_brings_it_back() -> None:
    talk = Talk()
    talk.add("user", 5)
    talk.add("tool_call", 5, call_id="a")
    talk.add("tool_result", 5, call_id="a")
    talk.add("summary", 5, covers=Covers(1, 1))
    talk.add("deletion", 0, seq_named=1)
    assert talk.seqs == [2, 3]
    assert any("it was deleted" in one.why for one in explain(talk.fold))
    talk.add("deletion", 0, seq_named=2)
    assert talk.seqs == []
    talk.fold = checkpoint.load(checkpoint.dump(talk.fold))
    assert talk.add("pin", 0, seq_named=1, named=(talk.items[0],)) is not None
    for seq, named in ((1, talk.items[:1]), (2, talk.items[1:3]), (3, talk.items[1:3])):
        assert talk.fold.touch(Touch(seq=seq, at=talk.fold.head, named=tuple(named))).refused is not None
    assert talk.seqs == []


def test_a_pin_brings_back_what_has_left() -> None:
    talk = Talk(budget=30)
    for _ in range(5):
        talk.add()
    assert talk.add("pin", 0, seq_named=1) is not None
    assert talk.add("pin", 0, seq_named=1, named=(talk.items[0],)) is None
    assert talk.seqs == [1, 4, 5]


def test_a_budget_smaller_than_its_pins_says_how_much_is_needed() -> None:
    talk = Talk(budget=100)
    talk.add("assistant", 40)
    talk.add("pin", 0, seq_named=1)
    with pytest.raises(InvalidInput, match="needs at least 80") as small:
        talk.fold.check_choice(Choice(policy="fifo", budget_tokens=60))
    assert small.value.details == {"needed": 80}
    assert "needs at least 80" in str(talk.add("working_set", 0, choice=Choice(policy="fifo", budget_tokens=60)))
    assert talk.fold.choice.budget_tokens == 100
    for budget in (0, -5):
        with pytest.raises(InvalidInput, match=f"not {budget}"):
            check(Choice(budget_tokens=budget))


def test_a_change_of_policy_and_budget_takes_effect_at_once() -> None:
    talk = Talk(budget=100)
    for _ in range(10):
        talk.add()
    assert len(talk.seqs) == 10
    talk.add("working_set", 0, choice=Choice(policy="lru", budget_tokens=30))
    assert talk.seqs == [8, 9, 10]
    assert talk.fold.choice.policy == "lru"


def test_a_summary_stands_in_for_what_it_covers_but_pins_and_constraints() -> None:
    talk = Talk(budget=200)
    talk.add("assistant", 10)
    talk.add("constraint", 10)
    talk.add("assistant", 10)
    talk.add("pin", 0, seq_named=3)
    talk.add("assistant", 10)
    talk.add("user", 10)
    talk.add("summary", 10, covers=Covers(1, 6))
    assert talk.seqs == [2, 3, 6, 7]
    talk.add("user", 10)
    assert talk.seqs == [2, 3, 7, 8]  # no longer the newest user message, and covered
    talk.fold.touch(Touch(seq=1, at=8, named=(talk.items[0],)))
    assert talk.seqs == [1, 2, 3, 7, 8]
    talk.add("erasure", 0, seq_named=5)
    assert talk.seqs == [1, 2, 3, 8]
    assert any("event 5, which was erased" in one.why for one in explain(talk.fold))


def test_constraints_leave_last_up_to_a_quarter_of_the_budget() -> None:
    talk = Talk(budget=100)
    talk.add("constraint", 10)
    talk.add("constraint", 10)
    for _ in range(20):
        talk.add()
    assert talk.seqs[:2] == [1, 2]
    talk.add("constraint", 10)
    for _ in range(20):
        talk.add()
    assert 1 not in talk.seqs
    assert 2 in talk.seqs


def test_what_is_touched_comes_back_and_stays_longer() -> None:
    talk = Talk(budget=50, policy="lru")
    for _ in range(10):
        talk.add()
    assert "cannot be resident" in str(talk.fold.touch(Touch(seq=2, at=10)).refused)
    talk.fold.touch(Touch(seq=2, at=10, named=(talk.items[1],)))
    assert talk.seqs == [2, 7, 8, 9, 10]
    assert "faulted in" in [one.why for one in residents(talk.fold)]
    with pytest.raises(ValueError, match="a touch at 9 does not follow"):
        talk.fold.touch(Touch(seq=2, at=9))


def test_tool_first_leaves_placeholders_and_a_touch_restores_them() -> None:
    talk = Talk(budget=200, policy="tool_first", keep=0)
    talk.add("tool_call", 5, call_id="a")
    talk.add("tool_result", 90, call_id="a")
    talk.add("assistant", 90)
    changes = talk.fold.apply(Item(seq=4, type="message", role="assistant", tokens=50))
    assert [(one.seqs, one.placeholder) for one in changes.left] == [((2,), True)]
    assert [(one.seq, one.tokens, one.placeholder) for one in residents(talk.fold)][:2] == [
        (1, 5, False),
        (2, 16, True),
    ]
    talk.fold.touch(Touch(seq=2, at=4))
    assert [(one.seq, one.tokens) for one in residents(talk.fold)] == [(1, 5), (2, 90), (4, 50)]


def test_events_come_in_order() -> None:
    with pytest.raises(ValueError, match="the next event is 1, not 2"):
        Fold().apply(Item(seq=2, type="message"))


def test_a_checkpoint_of_another_version_is_outdated() -> None:
    fold = Fold()
    data = checkpoint.dump(fold)
    assert checkpoint.dump(checkpoint.load(data)) == data
    with pytest.raises(checkpoint.OutdatedCheckpoint):
        checkpoint.load(data.replace(b"text/1", b"text/0"))
    with pytest.raises(checkpoint.OutdatedCheckpoint):
        checkpoint.load(b"nonsense")


def agent_log(seed: int, length: int) -> list[Item]:
    """Return an agent's log: calls whose results come late or twice, short and long turns, now and then a pin."""
    generator = random.Random(seed)
    items: list[Item] = []
    waiting: list[str] = []
    for seq in range(1, length + 1):
        size, chance = generator.choice((1, 5, 20, 60)), generator.random()
        words = tuple(sorted(generator.sample(range(200), 6)))
        fields: dict[str, Any] = {"seq": seq, "tokens": size, "features": Features(length=6, words=words)}
        if chance < 0.25:
            waiting.append(f"call {seq}")
            items.append(Item(type="tool_call", role="assistant", call_id=waiting[-1], **fields))
        elif chance < 0.55 and waiting:
            call = generator.choice(waiting[-40:])
            items.append(Item(type="tool_result", role="tool", call_id=call, **fields))
        elif chance < 0.60 and items:
            items.append(Item(seq=seq, type="unpin" if chance < 0.58 else "pin", seq_named=max(1, seq - 3)))
        else:
            items.append(Item(type="message", role=generator.choice(("user", "assistant")), **fields))
    return items


@pytest.mark.parametrize("policy", sorted(policies()))
def test_a_fold_interrupted_at_every_event_goes_on_as_it_would_have(policy: str) -> None:
    choice = Choice(policy=policy, budget_tokens=400)
    steady, resumed = Fold(choice), Fold(choice)
    for item in agent_log(5, 500):
        resumed = checkpoint.load(checkpoint.dump(resumed))
        assert resumed.apply(item) == steady.apply(item)
        assert residents(resumed) == residents(steady)
    assert explain(resumed) == explain(steady)
    assert checkpoint.dump(resumed) == checkpoint.dump(steady)


def test_explanations_name_policy_and_versions() -> None:
    talk = Talk(budget=30)
    for _ in range(4):
        talk.add()
    gone, first, *_ = explain(talk.fold)
    assert (gone.seqs, gone.resident) == ((1,), False)
    assert (first.seqs, first.resident) == ((2,), True)
    assert first.why.startswith("next to leave")
    assert (gone.policy, gone.policy_version, gone.scorer) == ("fifo", 1, "text/1")


def event(seq: int, content: object = "hi", **fields: Any) -> StoredEvent:
    kept = {"type": "message", "role": "user", **fields}
    return StoredEvent(
        id=f"e{seq}", seq=seq, content=Raw(msgspec.json.encode(content)), occurred_at=NOW, recorded_at=NOW, **kept
    )


def test_stored_events_are_measured() -> None:
    items = measure(
        [
            event(1, "Please always answer in French."),
            event(2, [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "x" * 9000}}]),
            event(3, {"seq": 1}, type="pin", role=None),
            event(4, {"text": "so far", "covers": {"first_seq": 1, "last_seq": 2}}, type="summary"),
            event(5, {"policy": "lru", "budget_tokens": 50}, type="working_set", role=None),
            event(6, {"policy": "lru", "budget": "much"}, type="working_set", role=None),
            event(7, "gone", erased_at=NOW),
        ]
    )
    assert items[0].features.constraint
    assert items[0].at == NOW.timestamp()
    assert 1000 < items[1].tokens < 1020  # media counts flat, however long its URL
    assert items[2].seq_named == 1
    assert items[3].covers == Covers(1, 2)
    assert items[4].choice == Choice(policy="lru", budget_tokens=50)
    assert items[5].choice is None
    assert (items[6].erased, items[6].tokens) == (True, 0)


def test_only_who_may_instruct_sets_constraints() -> None:
    assert features("From now on, be brief.", "user").constraint
    assert not features("From now on, be brief.", "tool").constraint
    assert not features("From now on, be brief.", "assistant").constraint


def test_features_are_frozen() -> None:
    read = features("Actually, the meeting moved to 15:30 instead. OK?", "user")
    assert (read.question, read.correction, read.number_change, read.short_reply) == (True, True, True, False)
    # These very buckets are in checkpoints: another result needs another SCORER.
    assert read.length == 9
    assert read.words == (313, 986, 1613, 1891, 3558, 3573, 4462, 4804, 7495)
    assert max(read.words) < BUCKETS


def test_rare_words_are_those_not_said_before() -> None:
    counts = WordCounts()
    common, rare = Features(length=1, words=(5,)), Features(length=1, words=(6,))
    for _ in range(50):
        counts.add(common)
    assert counts.rarity(rare) > counts.rarity(common) == 0.0
    copy = WordCounts(counts.events, counts.dump())
    assert copy.rarity(rare) == counts.rarity(rare)


def test_tokens_are_counted_offline_and_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the tokenizer reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    texts = ["", "hello", "I moved to Lisbon in the spring.", "x" * 10_000]
    assert tokens.count(texts) == [tokens.count([text])[0] for text in texts]
    assert tokens.count(["", "hello"]) == [0, 1]
    assert "wordllama" in tokens.TOKENIZER
