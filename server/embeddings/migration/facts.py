"""What a step of a migration rests on beside the routing: which servers are alive, and what waits for its vectors."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.embeddings import relation_name
from schema.tables import server as table
from server.embeddings.lifecycle.facts import Facts, Rules, Server
from server.embeddings.lifecycle.records import Record
from server.embeddings.texts import TYPES
from server.operations import metrics

# Of conversations that are behind, their events with a text and without a vector. At most so many are looked at: more
# are too many whatever their number is.
_WAITING: Final = """
SELECT count(*) FROM (
    SELECT FROM conversation c
    LEFT JOIN embedding_progress p ON p.user_key = c.user_key AND p.conversation = c.id AND p.version = :version
    JOIN event e ON e.user_key = c.user_key AND e.conversation = c.id AND e.seq > coalesce(p.seq, 0)
        AND e.type = ANY (:types) AND e.erased_at IS NULL
    WHERE c.head > coalesce(p.seq, 0)
      AND NOT EXISTS (SELECT FROM {relation} v
            WHERE v.user_key = e.user_key AND v.conversation = e.conversation AND v.seq = e.seq)
      AND NOT EXISTS (SELECT FROM embedding_failure f WHERE f.user_key = e.user_key
            AND f.conversation = e.conversation AND f.version = :version AND f.seq = e.seq)
    LIMIT :most
) behind
"""


class Alive(NamedTuple):
    """A live server: what it runs and follows, and how busy it was in its last window, None when it has not said."""

    name: str
    release: str
    epoch: int
    started_at: datetime
    p99_ms: float | None
    requests: int
    waiting: int
    reading: int
    load_at: datetime | None


async def read(
    connection: AsyncConnection, history: tuple[Record, ...], waiting: int | None = None, *, rules: Rules
) -> Facts:
    """Return the facts of this moment; ``waiting`` was counted before, since that takes its time."""
    alive = await servers(connection)
    return Facts(
        release=metrics.release(),
        servers=tuple(Server(one.name, one.release, one.epoch) for one in alive),
        waiting=waiting,
        reading=sum(one.reading for one in alive),
        history=history,
        rules=rules,
    )


async def servers(connection: AsyncConnection) -> list[Alive]:
    """Return the servers whose lease has not run out, the oldest first."""
    query = sa.select(table).where(table.c.lease_until > sa.func.now()).order_by(table.c.started_at, table.c.id)
    return [
        Alive(
            f"{row.hostname}:{row.pid}",
            row.release,
            row.routing_epoch,
            row.started_at,
            row.p99_ms,
            row.requests,
            row.waiting,
            row.reading,
            row.load_at,
        )
        for row in await connection.execute(query)
    ]


async def waiting(connection: AsyncConnection, version: int, most: int) -> int:
    """Count the events that wait for a version's vector, dead letters apart, up to ``most``.

    ``connection``: the owner's, whom no policy keeps from any tenant.
    """
    query = sa.text(_WAITING.format(relation=relation_name(version)))
    values = {"version": version, "types": list(TYPES), "most": most}
    return int(await connection.scalar(query, values) or 0)
