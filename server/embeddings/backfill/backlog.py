"""How much of the log a version lacks, and who is at work on that."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

import sqlalchemy as sa

from server.database.connections import Database
from server.embeddings.session import ROLE
from server.log.retention import tenants

# What is younger than this the servers embed by themselves, as they do for every version that is written.
_FRESH: Final = 5.0  # seconds
_SEEN: Final = 15.0  # seconds: a worker that has not said anything for so long is dead

# A fork's own events begin after what it shares.
_BEHIND: Final = """
    FROM conversation c
    LEFT JOIN embedding_progress p ON p.user_key = c.user_key AND p.conversation = c.id AND p.version = :version
        AND p.tenant_id = :tenant
    CROSS JOIN LATERAL (
        SELECT greatest(coalesce(p.seq, 0), coalesce(c.lineage_end[cardinality(c.lineage_end)], 0)) AS seq
    ) done
    WHERE c.tenant_id = :tenant
"""
_COUNT: Final = sa.text(
    f"""
    SELECT count(*) FILTER (WHERE c.head > done.seq) AS conversations,
        coalesce(sum(c.head - coalesce(c.lineage_end[cardinality(c.lineage_end)], 0)), 0)::bigint AS events,
        coalesce(sum(greatest(c.head - done.seq, 0)), 0)::bigint AS waiting,
        (SELECT count(*) FROM embedding_failure f WHERE f.tenant_id = :tenant AND f.version = :version) AS dead
    {_BEHIND}
    """  # noqa: S608 - constants
)
_OVERDUE: Final = sa.text(
    f"""
    SELECT EXISTS (
        SELECT {_BEHIND} AND c.head > coalesce(p.seq, 0)
          AND coalesce((
            SELECT e.recorded_at FROM event e
            WHERE e.user_key = c.user_key AND e.conversation = c.id AND e.tenant_id = :tenant AND e.seq > done.seq
            ORDER BY e.seq LIMIT 1
          ), '-infinity') < now() - make_interval(secs => :fresh)
    )
    """  # noqa: S608 - constants
)
_WORKERS: Final = sa.text(
    """
    SELECT hostname, pid, started_at, embedded, rate, duty, why FROM embedding_worker
    WHERE version = :version AND seen_at > now() - make_interval(secs => :seen) ORDER BY started_at
    """
)


class Worker(NamedTuple):
    """One worker that is alive: ``rate`` in events a second, ``duty`` the share of its time that it may work."""

    hostname: str
    pid: int
    started_at: datetime
    embedded: int
    rate: float
    duty: float
    why: str


class Backlog(NamedTuple):
    """Of all tenants: ``events`` of the log, of which ``waiting`` (in ``conversations``) were not looked at yet.

    ``dead``: dead letters.
    """

    events: int
    waiting: int
    conversations: int
    dead: int
    workers: tuple[Worker, ...] = ()

    @property
    def rate(self) -> float:
        """Events a second, of all workers."""
        return sum(worker.rate for worker in self.workers)

    @property
    def seconds(self) -> float | None:
        """How long it will take at this rate; None while nothing moves."""
        return self.waiting / self.rate if self.rate > 0 else None


async def read(database: Database, version: int) -> Backlog:
    """Count what a version lacks. 100,000 conversations take about 0.1 s. Raises DatabaseUnavailable."""
    events = waiting = conversations = dead = 0
    for tenant in await tenants(database):
        async with database.transaction(tenant, role=ROLE) as connection:
            row = (await connection.execute(_COUNT, {"tenant": tenant.id, "version": version})).one()
        events += row.events
        waiting += row.waiting
        conversations += row.conversations
        dead += row.dead
    async with database.transaction(None, role=ROLE) as connection:
        rows = (await connection.execute(_WORKERS, {"version": version, "seen": _SEEN})).all()
    return Backlog(events, waiting, conversations, dead, tuple(Worker(*row) for row in rows))


async def overdue(database: Database, version: int) -> bool:
    """Whether a version lacks what no server embeds by itself. Raises DatabaseUnavailable."""
    for tenant in await tenants(database):
        async with database.transaction(tenant, role=ROLE) as connection:
            values = {"tenant": tenant.id, "version": version, "fresh": _FRESH}
            if await connection.scalar(_OVERDUE, values):
                return True
    return False
