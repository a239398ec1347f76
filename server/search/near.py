"""The HNSW index of a version's vectors: built when a search first needs it, in the background, by the tables' owner.

It costs every insert, so nobody has it who does not search a whole tenant. A build that failed leaves an invalid index
behind, which PostgreSQL would keep up to date and never use: it is dropped before the next try.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import psycopg

from schema.embeddings import MAX_VECTOR, relation_name
from server.database.address import Address
from server.embeddings.versions import Version

logger = logging.getLogger(__name__)

# Fewer vectors than this are looked at one by one in less time than a request takes otherwise.
THRESHOLD: Final = 20_000
# Twice pgvector's own links, three times its candidates: recall before build time and size. Of 110,000 vectors of the
# static model, which lie close together, m = 16 finds .953 of the ten nearest, 24 finds .980, 32 finds .996.
_M: Final = 32
_EF_CONSTRUCTION: Final = 200
_LOCK: Final = 0x7475726E_6E656172  # "turnnear": one build at a time in a database
_AGAIN: Final = 600.0  # seconds until a build that failed is tried again


def index_name(version: int) -> str:
    """Return the name of a version's index."""
    return f"{relation_name(version)}_hnsw"


class Builder:
    """Builds indexes for one process."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._task: asyncio.Task[None] | None = None
        self._not_before = 0.0

    def want(self, version: Version) -> None:
        """Have the index, if there are enough vectors for it; returns at once."""
        loop = asyncio.get_running_loop()
        if (self._task is None or self._task.done()) and loop.time() >= self._not_before:
            self._not_before = loop.time() + _AGAIN
            self._task = asyncio.create_task(self._build(version), name="build hnsw")

    async def drain(self) -> None:
        """Give up a build that is under way; another server, or the next start, begins it again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _build(self, version: Version) -> None:
        try:
            async with await psycopg.AsyncConnection.connect(
                self._address.conninfo("turnstone_owner"), autocommit=True
            ) as connection:
                await build(connection, version)
        except psycopg.Error as error:
            logger.warning("the HNSW index of %s could not be built: %s", version.name, str(error).strip())


async def build(connection: psycopg.AsyncConnection, version: Version, *, threshold: int = THRESHOLD) -> bool:
    """Build a version's index unless it is there and valid, or another server builds it; returns whether it did.

    ``connection``: the tables' owner's, in autocommit. Raises psycopg.Error.
    """
    relation, name = relation_name(version.id), index_name(version.id)
    cursor = await connection.execute(
        """
        SELECT pg_try_advisory_lock(%s), greatest(c.reltuples, c.relpages * 4),
            (SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass(%s))
        FROM pg_class c WHERE c.oid = to_regclass(%s)
        """,
        (_LOCK, name, relation),
    )
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return False
    _, about, valid = row
    try:
        if valid or about < threshold:
            return False
        if valid is False:
            await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        operators = "vector_cosine_ops" if version.dimensions <= MAX_VECTOR else "halfvec_cosine_ops"
        logger.info("building the HNSW index of %s over about %d vectors", version.name, about)
        await connection.execute("SET maintenance_work_mem = '256MB'")
        await connection.execute(
            f"CREATE INDEX CONCURRENTLY {name} ON {relation} USING hnsw (embedding {operators}) "
            f"WITH (m = {_M}, ef_construction = {_EF_CONSTRUCTION})".encode()
        )
        logger.info("the HNSW index of %s is built", version.name)
        return True
    finally:
        await connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
