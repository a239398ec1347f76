"""What one decision is taken on, and the ways in which it can end: a change, a line of history, a refusal."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from msgspec import structs

from schema.vocabulary import VersionState
from server.embeddings.lifecycle import blockers
from server.embeddings.lifecycle.facts import Facts, Version
from server.embeddings.lifecycle.gates.gate import Gate
from server.embeddings.lifecycle.records import Action, Record, Refused, Transition, evidence
from server.embeddings.lifecycle.routing import Routing

RUNNING: Final[tuple[VersionState, ...]] = ("writing", "backfilling", "verified", "shadowing", "ramping", "holding")


class Decision:
    """The routing, the versions by id, the facts; ``running``: the version that is being migrated to."""

    def __init__(self, routing: Routing, versions: Iterable[Version], facts: Facts, now: datetime, who: str) -> None:
        self.routing = routing
        self.versions = {version.id: version for version in versions}
        self.facts = facts
        self.now = now
        self.who = who
        self.running = next((one for one in self.versions.values() if one.state in RUNNING), None)
        self.active = self.versions[routing.active]

    def forward(
        self,
        action: Action,
        version: Version,
        note: str,
        force: str | None,
        states: dict[int, VersionState],
        change: dict[str, Any],
    ) -> Transition | Refused:
        """Let more users read the candidate, if the evidence says so, with the thresholds that it found."""
        found = evidence(self.facts.history, version.id)
        gates, thresholds = blockers.judged(found), found.compared.thresholds if found.compared else {}
        record = self.record(action, version.id, note, gates=gates, forced=force, thresholds=thresholds)
        refused = blockers.forward(self.routing, found, self.facts, self.now, record)
        if refused is not None:
            return refused
        units = tuple(
            structs.replace(unit, thresholds=unit.thresholds | thresholds) if unit.version == version.id else unit
            for unit in self.routing.units
        )
        return self.move(record, states, units=units, **change)

    def outlived(self, since: int) -> Refused | None:
        """Refuse figures whose measuring began before this migration did."""
        begun = [one.epoch for one in self.facts.history if one.action in ("start", "rollback")]
        if not begun or since >= begun[-1]:
            return None
        return Refused(
            code="measured_before",
            message=f"the figures were measured from epoch {since} on, and this migration began at epoch {begun[-1]}: "
            "measure again",
        )

    def named(self, name: str) -> Version | Refused:
        """Return the version of a name."""
        found = next((version for version in self.versions.values() if version.name == name), None)
        if found is not None:
            return found
        known = ", ".join(repr(version.name) for version in self.versions.values())
        return Refused(code="no_such_version", message=f"no version is named {name!r}; there are {known}")

    def candidate(
        self, action: Action, *states: VersionState, servers: bool = True, paused: bool = False
    ) -> Version | Refused:
        """Return the candidate if it is in one of the states. ``servers``: all must follow; ``paused``: also then."""
        if self.running is None:
            return Refused(
                code="no_migration", message=f"no migration is running: `start` one before you {action} anything"
            )
        if self.running.state not in states:
            return self.wrong_state(action, self.running, " or ".join(states))
        if self.routing.paused and not paused:
            return Refused(code="paused", message=f"the migration is paused: `resume` it before you {action}")
        return (blockers.servers(self.routing, self.facts) if servers else None) or self.running

    def replaced(self) -> Version | None:
        """Return the version that served before the cutover, between that and `contract`."""
        return next((version for version in self.versions.values() if version.state == "retired"), None)

    def wrong_state(self, action: Action, version: Version, wanted: str) -> Refused:
        """Refuse a command that does not fit a version's state, and say which one would."""
        return Refused(
            code="wrong_state",
            message=f"`{action}` needs {wanted}, and {version.name!r} is {version.state}: "
            f"{blockers.NEXT[version.state]}",
        )

    def note(self, action: Action, version: int, note: str, **fields: Any) -> Transition:
        """Keep a line of history, and change nothing."""
        record = self.record(action, version, note, **fields)
        return Transition(
            from_epoch=self.routing.epoch,
            routing=self.routing,
            record=structs.replace(record, epoch=self.routing.epoch),
        )

    def change(
        self,
        action: Action,
        version: int,
        note: str,
        *,
        states: dict[int, VersionState] | None = None,
        creates: int | None = None,
        drops: int | None = None,
        **routing: Any,
    ) -> Transition:
        """Change fields of the routing, and states; raises the epoch."""
        record = self.record(action, version, note)
        return self.move(record, states or {}, creates=creates, drops=drops, **routing)

    def move(
        self,
        record: Record,
        states: dict[int, VersionState],
        *,
        creates: int | None = None,
        drops: int | None = None,
        **routing: Any,
    ) -> Transition:
        """Change what `change` does, with a record that is made already."""
        changed = structs.replace(self.routing, epoch=self.routing.epoch + 1, **routing)
        return Transition(
            from_epoch=self.routing.epoch, routing=changed, states=states, record=record, creates=creates, drops=drops
        )

    def record(self, action: Action, version: int, note: str, *, gates: tuple[Gate, ...] = (), **fields: Any) -> Record:
        """Make the line of history of a change."""
        return Record(
            action=action,
            version=version,
            epoch=self.routing.epoch + 1,
            at=self.now,
            who=self.who,
            note=note,
            gates=gates,
            **fields,
        )
