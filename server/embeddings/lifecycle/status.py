"""Where a migration stands, and what may come next: for `turnstone embeddings status`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from server.embeddings.lifecycle.blockers import NEXT
from server.embeddings.lifecycle.commands import (
    Backfill,
    Command,
    Contract,
    Cutover,
    Pause,
    Ramp,
    Resume,
    Rollback,
    Shadow,
)
from server.embeddings.lifecycle.decision import RUNNING
from server.embeddings.lifecycle.facts import Facts, Version
from server.embeddings.lifecycle.records import Evidence, Record, Refused, evidence
from server.embeddings.lifecycle.routing import WHOLE, Routing
from server.embeddings.lifecycle.states import decide


class Status(NamedTuple):
    """``running``: the version that is being migrated to. ``refused``: by command, why it may not come next, else None.

    ``found``: its newest verification and comparison. ``hint``: what an operator would do next.
    """

    routing: Routing
    active: Version
    running: Version | None
    found: Evidence
    refused: dict[str, Refused | None]
    hint: str


def status(routing: Routing, versions: Iterable[Version], facts: Facts, now: datetime) -> Status:
    """Say where the migration stands. It changes nothing, and asks the same rules that the commands do."""
    known = {version.id: version for version in versions}
    running = next((version for version in known.values() if version.state in RUNNING), None)
    retired = next((version for version in known.values() if version.state == "retired"), None)
    commands: dict[str, Command] = {
        "backfill": Backfill(),
        "shadow": Shadow(sample=routing.shadow),
        "ramp": Ramp(share=WHOLE),
        "cutover": Cutover(),
        "rollback": Rollback(),
        "pause": Pause(),
        "resume": Resume(),
    }
    if retired is not None:
        commands["contract"] = Contract(name=retired.name, typed=retired.name)
    refused: dict[str, Refused | None] = {}
    for name, command in commands.items():
        answer = decide(routing, known.values(), command, facts, now, "")
        refused[name] = answer if isinstance(answer, Refused) else None
    hint = "`add` a version, then `start` it" if running is None else NEXT[running.state]
    found = evidence(facts.history, running.id) if running is not None else Evidence(None, None)
    return Status(routing, known[routing.active], running, found, refused, hint)


def history(records: Sequence[Record], version: int | None = None, *, newest: int | None = None) -> list[Record]:
    """Return the history, oldest first: of one version, and only the newest records, if that is asked for."""
    chosen = [record for record in records if version is None or record.version == version]
    return chosen if newest is None else chosen[max(0, len(chosen) - newest) :]
