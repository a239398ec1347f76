"""What always holds of a migration, whatever operators do in whatever order, with servers that lag and restart."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import structs

from server.embeddings.lifecycle.commands import (
    Add,
    Backfill,
    Command,
    Compare,
    Contract,
    Cutover,
    Pause,
    Ramp,
    Resume,
    Rollback,
    Shadow,
    Start,
    Verify,
)
from server.embeddings.lifecycle.decision import RUNNING
from server.embeddings.lifecycle.figures.rankings import overlap, rank_biased_overlap, swaps
from server.embeddings.lifecycle.figures.scores import recalibrate
from server.embeddings.lifecycle.records import Refused, Transition
from server.embeddings.lifecycle.routing import WHOLE, Routing, Unit, place, serve
from server.embeddings.lifecycle.status import status
from server.retrieval.plan import PLANS
from tests.unit.lifecycle_story import BAD, GOOD, Story

USERS = (-(2**63), -5, 0, 1, 77, 2**40, 2**63 - 1)
names = st.sampled_from(["old", "v2", "v3", "v4"])
shares = st.sampled_from([0, 1, 500, 2000, 5000, WHOLE])
forces = st.sampled_from([None, "", "a reason"])
gates = st.sampled_from([GOOD, GOOD, BAD])

MAY_FOLLOW = {
    "draft": {"writing", "dropped"},
    "writing": {"backfilling", "draft"},
    "backfilling": {"verified", "draft"},
    "verified": {"shadowing", "draft"},
    "shadowing": {"ramping", "draft"},
    "ramping": {"shadowing", "holding", "draft"},
    "holding": {"active", "draft"},
    "active": {"retired"},
    "retired": {"active", "dropped"},
    "dropped": set[str](),
}


class Migrations(RuleBasedStateMachine):
    """A database with its truth beside it: which versions have a vector of every event, whatever the rules believe."""

    @initialize()
    def begin(self) -> None:
        self.story = Story()
        self.complete = {1}  # by the truth: filled once, and written ever since
        self.before: Routing | None = None  # the routing that a rollback must bring back
        self.added = 1

    @rule(
        command=st.one_of(
            st.builds(Start, name=names, plan=st.just(PLANS["minilm"])),
            st.just(Backfill()),
            st.builds(Shadow, sample=shares),
            st.builds(Ramp, share=shares, force=forces),
            st.builds(Cutover, force=forces),
            st.builds(Rollback, reason=st.just("")),
            st.just(Pause()),
            st.just(Resume()),
            st.builds(Contract, name=names, typed=names),
        )
    )
    def command(self, command: Command) -> None:
        self.give(command)

    @rule()
    def add(self) -> None:
        if self.added < 4:
            number = self.added + 1
            if self.give(Add(number=number, name=f"v{number}", space=f"space {number}")):
                self.added = number

    @rule()
    def embed_the_rest(self) -> None:
        """The backfill ends: whatever is written while it runs becomes complete."""
        if any(version.state == "backfilling" for version in self.story.versions):
            self.complete |= set(self.story.routing.written)

    @rule(found=gates)
    def verify(self, found: Any) -> None:
        candidate = self.story.routing.candidate
        # The coverage gate counts what is there; it passes only on the truth.
        sound = candidate in self.complete
        self.give(Verify(since=self.story.routing.epoch, gates=found if sound else BAD))

    @rule(found=gates, back=st.integers(0, 5))
    def compare(self, found: Any, back: int) -> None:
        self.give(Compare(since=self.story.routing.epoch - back, gates=found))

    @rule(name=names)
    def contract_in_earnest(self, name: str) -> None:
        self.story.now += timedelta(hours=80)
        self.give(Contract(name=name, typed=name))

    @rule(hours=st.integers(1, 100))
    def wait(self, hours: int) -> None:
        self.story.now += timedelta(hours=hours)

    @rule(behind=st.integers(0, 2), release=st.sampled_from(["1.0", "1.0", "0.9"]))
    def servers(self, behind: int, release: str) -> None:
        self.story.serving(("a", release, self.story.routing.epoch - behind))

    @rule()
    def servers_follow(self) -> None:
        self.story.serving(("a", "1.0", self.story.routing.epoch))

    @rule(first=st.sampled_from([Backfill(), Rollback(), Cutover(), Pause(), Ramp(share=0)]), second=shares)
    def two_at_once(self, first: Command, second: int) -> None:
        one, other = self.story.decide(first), self.story.decide(Shadow(sample=second))
        if isinstance(one, Transition) and isinstance(other, Transition) and one.flips:
            stored = self.story.routing
            assert self.give(first)
            lost = self.story.store(other, Shadow(sample=second))
            assert lost is not None
            assert lost.code == "stale_epoch"
            assert self.story.routing.epoch == stored.epoch + 1

    @rule(steps=st.integers(1, 8), share=st.integers(1, 3))
    def migrate(self, steps: int, share: int) -> None:
        """Do what is next, so that runs come far."""
        self.add()
        for _ in range(steps):
            self.migrate_a_step(share)

    def migrate_a_step(self, share: int) -> None:
        story = self.story
        story.serving()
        running = next((version for version in story.versions if version.state in RUNNING), None)
        if story.routing.paused:
            self.give(Resume())
        if running is None:
            draft = next((version for version in story.versions if version.state == "draft"), None)
            if draft is not None:
                assert self.give(Start(name=draft.name, plan=PLANS["minilm"]))
            return
        if running.state == "backfilling":
            self.embed_the_rest()
            self.verify(GOOD)
        elif running.state == "shadowing":
            self.verify(GOOD)
            self.compare(GOOD, 0)
            assert self.give(Ramp(share=share))
        elif running.state == "ramping":
            self.verify(GOOD)
            self.compare(GOOD, 0)
            assert self.give(Cutover())
        elif running.state in ("writing", "verified"):
            assert self.give(Backfill() if running.state == "writing" else Shadow(sample=100))

    def give(self, command: Command) -> bool:
        story = self.story
        before, states = story.routing, story.states
        decision = story.decide(command)
        if isinstance(decision, Refused):
            assert decision.code
            assert len(decision.message) > 20
            story.remember(decision.record)
            assert story.routing == before
            assert not isinstance(command, Rollback) or decision.code == "nothing_to_roll_back"
            return False
        assert story.store(decision, command) is None
        after = story.routing
        assert after.epoch - before.epoch == int(decision.flips)
        assert decision.flips or (after == before and states == story.states)
        for name, state in states.items():
            now = story.states[name]
            assert now == state or now in MAY_FOLLOW[state], f"{name}: {state} -> {now} by {command}"
        if isinstance(command, Start):
            self.before = before
        elif isinstance(command, Rollback):
            assert self.before is not None
            assert structs.replace(after, epoch=self.before.epoch) == self.before
        elif isinstance(command, Contract):
            assert decision.drops is not None
            if self.before is not None and decision.drops == self.before.active:
                self.before = None
            assert decision.drops not in (before.active, before.candidate)
        # What is not written falls behind with the next append.
        self.complete &= set(after.written)
        return True

    @invariant()
    def every_user_reads_one_complete_version(self) -> None:
        if not hasattr(self, "story"):
            return
        routing = self.story.routing
        for user in (*USERS, None):
            served = serve(routing, user)
            assert served.unit.version in routing.written
            assert served.unit.version in self.complete
            assert served.epoch == routing.epoch
        assert routing.active in self.complete

    @invariant()
    def the_old_one_is_written_until_contract(self) -> None:
        if hasattr(self, "story"):
            states = {version.id: version.state for version in self.story.versions}
            written = {number for number, state in states.items() if state in (*RUNNING, "active", "retired")}
            assert written == set(self.story.routing.written) == {unit.version for unit in self.story.routing.units}
            assert not self.story.dropped & written
            assert sum(state in RUNNING for state in states.values()) <= 1
            assert "retired" not in states.values() or "holding" in states.values()
            assert all(number in self.complete for number, state in states.items() if state == "retired")

    @invariant()
    def a_way_back_is_always_open(self) -> None:
        if hasattr(self, "story"):
            story = self.story
            shown = status(story.routing, story.versions, story.facts, story.now)
            assert (shown.running is None) == (shown.refused["rollback"] is not None)


TestMigrations = Migrations.TestCase
TestMigrations.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

rankings = st.lists(st.integers(0, 30), unique=True, max_size=20)
users = st.integers(-(2**63), 2**63 - 1)


@given(users, st.binary(min_size=1, max_size=64), st.integers(0, WHOLE), st.integers(0, WHOLE))
def test_a_ramp_is_sticky_and_only_grows(user: int, salt: bytes, one: int, other: int) -> None:
    units = tuple(Unit(version=number, plan=PLANS["static"]) for number in (1, 2))
    routing = Routing(epoch=1, active=1, candidate=2, salt=salt, written=(1, 2), units=units)
    low, high = sorted((one, other))
    reads = [serve(structs.replace(routing, ramp=ramp), user).unit.version for ramp in (low, high)]
    assert reads == sorted(reads)
    assert 0 <= place(routing, user) < WHOLE


@given(rankings, rankings, st.floats(0.05, 0.99))
def test_likeness_is_symmetric_and_within_bounds(one: list[int], other: list[int], p: float) -> None:
    assert -1e-9 <= rank_biased_overlap(one, other, p) <= 1 + 1e-9
    assert abs(rank_biased_overlap(one, other, p) - rank_biased_overlap(other, one, p)) < 1e-9
    assert abs(rank_biased_overlap(one, one, p) - 1) < 1e-9
    assert overlap(one, other, 10) == overlap(other, one, 10)
    assert swaps(one, other) == swaps(other, one)
    assert 0 <= swaps(one, other) <= 1


@given(
    st.lists(st.floats(-1, 1), min_size=200, max_size=250),
    st.lists(st.floats(-1, 1), min_size=200, max_size=250),
    st.lists(st.floats(-1, 1), min_size=2, max_size=5),
)
@settings(max_examples=40, deadline=None)
def test_recalibrated_thresholds_keep_their_order(old: list[float], new: list[float], thresholds: list[float]) -> None:
    moved = [recalibrate("near", one, old, new).value for one in sorted(thresholds)]
    known = [value for value in moved if value is not None]
    assert all(later > earlier - 1e-9 for earlier, later in pairwise(known))
    assert all(min(new) - 1e-9 <= value <= max(new) + 1e-9 for value in known)
