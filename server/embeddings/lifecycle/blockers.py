"""What stands in the way of a command, beyond the state: servers, gates, stale evidence, the grace period."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from msgspec import structs

from schema.vocabulary import VersionState
from server.embeddings.lifecycle.commands import Contract
from server.embeddings.lifecycle.facts import Facts, Version
from server.embeddings.lifecycle.gates.gate import Gate
from server.embeddings.lifecycle.records import Evidence, Record, Refused
from server.embeddings.lifecycle.routing import WHOLE, Routing

HOUR: Final = timedelta(hours=1)
NEXT: Final[dict[VersionState, str]] = {
    "draft": "`start` it",
    "writing": "`backfill` comes next",
    "backfilling": "let the backfill end, then `verify`",
    "verified": "`shadow` comes next",
    "shadowing": "`compare`, then `ramp`",
    "ramping": "`ramp` further, or `cutover`",
    "holding": "`contract` ends the migration once the grace period is over, `rollback` undoes it",
    "active": "it serves everybody",
    "retired": "`contract` drops it",
    "dropped": "it is gone; `add` the model again under another name",
}


def servers(routing: Routing, facts: Facts) -> Refused | None:
    """Refuse while a live server runs another release, or does not follow the routing yet."""
    others = [one for one in facts.servers if one.release != facts.release]
    if others:
        named = ", ".join(f"{one.name} ({one.release})" for one in others)
        return Refused(
            code="mixed_releases",
            message=f"servers of another release than {facts.release} are alive: {named}; they may not know what this "
            "step asks of them. Finish the deployment, or wait 15 seconds after stopping them",
        )
    behind = [one for one in facts.servers if one.epoch < routing.epoch]
    if behind:
        named = ", ".join(f"{one.name} (epoch {one.epoch})" for one in behind)
        return Refused(
            code="servers_behind",
            message=f"the routing is at epoch {routing.epoch}, and not all live servers follow it yet: {named}. They "
            "do within a second; one that is stuck must be stopped",
        )
    return None


def failed(gates: Iterable[Gate]) -> list[Gate]:
    """Return the gates that fail; one that warns does not."""
    return [gate for gate in gates if gate.outcome == "fail"]


def judged(found: Evidence) -> tuple[Gate, ...]:
    """Return all gates that the newest verification and comparison give."""
    records = (found.verified, found.compared)
    return tuple(gate for record in records if record is not None for gate in record.gates)


def gates_failed(action: str, record: Record, gates: Iterable[Gate], hint: str = "") -> Refused:
    """Refuse for gates, naming each with its reason."""
    reasons = "; ".join(f"{gate.title}: {gate.why}" for gate in failed(gates))
    return Refused(code="gates_failed", message=f"`{action}` is refused. {reasons}{hint}", record=record)


def forward(routing: Routing, found: Evidence, facts: Facts, now: datetime, record: Record) -> Refused | None:
    """Refuse to let more users read the candidate. ``record``: of the attempt, with the reason it is forced for.

    No reason overrides what makes answers incomplete: a verification that is missing or failed, events that wait. It
    overrides a comparison, which says how good the answers are.
    """
    refused = structs.replace(record, epoch=routing.epoch, done=False, note=f"{record.action} was refused")
    hint = "; or give a reason with --force, which is kept in the history"
    if record.forced is not None and not record.forced.strip():
        return Refused(code="reason_missing", message="--force wants a reason, which is kept in the history")
    if found.verified is None:
        return Refused(
            code="not_verified",
            message="the candidate was not verified since its last backfill: run `verify`; --force does not replace it",
        )
    if failed(found.verified.gates):
        return gates_failed(record.action, refused, found.verified.gates, "; --force does not replace a verification")
    if facts.waiting is None or facts.waiting > facts.rules.waiting:
        count = "an unknown number of" if facts.waiting is None else f"{facts.waiting:,}"
        return Refused(
            code="candidate_behind",
            message=f"{count} events wait for the candidate's vectors, {facts.rules.waiting:,} may: see whether its "
            "provider answers, and let it catch up",
        )
    if record.forced is not None:
        return None
    if found.compared is None:
        return Refused(
            code="not_compared", message=f"the candidate was not compared in this migration: run `compare`{hint}"
        )
    for name, one in (("verification", found.verified), ("comparison", found.compared)):
        if now - one.at > facts.rules.evidence_age:
            return Refused(
                code="stale_evidence",
                message=f"the last {name} is of {one.at:%Y-%m-%d %H:%M}, older than {facts.rules.evidence_age}: "
                f"run it again{hint}",
            )
    if failed(found.compared.gates):
        return gates_failed(record.action, refused, found.compared.gates, hint)
    unknown = sorted(routing.unit(routing.active).thresholds.keys() - found.compared.thresholds.keys())
    if unknown:
        return Refused(
            code="threshold_unknown",
            message=f"the comparison found no value for {', '.join(unknown)} on the candidate's scale: shadow more "
            f"searches and `compare` again{hint}",
        )
    return None


def contract(
    version: Version, running: Version | None, command: Contract, routing: Routing, facts: Facts, now: datetime
) -> Refused | None:
    """Refuse to drop a version: unconfirmed, too early, or while anything reads it."""
    if command.typed != version.name:
        return Refused(
            code="name_not_typed",
            message=f"this drops every vector of {version.name!r} and cannot be undone: type its name to confirm; "
            f"{command.typed!r} was typed",
        )
    if version.state == "retired" and running is not None:
        left = running.since + facts.rules.grace - now
        if left.total_seconds() > 0:
            return Refused(
                code="grace_period",
                message=f"{running.name!r} serves since {running.since:%Y-%m-%d %H:%M}: {version.name!r} is kept for "
                f"{facts.rules.grace / HOUR:g} hours, for {left / HOUR:.1f} more, so that `rollback` works",
            )
    if facts.reading:
        return Refused(
            code="still_read", message=f"{facts.reading} requests still read {version.name!r}: try again in a moment"
        )
    return servers(routing, facts)


def share_outside(what: str, share: int) -> Refused:
    """Refuse a share that is none."""
    return Refused(
        code="share_outside", message=f"{what} is {share / 100:g} %: give a share from 0 to {WHOLE // 100} %"
    )
