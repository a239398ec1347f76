"""A worker's own row, which says how fast it works and why it waits; and what it must know, in the same look."""

from __future__ import annotations

import os
import socket
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from server.database.connections import Database
from server.database.ids import uuid7
from server.embeddings.backfill.pacing import Load
from server.embeddings.session import ROLE

_LONGEST: Final = 500  # characters of the reason
_STALE: Final = 15.0  # seconds until what a server said of its load is no longer believed

_SAY: Final = sa.text(
    """
    INSERT INTO embedding_worker (id, version, hostname, pid, embedded, rate, duty, quiet_ms, why)
    VALUES (:id, :version, :hostname, :pid, :embedded, :rate, :duty, :quiet, :why)
    ON CONFLICT (id) DO UPDATE SET version = :version, seen_at = now(), embedded = :embedded, rate = :rate,
        duty = :duty, quiet_ms = :quiet, why = :why
    """
).bindparams(sa.bindparam("id", type_=sa.Uuid))
_GONE: Final = sa.text("DELETE FROM embedding_worker WHERE id = :id OR seen_at < now() - interval '1 hour'").bindparams(
    sa.bindparam("id", type_=sa.Uuid)
)
_WANTED: Final = sa.text(
    """
    SELECT v.id FROM embedding_routing r JOIN embedding_version v ON v.id = r.candidate
    WHERE v.state = 'backfilling' AND NOT r.paused
    """
)
_LOADS: Final = sa.text(
    """
    SELECT p99_ms, requests, waiting, load_at FROM server
    WHERE lease_until > now() AND load_at > now() - make_interval(secs => :stale)
    """
)
# A worker that comes later, or anew, would take for quiet what this backfill makes of the server.
_QUIET: Final = sa.text(
    "SELECT min(quiet_ms) FROM embedding_worker WHERE version = :version AND seen_at > now() - interval '10 minutes'"
)


class Seen(NamedTuple):
    """``wanted``: the version to be backfilled now. ``at``: when a server last said something of its load."""

    wanted: int | None
    loads: list[Load]
    at: datetime | None


class Said(NamedTuple):
    """What a worker says of itself."""

    version: int
    embedded: int
    rate: float
    duty: float
    quiet: float | None
    why: str


class Row:
    """The row of one worker."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._id: Final[UUID] = uuid7()

    async def look(self) -> Seen:
        """Learn what is to be done, and how live requests fare. Raises DatabaseUnavailable."""
        async with self._database.transaction(None, role=ROLE) as connection:
            wanted = await connection.scalar(_WANTED)
            rows = (await connection.execute(_LOADS, {"stale": _STALE})).all()
        loads = [Load(row.p99_ms, row.requests, row.waiting) for row in rows]
        return Seen(wanted, loads, max((row.load_at for row in rows), default=None))

    async def quiet(self, version: int) -> float | None:
        """Return the p99 that was quiet to a worker before this one, if there was one lately."""
        async with self._database.transaction(None, role=ROLE) as connection:
            found: float | None = await connection.scalar(_QUIET, {"version": version})
        return found

    async def say(self, said: Said) -> None:
        """Write the row. Raises DatabaseUnavailable."""
        values: dict[str, Any] = said._asdict() | {"why": said.why[:_LONGEST]}
        values |= {"id": self._id, "hostname": socket.gethostname(), "pid": os.getpid()}
        async with self._database.transaction(None, role=ROLE) as connection:
            await connection.execute(_SAY, values)

    async def remove(self) -> None:
        """Remove the row, and those of workers that were killed long ago. Raises DatabaseUnavailable."""
        async with self._database.transaction(None, role=ROLE) as connection:
            await connection.execute(_GONE, {"id": self._id})
