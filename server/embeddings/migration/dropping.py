"""Drops the relations of versions that were given up for good, once no live server writes them.

The version's state is changed first, in a transaction of its own. So a crash in between leaves a dropped version with a
relation, which any server finds when it looks at the routing, and drops.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

import sqlalchemy as sa

from schema.embeddings import relation_name
from schema.tables import embedding_failure, embedding_progress
from server.database.connections import Database
from server.database.upgrade import staying_secured, try_schema_lock
from server.errors import DatabaseUnavailable
from server.log.erase import RELATIONS_LOCK

logger = logging.getLogger(__name__)

OWNER: Final = "turnstone_owner"
_AGAIN: Final = 0.1  # seconds
_FOUND: Final = sa.text(
    """
    SELECT v.id FROM embedding_version v
    WHERE v.state = 'dropped' AND to_regclass('embedding_v' || v.id) IS NOT NULL ORDER BY v.id
    """
)
_FOLLOWED: Final = sa.text(
    """
    SELECT coalesce(min(routing_epoch), 9223372036854775807) >= (SELECT epoch FROM embedding_routing)
    FROM server WHERE lease_until > now()
    """
)


async def drop_relations(database: Database, *, timeout: float = 60.0) -> bool:  # noqa: ASYNC109
    """Drop what dropped versions have left; returns whether nothing is left. Raises DatabaseUnavailable.

    Waits up to ``timeout`` seconds for the live servers to follow, for erasures to end, and for the locks.
    """
    deadline = time.monotonic() + timeout
    while True:
        left = False
        for version in await _found(database):
            left |= not await _drop(database, version)
        if not left:
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_AGAIN)


async def _found(database: Database) -> list[int]:
    async with database.transaction(None, role=OWNER) as connection:
        return list((await connection.scalars(_FOUND)).all())


async def _drop(database: Database, version: int) -> bool:
    try:
        async with database.transaction(None, role=OWNER) as connection:
            if not await connection.scalar(_FOLLOWED) or not await connection.run_sync(_alone):
                return False
            await connection.run_sync(_drop_relation, version)
            for table in (embedding_progress, embedding_failure):
                await connection.execute(sa.delete(table).where(table.c.version == version))
    except DatabaseUnavailable as error:
        logger.debug("the vectors of version %d cannot be dropped yet: %s", version, error)
        return False
    logger.info("the vectors of version %d are dropped", version)
    return True


def _alone(connection: sa.Connection) -> bool:
    """Whether no upgrade and no erasure is under way: each of them names every relation that there is."""
    erasing = sa.select(sa.func.pg_try_advisory_xact_lock(RELATIONS_LOCK))
    return try_schema_lock(connection) and bool(connection.scalar(erasing))


def _drop_relation(connection: sa.Connection, version: int) -> None:
    # Gives up at once rather than let every read of the relation queue behind it.
    connection.execute(sa.text("SET LOCAL lock_timeout = '200ms'"))
    with staying_secured(connection):
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {relation_name(version)}"))
