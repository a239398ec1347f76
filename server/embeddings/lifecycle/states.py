"""The state machine of a migration: what a command would change, or why it may not.

    draft -> writing -> backfilling -> verified -> shadowing <-> ramping -> holding -> active
    active -> retired (by cutover) -> dropped (by contract)
    any of writing … holding -> draft, and retired -> active (by rollback)

What always holds:

- Reads are served by versions that are written; the active one has been complete ever since it became active, and a
  candidate serves nobody before its coverage was verified.
- The version that was active when a migration began is written until `contract`.
- Between `start` and `contract` no other migration begins.
- A rollback is never refused for figures, servers or a pause, and leaves the routing as it was before `start`.
- Every change raises the epoch by one and names the epoch that it was decided on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

from msgspec import structs

from schema.vocabulary import VersionState
from server.embeddings.lifecycle import blockers
from server.embeddings.lifecycle.commands import (
    Add,
    Backfill,
    Command,
    Compare,
    Contract,
    Cutover,
    Estimate,
    Pause,
    Ramp,
    Resume,
    Rollback,
    Shadow,
    Start,
    Verify,
)
from server.embeddings.lifecycle.decision import RUNNING, Decision
from server.embeddings.lifecycle.facts import Facts, Version
from server.embeddings.lifecycle.records import Refused, Transition, stale
from server.embeddings.lifecycle.routing import WHOLE, Routing, Unit


def decide(
    routing: Routing,
    versions: Iterable[Version],
    command: Command,
    facts: Facts,
    now: datetime,
    who: str,
    *,
    epoch: int | None = None,
) -> Transition | Refused:
    """Return what a command changes. ``epoch``: the one that its operator saw, if that was said; ``who``: on record."""
    if epoch is not None and epoch != routing.epoch:
        return stale(epoch, routing.epoch)
    return _COMMANDS[type(command)](Decision(routing, versions, facts, now, who), command)


def _add(at: Decision, command: Add) -> Transition | Refused:
    for version in at.versions.values():
        if version.name == command.name:
            return Refused(
                code="name_taken",
                message=f"a version is named {command.name!r} already ({version.state}): choose another name",
            )
        if version.space == command.space and version.state != "dropped":
            return Refused(
                code="same_space",
                message=f"{version.name!r} ({version.state}) is the same model with the same prefixes and texts: "
                "nothing would change; use that one",
            )
    return at.change("add", command.number, f"added {command.name!r}", states={command.number: "draft"})


def _plan(at: Decision, command: Estimate) -> Transition | Refused:
    version = at.named(command.name)
    if isinstance(version, Refused):
        return version
    return at.note("plan", version.id, f"planned a migration to {version.name!r}", figures=command.figures)


def _start(at: Decision, command: Start) -> Transition | Refused:
    version = at.named(command.name)
    if isinstance(version, Refused):
        return version
    if at.running is not None:
        return Refused(
            code="migration_running",
            message=f"the migration to {at.running.name!r} is {at.running.state}: finish it with `contract`, "
            "or give it up with `rollback`; only one runs at a time",
        )
    if version.state != "draft":
        return at.wrong_state("start", version, "a draft")
    refused = blockers.servers(at.routing, at.facts)
    if refused is not None:
        return refused
    unit = Unit(version=version.id, plan=command.plan)
    return at.change(
        "start",
        version.id,
        f"every writer covers {version.name!r} beside {at.active.name!r}",
        states={version.id: "writing"},
        creates=version.id,
        candidate=version.id,
        ramp=0,
        shadow=0,
        paused=False,
        written=(*at.routing.written, version.id),
        units=(*at.routing.units, unit),
    )


def _backfill(at: Decision, _: Backfill) -> Transition | Refused:
    version = at.candidate("backfill", "writing", "backfilling")
    if isinstance(version, Refused):
        return version
    if version.state == "backfilling":
        return at.note("backfill", version.id, "the backfill goes on with what is left")
    return at.change(
        "backfill",
        version.id,
        "the backfill begins, newest conversations first",
        states={version.id: "backfilling"},
    )


def _verify(at: Decision, command: Verify) -> Transition | Refused:
    version = at.candidate("verify", "backfilling", "verified", "shadowing", "ramping", servers=False)
    if isinstance(version, Refused):
        return version
    refused = at.outlived(command.since)
    if refused is not None:
        return refused
    record = at.record("verify", version.id, "vectors and index are sound", gates=command.gates)
    if not blockers.failed(command.gates):
        states: dict[int, VersionState] = {version.id: "verified"} if version.state == "backfilling" else {}
        return at.move(record, states)
    hint = "; users read it already: `ramp 0` or `rollback` takes them back" if at.routing.ramp else ""
    failed = structs.replace(record, epoch=at.routing.epoch, note="gates fail", done=False)
    return blockers.gates_failed("verify", failed, command.gates, hint)


def _shadow(at: Decision, command: Shadow) -> Transition | Refused:
    if not 0 <= command.sample <= WHOLE:
        return blockers.share_outside("the sample", command.sample)
    down = command.sample < at.routing.shadow
    version = at.candidate("shadow", "verified", "shadowing", "ramping", servers=not down, paused=down)
    if isinstance(version, Refused):
        return version
    states: dict[int, VersionState] = {version.id: "shadowing"} if version.state == "verified" else {}
    note = f"{command.sample / 100:g} % of the searches are also answered by {version.name!r}, unseen"
    return at.change("shadow", version.id, note, states=states, shadow=command.sample)


def _compare(at: Decision, command: Compare) -> Transition | Refused:
    version = at.candidate("compare", "verified", "shadowing", "ramping", servers=False, paused=True)
    if isinstance(version, Refused):
        return version
    refused = at.outlived(command.since)
    if refused is not None:
        return refused
    failed = blockers.failed(command.gates)
    note = f"{len(failed)} of {len(command.gates)} gates fail" if failed else "all gates pass"
    return at.note(
        "compare",
        version.id,
        note,
        gates=command.gates,
        figures=command.figures,
        thresholds=command.thresholds,
        done=not failed,
    )


def _ramp(at: Decision, command: Ramp) -> Transition | Refused:
    if not 0 <= command.share <= WHOLE:
        return blockers.share_outside("the ramp", command.share)
    # Fewer users on the candidate is always safe, whatever else is wrong.
    down = command.share <= at.routing.ramp
    version = at.candidate("ramp", "shadowing", "ramping", servers=not down, paused=down)
    if isinstance(version, Refused):
        return version
    note = f"{command.share / 100:g} % of the users read {version.name!r}, {at.routing.ramp / 100:g} % before"
    if down:
        states: dict[int, VersionState] = {} if command.share else {version.id: "shadowing"}
        return at.change("ramp", version.id, note, states=states, ramp=command.share)
    return at.forward("ramp", version, note, command.force, {version.id: "ramping"}, {"ramp": command.share})


def _cutover(at: Decision, command: Cutover) -> Transition | Refused:
    version = at.candidate("cutover", "ramping")
    if isinstance(version, Refused):
        return version
    return at.forward(
        "cutover",
        version,
        f"everybody reads {version.name!r}; {at.active.name!r} is still written",
        command.force,
        {version.id: "holding", at.active.id: "retired"},
        {"active": version.id, "candidate": None, "ramp": 0, "shadow": 0, "paused": False},
    )


def _rollback(at: Decision, command: Rollback) -> Transition | Refused:
    if at.running is None:
        return Refused(
            code="nothing_to_roll_back",
            message=f"no migration is running: {at.active.name!r} serves everybody, and what came before it has "
            "been dropped; to go back to another model, add it and migrate",
        )
    old = at.replaced() or at.active
    states: dict[int, VersionState] = {at.running.id: "draft"}
    if old.state == "retired":
        states[old.id] = "active"
    note = f"everybody reads {old.name!r} again" + (f": {command.reason}" if command.reason else "")
    return at.change(
        "rollback",
        at.running.id,
        note,
        states=states,
        active=old.id,
        candidate=None,
        ramp=0,
        shadow=0,
        paused=False,
        written=tuple(number for number in at.routing.written if number != at.running.id),
        units=tuple(unit for unit in at.routing.units if unit.version != at.running.id),
    )


def _contract(at: Decision, command: Contract) -> Transition | Refused:
    version = at.named(command.name)
    if isinstance(version, Refused):
        return version
    if version.state not in ("retired", "draft"):
        return at.wrong_state("contract", version, "retired, or a draft that was given up")
    refused = blockers.contract(version, at.running, command, at.routing, at.facts, at.now)
    if refused is not None:
        return refused
    states: dict[int, VersionState] = {version.id: "dropped"}
    if version.state == "retired" and at.running is not None:
        states[at.running.id] = "active"
    return at.change(
        "contract",
        version.id,
        f"the vectors of {version.name!r} are dropped",
        states=states,
        drops=version.id,
        written=tuple(number for number in at.routing.written if number != version.id),
        units=tuple(unit for unit in at.routing.units if unit.version != version.id),
    )


def _pause(at: Decision, command: Pause) -> Transition | Refused:
    version = at.candidate("pause", *RUNNING[:-1], servers=False, paused=True)
    if isinstance(version, Refused):
        return version
    if at.routing.paused:
        return Refused(code="paused", message="the migration is paused already: `resume` lets it go on")
    return at.change("pause", version.id, command.reason or "paused", paused=True)


def _resume(at: Decision, _: Resume) -> Transition | Refused:
    version = at.candidate("resume", *RUNNING[:-1], servers=False, paused=True)
    if isinstance(version, Refused):
        return version
    if not at.routing.paused:
        return Refused(code="not_paused", message="the migration is not paused: there is nothing to resume")
    return at.change("resume", version.id, "resumed", paused=False)


_COMMANDS: Final[dict[type, Callable[[Decision, Any], Transition | Refused]]] = {
    Add: _add,
    Estimate: _plan,
    Start: _start,
    Backfill: _backfill,
    Verify: _verify,
    Shadow: _shadow,
    Compare: _compare,
    Ramp: _ramp,
    Cutover: _cutover,
    Rollback: _rollback,
    Contract: _contract,
    Pause: _pause,
    Resume: _resume,
}
