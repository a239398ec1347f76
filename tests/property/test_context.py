"""Contexts of any conversation, by any policy: within the budget, in an order that models accept, and given back."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from server.context import record
from server.context.assemble import Context, Guest, assemble, draft
from server.context.render import Message, write
from server.errors import InvalidInput
from server.log.stored import StoredEvent
from server.working_set.choice import Choice
from server.working_set.eviction import policies
from server.working_set.explain import Resident, residents
from server.working_set.fold import Fold
from server.working_set.items import Touch, measure
from tests.unit.test_render import event, taken

KINDS = ["user"] * 3 + ["assistant"] * 4 + ["call"] * 3 + ["result"] * 4 + ["reasoning", "constraint", "summary"]
KINDS += ["pin", "unpin", "touch", "touch", "erase"]
WORDS = st.one_of(
    st.integers(0, 12).map(lambda count: "sea gull " * count),
    st.integers(0, 300).map(lambda count: "naïve 😀 " * count),
    st.text(max_size=40).filter(lambda text: text.isprintable()),
)


class Talk:
    """A conversation with its fold, and what storage would name with a pin or a touch."""

    def __init__(self, choice: Choice) -> None:
        self.fold = Fold(choice)
        self.events: dict[int, StoredEvent] = {}

    def add(self, content: Any, **fields: Any) -> None:
        seq = self.fold.head + 1
        self.events[seq] = event(seq, content, **fields)
        item = measure([self.events[seq]])[0]
        if item.type == "pin" and item.seq_named:
            item = msgspec.structs.replace(item, named=self.named(item.seq_named))
        self.fold.apply(item)

    def named(self, seq: int) -> Any:
        one = self.events[seq]
        calls = [other for other in self.events.values() if one.call_id and other.call_id == one.call_id]
        return tuple(item for item in measure(calls or [one]) if not item.erased)


@st.composite
def talks(draw: st.DrawFn) -> Talk:
    talk = Talk(Choice(policy=draw(st.sampled_from(sorted(policies()))), budget_tokens=draw(st.integers(1, 300))))
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=40)):
        head = talk.fold.head
        match kind:
            case "user" | "assistant":
                talk.add(draw(WORDS), role=kind, name=draw(st.sampled_from([None, "Ada"])))
            case "call" | "result":
                call = {"type": f"tool_{kind}", "role": None, "call_id": draw(st.sampled_from("abc"))}
                talk.add(draw(WORDS), **call, **({"name": "look_up"} if kind == "call" else {}))
            case "reasoning" | "constraint":
                talk.add(draw(WORDS), type=kind, role="user")
            case "summary" if head:
                first = draw(st.integers(1, head))
                covers = {"first_seq": first, "last_seq": draw(st.integers(first, head))}
                talk.add({"text": draw(WORDS), "covers": covers}, type=kind, role=None)
            case "touch" if head:
                seq = draw(st.integers(1, head))
                talk.fold.touch(Touch(seq=seq, at=head, named=talk.named(seq)))
            case "pin" | "unpin" if head:
                talk.add({"seq": draw(st.integers(1, head))}, type=kind, role=None)
            case "erase" if head:
                seq = draw(st.integers(1, head))
                if talk.events[seq].type != "erasure":
                    talk.events[seq] = msgspec.structs.replace(
                        talk.events[seq], content=msgspec.UNSET, name=None, call_id=None, erased_at=event().recorded_at
                    )
                talk.add({"seq": seq}, type="erasure", role=None)
    return talk


def written(talk: Talk, context: Context) -> list[Message]:
    return [write(talk.events[shown.seq], shown) for shown in context.shown]


def check_turns(messages: list[Message]) -> None:
    """Tool calls in a row are one turn, directly followed by the results of each of them, which stand nowhere else."""
    rest = deque(messages)

    def run(kind: str) -> list[str | None]:
        found = []
        while rest and rest[0].type == kind:
            found.append(rest.popleft().call_id)
        return found

    while rest:
        calls, results = run("tool_call"), run("tool_result")
        assert set(calls) == set(results)
        assert len(calls) == len(set(calls))
        if not calls:
            rest.popleft()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(talks(), st.integers(1, 400))
def test_a_context_keeps_every_promise(talk: Talk, budget: int) -> None:
    before = residents(talk.fold)
    whole = assemble(draft(talk.fold), talk.events)
    contexts = [whole]
    pinned = talk.fold.kept.residents.taken("pin")
    if budget < min(talk.fold.used, 2 * pinned):
        with pytest.raises(InvalidInput, match=f"at least {2 * pinned}"):
            assemble(draft(talk.fold, budget), talk.events)
    else:
        contexts.append(assemble(draft(talk.fold, budget), talk.events))
    assert residents(talk.fold) == before, "looking changes nothing"
    for context, limit in zip(contexts, (talk.fold.choice.budget_tokens, budget), strict=False):
        messages = written(talk, context)
        assert context.tokens == sum(message.tokens for message in messages) <= limit
        for message in messages:
            assert max(1, taken(message)) == message.tokens
            assert message.reason
            assert not message.erased
        check_turns(messages)
        others = [message.seq for message in messages if message.type != "tool_result"]
        assert others == sorted(others)
        assert len({message.seq for message in messages}) == len(messages)
        seqs = {message.seq for message in messages} | {one.seq for one in context.left_out}
        assert seqs <= {one.seq for one in before}
    assert {one.seq for one in before} == {one.seq for one in whole.shown} | {one.seq for one in whole.left_out}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(talks(), st.integers(1, 400), st.integers(0, 400), st.data())
def test_what_is_brought_in_keeps_every_promise(talk: Talk, budget: int, reserve: int, data: st.DataObject) -> None:
    """Constraints and what was found, of this conversation and of others, in any mix and of any size."""
    pinned = talk.fold.kept.residents.taken("pin")
    assume(budget >= 2 * pinned)
    calls = {one.call_id: talk.named(one.seq) for one in talk.events.values() if one.type == "tool_call"}
    units = [[item.seq for item in unit] for unit in calls.values() if len(unit) > 1]
    units += [[seq] for seq, one in talk.events.items() if one.type in ("message", "reasoning") and not one.erased_at]
    constraints = [guest(talk, seq, elsewhere=False) for [seq] in (unit for unit in units if len(unit) == 1)][:5]
    first = draft(talk.fold, budget, constraints=constraints, reserve=reserve)
    assert first.left >= 0
    assert sum(one.resident.tokens for one in first.brought) <= budget // 4
    brought = {one.event.seq for one in first.brought}
    left, found = first.left, []
    for unit in data.draw(st.permutations(units)):
        elsewhere = data.draw(st.booleans())
        guests = [guest(talk, seq, elsewhere=elsewhere) for seq in unit]
        size = sum(one.resident.tokens for one in guests)
        shown = not elsewhere and any(seq in brought or not first.fold.lacks(seq) for seq in unit)
        if size <= left and not shown:
            left -= size
            found += guests
    context = assemble(first, talk.events, found)
    again = draft(talk.fold, budget, constraints=constraints, reserve=reserve)
    assert context.shown == assemble(again, talk.events, found).shown
    messages = written(talk, context)
    assert context.tokens == sum(message.tokens for message in messages) <= budget
    assert all(message.tokens >= taken(message) for message in messages)
    others = [message for message in messages if message.conversation_id]
    assert messages[: len(others)] == others
    for part in (others, messages[len(others) :]):
        check_turns(part)
        assert len({message.seq for message in part}) == len(part)
    shown_seqs = {(message.conversation_id, message.seq) for message in messages}
    assert {one.place for one in found if one.event.type not in ("tool_call", "tool_result")} <= shown_seqs
    made = record.Record.of(context)
    elsewhere_events = {(one.conversation, one.event.seq): one.event for one in found if one.conversation}
    bytes_ = record.answer(made, talk.events, elsewhere_events)
    assert record.answer(record.load(record.dump(made)), talk.events, elsewhere_events) == bytes_


def guest(talk: Talk, seq: int, *, elsewhere: bool) -> Guest:
    [item] = measure([talk.events[seq]])
    tokens = max(1, item.tokens)
    resident = Resident(seq=seq, tokens=tokens, whole=tokens, why="faulted in: bm25 1st", unit=seq)
    return Guest(talk.events[seq], resident, conversation="conv_" + "0" * 48 if elsewhere else None)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(talks())
def test_a_record_gives_the_same_bytes_again(talk: Talk) -> None:
    made = record.Record.of(assemble(draft(talk.fold), talk.events))
    again = record.load(record.dump(made))
    assert again == made
    assert record.answer(again, talk.events, {}) == record.answer(made, talk.events, {})
    assert b'"erased"' not in record.answer(made, talk.events, {})
    gone = msgspec.json.decode(b'{"snapshot_id":""' + record.answer(made, {}, {}))
    assert gone.get("erased", []) == made.seqs
    assert [message["seq"] for message in gone["messages"]] == made.seqs
