"""The hard rules, for every policy there is, over any conversation."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.constraints import Rule
from server.working_set import checkpoint
from server.working_set.choice import Choice, pin_quota
from server.working_set.eviction import policies
from server.working_set.explain import explain, residents
from server.working_set.features import Features
from server.working_set.fold import Fold
from server.working_set.items import Covers, Item, Touch
from server.working_set.standing import Decision

POLICIES = sorted(policies())
Step = Item | Touch
Steps = list[Step]


class Script:
    """A conversation in the making: remembers enough to name what a pin or a touch refers to."""

    def __init__(self) -> None:
        self.steps: Steps = []
        self.items: list[Item] = []
        self.erased: dict[int, int] = {}

    def named(self, seq: int) -> tuple[Item, ...]:
        """Return an event with all events of its call, as storage would, which also knows of stale summaries."""
        item = self.items[seq - 1]
        if seq in self.erased:
            return ()
        if item.covers is not None:
            covered = range(item.covers.first_seq, item.covers.last_seq + 1)
            stale = any(gone in covered and at > seq for gone, at in self.erased.items())
            return (msgspec.structs.replace(item, stale=stale),)
        if item.call_id is None:
            return (item,)
        return tuple(one for one in self.items if one.call_id == item.call_id and one.seq not in self.erased)

    def add(self, **fields: object) -> None:
        item = msgspec.convert({"seq": len(self.items) + 1, **fields}, Item, from_attributes=True)
        self.items.append(item)
        self.steps.append(item)


KINDS = ["user"] * 4 + ["assistant"] * 5 + ["call"] * 3 + ["result"] * 4 + ["constraint", "summary", "reasoning"]
KINDS += ["rule"] * 2 + ["decide"] + ["pin"] * 2 + ["unpin", "erase", "delete", "choose"] + ["touch"] * 4
SIZES = st.one_of(st.integers(0, 30), st.integers(0, 400))


@st.composite
def features(draw: st.DrawFn) -> Features:
    words = draw(st.lists(st.integers(0, 50), max_size=8, unique=True))
    flags = draw(st.tuples(*[st.booleans()] * 5))
    return Features(
        length=len(words) + draw(st.integers(0, 5)),
        words=tuple(sorted(words)),
        question=flags[0],
        reference=flags[1],
        correction=flags[2],
        constraint=flags[3],
        number_change=flags[4],
    )


rules_ = st.builds(
    Rule,
    kind=st.just("instruction"),
    polarity=st.sampled_from(["do", "avoid"]),
    cue=st.just("always"),
    first=st.just(0),
    last=st.just(5),
    topic=st.sampled_from([None, "language", "diet"]),
    words=st.lists(st.integers(0, 3), max_size=2, unique=True).map(tuple),
    firm=st.booleans(),
)


@st.composite
def scripts(draw: st.DrawFn) -> Steps:
    script = Script()
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=60)):
        head = len(script.items)
        read = draw(features())
        match kind:
            case "user" | "assistant":
                script.add(type="message", role=kind, tokens=draw(SIZES), features=read)
            case "call" | "result":
                script.add(
                    type=f"tool_{kind}",
                    role="assistant" if kind == "call" else "tool",
                    tokens=draw(SIZES),
                    call_id=draw(st.sampled_from("abcd")),
                    features=read,
                )
            case "constraint" | "reasoning":
                script.add(type=kind, role="user", tokens=draw(SIZES), features=read)
            case "summary" if head:
                first = draw(st.integers(1, head))
                covers = Covers(first, draw(st.integers(first, head)))
                script.add(type="summary", role="assistant", tokens=draw(SIZES), features=read, covers=covers)
            case "rule":
                role = draw(st.sampled_from(["user", "system"]))
                rules = (draw(rules_),)
                script.add(type="message", role=role, tokens=draw(SIZES), features=read, rules=rules)
            case "decide" if head:
                seq = draw(st.integers(1, head))
                decision = Decision(seq=seq, state=draw(st.sampled_from(["confirmed", "dismissed"])))
                script.add(type="constraint", decision=decision, named=script.named(seq))
            case "pin" | "unpin" | "erase" | "delete" | "touch" if head:
                seq = draw(st.integers(1, head))
                if kind == "touch":
                    script.steps.append(Touch(seq=seq, at=head, named=script.named(seq)))
                elif kind == "erase":
                    script.erased[seq] = head + 1
                    script.add(type="erasure", seq_named=seq)
                elif kind == "delete":
                    script.add(type="deletion", seq_named=seq)
                else:
                    script.add(type=kind, seq_named=seq, named=script.named(seq) if kind == "pin" else ())
            case "choose":
                choice = Choice(policy=draw(st.sampled_from(POLICIES)), budget_tokens=draw(st.integers(1, 300)))
                script.add(type="working_set", choice=choice)
    return script.steps


def step(fold: Fold, one: Step) -> None:
    if isinstance(one, Touch):
        fold.touch(one)
    else:
        fold.apply(one)


def check_hard_rules(fold: Fold, past: Steps, ever: set[int]) -> None:
    items = {one.seq: one for one in past if isinstance(one, Item)}
    shown = residents(fold)
    seqs = [resident.seq for resident in shown]
    assert seqs == sorted(set(seqs))
    # Never over the budget, and nothing is charged more than it takes.
    assert fold.used == sum(resident.tokens for resident in shown) <= fold.choice.budget_tokens
    assert all(0 <= resident.tokens <= resident.whole for resident in shown)
    # Control events and what was erased are not shown; nor are summaries of what was erased.
    erased = {one.seq_named: one.seq for one in items.values() if one.type in ("erasure", "deletion")}
    for resident in shown:
        item = items[resident.seq]
        assert not item.is_control
        assert item.seq not in erased
        if item.covers is not None:
            assert all(
                not item.covers.first_seq <= gone <= item.covers.last_seq or at < item.seq
                for gone, at in erased.items()
                if gone is not None
            )
    # A result is never without its call, and a unit is there as a whole.
    for resident in shown:
        item = items[resident.seq]
        if item.type == "tool_result":
            assert any(items[seq].type == "tool_call" and items[seq].call_id == item.call_id for seq in seqs)
    broken = {items[seq].call_id for seq in erased if seq in items and items[seq].type == "tool_call"}
    shown_calls = {items[seq].call_id for seq in seqs if items[seq].type == "tool_call"} - broken
    ever.update(seqs)
    assert {seq for seq in ever if items[seq].call_id in shown_calls} - set(erased) <= set(seqs)
    # The newest user message stays, unless it was erased.
    users = [seq for seq, item in items.items() if item.type == "message" and item.role == "user"]
    if users and users[-1] not in erased:
        assert users[-1] in seqs
    # What is held as a constraint holds, and takes no more than its quota; nothing else is held so.
    held = [unit for unit, hold in fold.kept.residents.held.items() if hold == "constraint"]
    assert all(fold.kept.standing.holds(unit) for unit in held)
    assert set(held) <= set(fold.kept.constraints)
    assert all(fold.kept.standing.holds(seq) and seq in seqs for seq in fold.kept.constraints)
    assert fold.kept.residents.taken("constraint") <= max(1, fold.choice.budget_tokens) // 4
    # Pins stay, within their quota.
    assert fold.kept.pins <= set(seqs)
    assert fold.kept.residents.taken("pin") <= pin_quota(fold.choice.budget_tokens)


@pytest.mark.parametrize("policy", POLICIES)
@given(steps=scripts(), budget=st.integers(1, 300))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_hard_rules_hold(policy: str, steps: Steps, budget: int) -> None:
    fold, ever = Fold(Choice(policy=policy, budget_tokens=budget)), set[int]()
    for index, one in enumerate(steps):
        pinned = set(fold.kept.pins)
        step(fold, one)
        check_hard_rules(fold, steps[: index + 1], ever)
        if not (isinstance(one, Item) and one.type in ("unpin", "erasure", "deletion")):
            assert pinned <= fold.kept.pins


@pytest.mark.parametrize("policy", POLICIES)
@given(steps=scripts(), budget=st.integers(20, 300), data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_checkpoint_and_the_tail_equal_the_whole(policy: str, steps: Steps, budget: int, data: st.DataObject) -> None:
    choice = Choice(policy=policy, budget_tokens=budget)
    cut = data.draw(st.integers(0, len(steps)))
    whole, start = Fold(choice), Fold(choice)
    for one in steps:
        step(whole, one)
    for one in steps[:cut]:
        step(start, one)
    resumed = checkpoint.load(checkpoint.dump(start))
    for one in steps[cut:]:
        step(resumed, one)
    assert checkpoint.dump(resumed) == checkpoint.dump(whole)
    assert residents(resumed) == residents(whole)
    assert explain(resumed) == explain(whole)


@pytest.mark.parametrize("policy", POLICIES)
@given(steps=scripts())
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_explaining_changes_nothing(policy: str, steps: Steps) -> None:
    fold = Fold(Choice(policy=policy, budget_tokens=120))
    for one in steps:
        step(fold, one)
        before = checkpoint.dump(fold)
        found = explain(fold, near=5)
        assert checkpoint.dump(fold) == before
        assert all(one.why and one.policy_version >= 1 for one in found)
