"""The state machine of a migration, as an operator meets it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec import json, structs

from server.embeddings.lifecycle.commands import (
    Add,
    Backfill,
    Command,
    Contract,
    Cutover,
    Estimate,
    Pause,
    Ramp,
    Resume,
    Rollback,
    Shadow,
    Start,
)
from server.embeddings.lifecycle.records import Record, Refused, Transition, apply
from server.embeddings.lifecycle.routing import Routing
from server.embeddings.lifecycle.status import history, status
from server.retrieval.plan import PLANS
from tests.unit.lifecycle_story import BAD, BEGIN, GOOD, Story

START = Start(name="new", plan=PLANS["minilm"])
RUNNING = ["writing", "backfilling", "verified", "shadowing", "compared", "ramping", "holding"]


def test_a_whole_migration() -> None:
    story = Story().to("holding")
    assert story.states == {"old": "retired", "new": "holding"}
    assert (story.routing.active, story.routing.candidate, story.routing.written) == (2, None, (1, 2))

    story.now += timedelta(hours=73)
    story.do(Contract(name="old", typed="old"))

    assert story.states == {"old": "dropped", "new": "active"}
    assert (story.routing.active, story.routing.written) == (2, (2,))
    assert [unit.version for unit in story.routing.units] == [2]
    assert story.dropped == {1}
    assert [record.action for record in story.history] == [
        *("add", "start", "backfill", "verify", "shadow", "compare", "ramp", "cutover", "contract")
    ]
    assert all(record.who == "ada" and record.at >= BEGIN for record in story.history)
    assert story.history[-2].gates == GOOD + GOOD


def test_nothing_changes_by_adding_planning_or_comparing() -> None:
    story = Story()
    before = story.routing
    story.do(Add(number=2, name="new", space="s"), Estimate(name="new", figures={"texts": 10.0, "rate": 100.0}))
    assert structs.replace(story.routing, epoch=1) == before
    assert story.history[-1].figures == {"texts": 10.0, "rate": 100.0}

    story = Story().to("shadowing")
    before = story.routing
    story.do(story.compare(BAD))
    assert story.routing == before
    assert not story.history[-1].done


@pytest.mark.parametrize("state", RUNNING)
def test_rollback_leaves_the_routing_as_it_was(state: str) -> None:
    before = Story(thresholds={"near": 0.6}).to("draft").routing
    story = Story(thresholds={"near": 0.6}).to(state)
    story.do(Rollback(reason="complaints"))

    assert structs.replace(story.routing, epoch=before.epoch) == before
    assert story.states == {"old": "active", "new": "draft"}
    assert "complaints" in story.history[-1].note


@pytest.mark.parametrize("state", RUNNING)
def test_rollback_asks_for_nothing(state: str) -> None:
    story = Story().to(state)
    story.serving(("a", "0.9", 1), ("b", "1.0", 0))
    story.facts = structs.replace(story.facts, waiting=None, reading=9)
    story.do(Rollback())


def test_what_was_rolled_back_can_be_started_again_but_its_evidence_is_gone() -> None:
    story = Story().to("ramping").do(Rollback(), START, Backfill())
    assert story.code(Ramp(share=500)) == "wrong_state"
    story.do(story.verify(), Shadow(sample=100))
    assert story.code(Ramp(share=500)) == "not_compared"


def test_figures_of_another_migration_are_refused() -> None:
    story = Story().to("backfilling")
    late = story.verify()
    story.do(Rollback(), START, Backfill())
    assert story.code(late) == "measured_before"


@pytest.mark.parametrize("state", RUNNING)
def test_one_migration_at_a_time(state: str) -> None:
    story = Story().to(state).do(Add(number=3, name="third", space="space-3"))
    refused = story.run(Start(name="third", plan=PLANS["minilm"]))
    assert refused is not None
    assert refused.code == "migration_running"
    assert "'new'" in refused.message


@pytest.mark.parametrize("command", [START, Shadow(sample=500), Ramp(share=100), Cutover(), Rollback()])
def test_of_two_operators_one_is_refused(command: Command) -> None:
    story = Story().to({Start: "draft", Shadow: "verified", Ramp: "compared"}.get(type(command), "ramping"))
    first, second = story.decide(command), story.decide(command)
    assert isinstance(first, Transition)
    assert isinstance(second, Transition)
    assert story.store(first, command) is None
    lost = story.store(second, command)
    assert lost is not None
    assert lost.code == "stale_epoch"
    assert story.routing == first.routing


def test_an_operator_who_saw_another_epoch_is_refused() -> None:
    story = Story().to("ramping")
    decision = story.decide(Cutover(), epoch=story.routing.epoch - 1)
    assert isinstance(decision, Refused)
    assert decision.code == "stale_epoch"
    assert isinstance(story.decide(Cutover(), epoch=story.routing.epoch), Transition)


def test_gates_hold_back_a_ramp_and_a_cutover_and_a_reason_goes_on_record() -> None:
    story = Story().to("shadowing")
    story.do(story.compare(BAD))
    refused = story.run(Ramp(share=500))
    assert refused is not None
    assert refused.code == "gates_failed"
    assert "recall: it finds less" in refused.message
    assert story.history[-1].gates == (*GOOD, *BAD)
    assert not story.history[-1].done

    assert story.code(Ramp(share=500, force=" ")) == "reason_missing"
    story.do(Ramp(share=500, force="a trial with our own staff"))
    assert story.code(Cutover()) == "gates_failed"
    story.do(Cutover(force="the owner accepts the loss"))
    assert story.history[-1].forced == "the owner accepts the loss"
    assert story.history[-1].gates == (*GOOD, *BAD)


def test_no_reason_makes_an_incomplete_version_serve() -> None:
    story = Story().to("compared")
    story.run(story.verify(BAD))
    assert story.code(Ramp(share=500, force="hurry")) == "gates_failed"
    story.do(story.verify())
    story.facts = structs.replace(story.facts, waiting=5_000)
    assert story.code(Ramp(share=500, force="hurry")) == "candidate_behind"
    story.facts = structs.replace(story.facts, waiting=None)
    assert story.code(Ramp(share=500, force="hurry")) == "candidate_behind"


def test_a_history_that_is_lost_is_no_evidence() -> None:
    story = Story().to("ramping")
    story.facts = structs.replace(story.facts, history=())
    assert story.code(Cutover(force="hurry")) == "not_verified"


def test_a_failed_verification_keeps_the_state_and_is_on_record() -> None:
    story = Story().to("backfilling")
    epoch = story.routing.epoch
    assert story.code(story.verify(BAD)) == "gates_failed"
    assert (story.states["new"], story.routing.epoch) == ("backfilling", epoch)
    assert (story.history[-1].action, story.history[-1].done) == ("verify", False)
    story.do(Backfill(), story.verify())
    assert story.states["new"] == "verified"


def test_old_figures_do_not_count() -> None:
    story = Story().to("compared")
    story.now += timedelta(days=8)
    assert story.code(Ramp(share=500)) == "stale_evidence"
    story.do(story.verify(), story.compare(), Ramp(share=500))


def test_users_can_always_be_taken_back() -> None:
    story = Story().to("ramping")
    story.run(story.verify(BAD))
    story.serving(("a", "1.0", 0))
    assert story.code(Ramp(share=600)) == "servers_behind"
    story.do(Pause(), Ramp(share=100), Ramp(share=0))
    assert story.states["new"] == "shadowing"
    assert story.routing.ramp == 0


@pytest.mark.parametrize(
    ("state", "command"),
    [
        ("draft", START),
        ("writing", Backfill()),
        ("verified", Shadow(sample=100)),
        ("compared", Ramp(share=500)),
        ("ramping", Cutover()),
    ],
)
def test_every_step_waits_for_every_server(state: str, command: Command) -> None:
    story = Story().to(state)
    story.serving(("here", "1.0", story.routing.epoch), ("there", "0.9", story.routing.epoch))
    assert story.code(command) == "mixed_releases"
    story.serving(("here", "1.0", story.routing.epoch), ("there", "1.0", story.routing.epoch - 1))
    assert story.code(command) == "servers_behind"
    story.serving(("here", "1.0", story.routing.epoch), ("there", "1.0", story.routing.epoch))
    story.do(command)


def test_thresholds_change_with_the_version_and_must_be_known() -> None:
    story = Story(thresholds={"near": 0.6}).to("shadowing")
    story.do(story.compare())
    assert story.code(Ramp(share=500)) == "threshold_unknown"
    story.do(story.compare(near=0.31), Ramp(share=500))
    assert story.routing.unit(2).thresholds == {"near": 0.31}
    assert story.routing.unit(1).thresholds == {"near": 0.6}


def test_contract_wants_time_the_name_and_no_readers() -> None:
    story = Story().to("holding")
    command = Contract(name="old", typed="old")
    story.now += timedelta(hours=71)
    assert story.code(command) == "grace_period"
    story.now += timedelta(hours=2)
    assert story.code(Contract(name="old", typed="Old")) == "name_not_typed"
    story.facts = structs.replace(story.facts, reading=1)
    assert story.code(command) == "still_read"
    story.facts = structs.replace(story.facts, reading=0)
    story.serving(("a", "1.0", story.routing.epoch - 1))
    assert story.code(command) == "servers_behind"
    assert story.code(Contract(name="new", typed="new")) == "wrong_state"
    story.serving()
    story.do(command)
    assert story.code(Rollback()) == "nothing_to_roll_back"


def test_a_candidate_that_was_given_up_can_be_dropped_while_another_migration_runs() -> None:
    story = Story().to("ramping").do(Rollback(), Add(number=3, name="third", space="space-3"))
    story.do(Start(name="third", plan=PLANS["minilm"]), Contract(name="new", typed="new"))
    assert story.states == {"old": "active", "new": "dropped", "third": "writing"}
    assert story.routing.written == (1, 3)


def test_a_pause_holds_the_work_and_not_the_reads() -> None:
    story = Story().to("ramping")
    before = story.routing
    story.do(Pause(reason="the night's backup"))
    assert structs.replace(story.routing, paused=False, epoch=before.epoch) == before
    assert story.code(Pause()) == "paused"
    assert story.code(Cutover()) == "paused"
    story.do(Resume(), Cutover())
    assert story.code(Pause()) == "wrong_state"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (Add(number=3, name="new", space="x"), "name_taken"),
        (Add(number=3, name="other", space="space-2"), "same_space"),
        (Start(name="nobody", plan=PLANS["minilm"]), "no_such_version"),
        (Start(name="old", plan=PLANS["minilm"]), "wrong_state"),
        (Backfill(), "no_migration"),
        (Resume(), "no_migration"),
        (Ramp(share=10_001), "share_outside"),
        (Shadow(sample=-1), "share_outside"),
        (Rollback(), "nothing_to_roll_back"),
    ],
)
def test_what_makes_no_sense_is_refused(command: Command, code: str) -> None:
    assert Story().to("draft").code(command) == code


def test_status_says_what_may_come_next_and_why_not() -> None:
    story = Story().to("shadowing")
    shown = status(story.routing, story.versions, story.facts, story.now)
    assert shown.running is not None
    assert shown.running.name == "new"
    assert shown.refused["rollback"] is None
    assert shown.refused["ramp"] is not None
    assert shown.refused["ramp"].code == "not_compared"
    assert shown.found.verified is not None
    story.do(story.compare())
    assert status(story.routing, story.versions, story.facts, story.now).refused["ramp"] is None
    assert [one.action for one in history(story.history, 2, newest=2)] == ["shadow", "compare"]


def test_rows_and_records_survive_storage() -> None:
    story = Story(thresholds={"near": 0.5}).to("shadowing")
    story.do(story.compare(near=0.2), Ramp(share=500))
    assert json.decode(json.encode(story.routing), type=Routing) == story.routing
    assert json.decode(json.encode(story.history), type=tuple[Record, ...]) == story.history


def test_a_transition_is_of_one_epoch_only() -> None:
    story = Story().to("draft")
    transition = story.decide(START)
    assert isinstance(transition, Transition)
    assert transition.flips
    assert transition.creates == 2
    assert transition.routing.epoch == transition.from_epoch + 1
    assert isinstance(apply(structs.replace(story.routing, epoch=99), transition), Refused)
