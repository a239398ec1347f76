"""How the events of a context are shown: whole, cut, or as a placeholder; and in which order."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from server.context.assemble import Context, Guest, assemble, draft
from server.context.render import Cut, Message, Shown, lost, plan, write
from server.errors import InvalidInput
from server.log.stored import StoredEvent
from server.working_set import tokens
from server.working_set.choice import Choice
from server.working_set.explain import Resident
from server.working_set.fold import Fold
from server.working_set.items import FRAME_TOKENS, measure

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LONG = "The harbour of Lisbon, naïve 😀 as ever, was loud; and the gulls were louder. " * 40


def event(seq: int = 1, content: object = "hello", **fields: Any) -> StoredEvent:
    given: dict[str, Any] = {"type": "message", "role": "user", "occurred_at": NOW, "recorded_at": NOW} | fields
    return StoredEvent(id=f"e{seq}", seq=seq, content=Raw(msgspec.json.encode(content)), **given)


def resident(charge: int, whole: int, seq: int = 1, **fields: Any) -> Resident:
    return Resident(seq=seq, tokens=charge, whole=whole, why="kept by fifo", unit=seq, **fields)


def taken(message: Message) -> int:
    """What a message takes, counted as the fold counts events."""
    shown = StoredEvent(
        id="x",
        seq=1,
        type="message",
        name=message.name,
        content=message.content,
        occurred_at=NOW,
        recorded_at=NOW,
    )
    return measure([shown])[0].tokens


def text(message: Message) -> str:
    assert isinstance(message.content, Raw)
    return str(msgspec.json.decode(message.content))


def test_an_event_that_fits_is_verbatim() -> None:
    one = event(content=[{"type": "text", "text": "hi", "z": 1}], name="Ada", call_id=None)
    message = write(one, plan(one, resident(9, 9)) or pytest.fail("not shown"))
    assert message.content == one.content
    assert (message.tokens, message.cut, message.placeholder, message.name) == (9, None, False, "Ada")


@pytest.mark.parametrize("name", [None, "Ada Lovelace"])
@pytest.mark.parametrize("content", [LONG, [{"type": "text", "text": LONG}, {"type": "image_url", "x": 1}], "😀" * 300])
def test_no_charge_is_exceeded_however_small(content: object, name: str | None) -> None:
    one = event(content=content, name=name)
    whole = measure([one])[0].tokens
    shown = 0
    for charge in range(whole):
        if charge > 80 and charge % 37:
            continue
        decision = plan(one, resident(charge, whole))
        if decision is None:
            assert charge < FRAME_TOKENS + 16, charge
            continue
        message = write(one, decision)
        assert message.tokens == taken(message) <= charge
        assert message.cut is not None
        if isinstance(content, str):
            assert text(message).startswith(content[: message.cut.characters])
        shown += 1
    assert shown > 60


def test_a_cut_says_how_much_is_shown() -> None:
    one = event(content=LONG)
    whole = measure([one])[0].tokens
    message = write(one, plan(one, resident(100, whole)) or pytest.fail("not shown"))
    assert message.cut is not None
    assert text(message).endswith(f" [… {message.cut.characters} of {len(LONG)} characters shown]")
    assert message.tokens > 90, "a cut uses what it has"
    tiny = write(one, plan(one, resident(20, whole)) or pytest.fail("not shown"))
    assert text(tiny).endswith("…")
    least = write(one, plan(one, resident(FRAME_TOKENS + 1, whole)) or pytest.fail("not shown"))
    assert (text(least), least.cut) == ("The", Cut(characters=3, of=len(LONG)))
    assert plan(one, resident(FRAME_TOKENS, whole)) is None


def test_attachments_that_find_no_room_are_counted() -> None:
    one = event(content=[{"type": "text", "text": "Look at these."}, {"type": "input_image"}, {"type": "input_file"}])
    message = write(one, plan(one, resident(60, 2008)) or pytest.fail("not shown"))
    assert text(message) == "Look at these. [… 2 attachments left out]"
    picture = event(content=[{"type": "input_image"}])
    message = write(picture, plan(picture, resident(60, 1004)) or pytest.fail("not shown"))
    assert text(message) == " [… 1 attachments left out]"


def test_a_cleared_result_is_a_placeholder_within_its_tokens() -> None:
    one = event(type="tool_result", role=None, call_id="c", content={"rows": list(range(500))})
    whole = measure([one])[0].tokens
    length = len(msgspec.json.encode({"rows": list(range(500))}).decode())
    expected = {12: f"[{length} characters cleared]", 11: "[cleared]", 8: "[cleared]", 7: "…", 5: "…"}
    for charge, placeholder in expected.items():
        message = write(one, plan(one, resident(charge, whole, placeholder=True)) or pytest.fail("not shown"))
        assert text(message) == placeholder, charge
        assert message.tokens == taken(message) <= charge
        assert (message.placeholder, message.role, message.call_id) == (True, "tool", "c")
    assert plan(one, resident(4, whole, placeholder=True)) is None
    short = event(type="tool_result", call_id="c", content="ok")
    message = write(short, plan(short, resident(5, 5, placeholder=True)) or pytest.fail("not shown"))
    assert (text(message), message.placeholder) == ("ok", False), "what is short enough is shown as it is"


def test_roles_that_were_not_given_claim_no_authority() -> None:
    roles = {
        kind: write(event(type=kind, role=None), Shown(seq=1, tokens=5, reason="")).role
        for kind in ("tool_call", "tool_result", "reasoning", "summary", "constraint", "item")
    }
    assert roles == {
        "tool_call": "assistant",
        "tool_result": "tool",
        "reasoning": "assistant",
        "summary": "user",
        "constraint": "user",
        "item": "user",
    }
    assert write(event(type="summary", role="system"), Shown(seq=1, tokens=5, reason="")).role == "system"


def test_what_was_erased_since_has_only_its_place() -> None:
    whole = Shown(seq=1, tokens=5, reason="pinned")
    gone = StoredEvent(id="evt_1", seq=1, type="message", role="user", occurred_at=NOW, recorded_at=NOW, erased_at=NOW)
    for shown in (whole, msgspec.structs.replace(whole, cut=3), msgspec.structs.replace(whole, cleared=True)):
        message = write(gone, shown)
        assert (message.erased, message.content, message.role) == (True, msgspec.UNSET, "user")
    assert msgspec.to_builtins(lost(whole)) == {"seq": 1, "tokens": 5, "reason": "pinned", "erased": True}


class Talk:
    """A conversation with its fold."""

    def __init__(self, budget: int = 1000, policy: str = "fifo") -> None:
        self.fold = Fold(Choice(policy=policy, budget_tokens=budget))
        self.events: dict[int, StoredEvent] = {}

    def add(self, content: object = "word", **fields: Any) -> int:
        seq = self.fold.head + 1
        self.events[seq] = event(seq, content, **fields)
        item = measure([self.events[seq]])[0]
        if item.seq_named:
            item = msgspec.structs.replace(item, named=tuple(measure([self.events[item.seq_named]])))
        self.fold.apply(item)
        return seq

    def call(self, call_id: str, content: object = None) -> int:
        return self.add(content or {}, type="tool_call", role=None, call_id=call_id, name="look")

    def result(self, call_id: str, content: object = "found") -> int:
        return self.add(content, type="tool_result", role=None, call_id=call_id)

    def context(self, budget: int | None = None) -> Context:
        return assemble(draft(self.fold, budget), self.events)

    def order(self) -> list[int]:
        return [shown.seq for shown in self.context().shown]


def test_results_directly_follow_their_calls() -> None:
    talk = Talk()
    user, call = talk.add(), talk.call("a")
    impatient = talk.add("Are you there?")
    result, after = talk.result("a"), talk.add()
    assert talk.order() == [user, call, result, impatient, after]


def test_calls_in_a_row_are_one_turn() -> None:
    talk = Talk()
    first, second = talk.call("a"), talk.call("b")
    late, early = talk.result("b"), talk.result("a")
    third = talk.call("c")
    last = talk.result("c")
    assert talk.order() == [first, second, late, early, third, last]


def test_a_later_call_does_not_part_an_earlier_one_from_its_result() -> None:
    talk = Talk()
    a, b = talk.call("a"), talk.call("b")
    a_done = talk.result("a")
    c = talk.call("c")
    b_done, c_done = talk.result("b"), talk.result("c")
    assert talk.order() == [a, b, a_done, b_done, c, c_done]


def test_a_call_id_that_is_used_again_is_another_call() -> None:
    talk = Talk()
    first, first_done = talk.call("call_1"), talk.result("call_1")
    said = talk.add()
    second = talk.call("call_1")
    assert talk.order() == [first, first_done, said], "the second has no result as yet"
    assert [one.seq for one in talk.context().left_out] == [second]
    second_done = talk.result("call_1")
    assert talk.order() == [first, first_done, said, second, second_done]


def test_a_conversation_of_calls_alone_shows_nothing_yet() -> None:
    talk = Talk()
    talk.call("a")
    talk.call("b")
    context = talk.context()
    assert (context.shown, context.tokens, len(context.left_out)) == ([], 0, 2)
    empty = Talk().context()
    assert (empty.shown, empty.tokens, empty.budget, empty.left_out) == ([], 0, 1000, [])


def test_a_smaller_budget_is_what_the_policy_keeps_under_it() -> None:
    talk, small = Talk(budget=200), Talk(budget=60)
    for number in range(12):
        for one in (talk, small):
            one.add(f"message number {number}", role=("user", "assistant")[number % 2])
    before = talk.context().shown
    assert [one.seq for one in talk.context(60).shown] == [one.seq for one in small.context().shown]
    assert talk.context(60).tokens <= 60
    assert talk.context().shown == before, "the fold itself stays as it is"
    assert talk.context(10_000).shown == before


def test_a_budget_that_pins_do_not_fit_in_says_what_is_needed() -> None:
    talk = Talk(budget=200)
    pinned = talk.add("Never book a flight.", role="user")
    talk.add({"seq": pinned}, type="pin", role=None)
    for _ in range(6):
        talk.add("something else altogether", role="assistant")
    needed = 2 * talk.fold.kept.residents.taken("pin")
    assert talk.context(needed).shown[0].reason == "pinned"
    with pytest.raises(InvalidInput, match=f"at least {needed}") as refused:
        talk.context(needed - 1)
    assert refused.value.details == {"needed": needed}


def test_a_single_event_larger_than_any_budget_is_cut() -> None:
    talk = Talk(budget=100)
    talk.add(LONG, role="user")
    for budget in (100, 60, 20, 10):
        context = talk.context(budget)
        [shown] = context.shown
        assert shown.cut is not None
        assert taken(write(talk.events[1], shown)) == context.tokens <= budget
    assert talk.context(1).shown == []


def test_what_retrieval_faults_in_makes_others_leave() -> None:
    talk = Talk(budget=100)
    for number in range(20):
        talk.add(f"message number {number}", role="assistant")
    first = talk.order()[0]
    assert first > 1
    guest = Guest(talk.events[1], resident(20, 20, seq=1))
    chosen = draft(talk.fold, reserve=20)
    assert chosen.left >= 20
    context = assemble(chosen, talk.events, [guest])
    assert context.shown[0] == Shown(seq=1, tokens=20, reason="kept by fifo")
    assert len(context.shown) < len(talk.order()) + 1
    assert context.tokens <= 100


def test_a_call_is_left_out_when_not_all_of_its_results_can_be_shown() -> None:
    talk = Talk(budget=100)
    talk.call("a")
    for _ in range(30):
        talk.result("a", "found " * 20)
    assert talk.context().shown == []
    assert len(talk.context().left_out) == 31


@pytest.mark.parametrize("budget", [0, -1, 10**12])
def test_a_budget_that_is_none(budget: int) -> None:
    with pytest.raises(InvalidInput, match=f"not {budget}"):
        Talk().context(budget)


@pytest.mark.parametrize("sample", ["", "a", LONG, "x" * 5000, "日本語 " * 50, "😀" * 50])
def test_the_longest_start_that_fits(sample: str) -> None:
    for limit in (0, 1, 2, 7, 100, 10**6):
        end = tokens.fitting(sample, limit)
        assert tokens.count([sample[:end]])[0] <= limit
        if end < len(sample):
            assert tokens.count([sample[: end + 60]])[0] > limit or limit == 0
