"""From what the rules and the ledger know of a migration to what is sent of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC

from server.api.migration_shapes import (
    BackfillReply,
    DoneReply,
    GateReply,
    History,
    MigrationReply,
    RecordReply,
    RoutingReply,
    ServerReply,
    StepReply,
    VersionReply,
    WorkerReply,
)
from server.embeddings.lifecycle import facts
from server.embeddings.lifecycle.gates.gate import Gate
from server.embeddings.lifecycle.records import Record
from server.embeddings.lifecycle.routing import Routing
from server.embeddings.lifecycle.status import history
from server.embeddings.migration.control import Done, Shown
from server.embeddings.migration.facts import Alive
from server.embeddings.migration.ledger import Stored
from server.embeddings.versions import Version

PERCENT = 100  # basis points in one


def present_version(version: Version, known: facts.Version) -> VersionReply:
    """Return the wire form of a version."""
    return VersionReply(
        name=version.name,
        state=known.state,
        since=known.since.astimezone(UTC),
        provider=version.spec.provider,
        model=version.spec.model,
        revision=version.spec.revision,
        options=version.spec.options,
        dimensions=version.dimensions,
        query_prefix=version.spec.query_prefix,
        document_prefix=version.spec.document_prefix,
        text_builder=version.text_builder,
        fingerprint=version.fingerprint,
    )


def present_versions(stored: Stored) -> list[VersionReply]:
    """Return all versions, the oldest first."""
    return [present_version(stored.registered[known.id], known) for known in stored.versions]


def present_routing(routing: Routing, names: Mapping[int, str]) -> RoutingReply:
    """Return the wire form of the routing."""
    return RoutingReply(
        epoch=routing.epoch,
        active=names[routing.active],
        candidate=None if routing.candidate is None else names[routing.candidate],
        ramp=routing.ramp / PERCENT,
        shadow=routing.shadow / PERCENT,
        paused=routing.paused,
        written=[names[number] for number in routing.written],
    )


def present_record(record: Record, names: Mapping[int, str]) -> RecordReply:
    """Return the wire form of a line of the history."""
    return RecordReply(
        action=record.action,
        version=names[record.version],
        epoch=record.epoch,
        at=record.at.astimezone(UTC),
        who=record.who,
        note=record.note,
        done=record.done,
        forced=record.forced,
        gates=[present_gate(gate) for gate in record.gates],
        figures=record.figures,
        thresholds=record.thresholds,
    )


def present_gate(gate: Gate) -> GateReply:
    """Return the wire form of a gate; a figure that is no number has none."""
    value, limit = (None if one is None or one != one else one for one in (gate.value, gate.limit))
    return GateReply(name=gate.name, segment=gate.segment, outcome=gate.outcome, value=value, limit=limit, why=gate.why)


def present_history(stored: Stored, version: str | None, newest: int | None) -> History:
    """Return the history, of one version if that is asked for."""
    names = names_of(stored)
    number = next((known.id for known in stored.versions if known.name == version), 0) if version else None
    return History(data=[present_record(one, names) for one in history(stored.history, number, newest=newest)])


def present_done(done: Done, names: Mapping[int, str]) -> DoneReply:
    """Return the wire form of what a command has done."""
    return DoneReply(
        record=present_record(done.record, names),
        routing=present_routing(done.routing, names),
        behind=list(done.behind),
        dropped=done.dropped,
    )


def names_of(stored: Stored) -> dict[int, str]:
    """Return the versions' names by their ids."""
    return {known.id: known.name for known in stored.versions}


def present_migration(shown: Shown) -> MigrationReply:
    """Return the wire form of where everything stands."""
    status, names = shown.status, names_of(shown.stored)
    registered, found = shown.stored.registered, status.found
    return MigrationReply(
        routing=present_routing(status.routing, names),
        active=present_version(registered[status.active.id], status.active),
        running=None if status.running is None else present_version(registered[status.running.id], status.running),
        hint=status.hint,
        backfill=_backfill(shown),
        verified=None if found.verified is None else present_record(found.verified, names),
        compared=None if found.compared is None else present_record(found.compared, names),
        steps=[
            StepReply(
                command=command,
                allowed=refused is None,
                code=None if refused is None else refused.code,
                why=None if refused is None else refused.message,
            )
            for command, refused in status.refused.items()
        ],
        servers=[_server(one) for one in shown.servers],
    )


def _backfill(shown: Shown) -> BackfillReply | None:
    found = shown.backlog
    if found is None:
        return None
    return BackfillReply(
        events=found.events,
        waiting=found.waiting,
        conversations=found.conversations,
        dead=found.dead,
        rate=found.rate,
        seconds=found.seconds,
        workers=[
            WorkerReply(
                hostname=one.hostname,
                pid=one.pid,
                started_at=one.started_at.astimezone(UTC),
                embedded=one.embedded,
                rate=one.rate,
                duty=one.duty,
                why=one.why,
            )
            for one in found.workers
        ],
    )


def _server(one: Alive) -> ServerReply:
    return ServerReply(
        name=one.name,
        release=one.release,
        epoch=one.epoch,
        started_at=one.started_at.astimezone(UTC),
        p99_ms=one.p99_ms,
        requests=one.requests,
        waiting=one.waiting,
        reading=one.reading,
    )
