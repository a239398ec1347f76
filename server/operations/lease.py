"""This process's row in the ``server`` table, kept alive while it runs.

A migration step waits for every server whose lease has not run out; one that was killed is taken for dead after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert

from schema.tables import server
from server.database.connections import Database
from server.database.ids import uuid7
from server.errors import DatabaseUnavailable
from server.operations import metrics

logger = logging.getLogger(__name__)

RENEW_EVERY = 5.0  # seconds
LEASE = timedelta(seconds=15)
_FORGET = timedelta(hours=1)  # the dead are kept this long, so that doctor can tell of them


@contextlib.asynccontextmanager
async def lease(database: Database, identity: UUID | None = None) -> AsyncIterator[UUID]:
    """Hold a lease while the block runs, and release it at the end; the database may be down meanwhile."""
    identity = identity or uuid7()
    task = asyncio.create_task(_keep(database, identity), name="lease")
    try:
        yield identity
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with contextlib.suppress(DatabaseUnavailable):
            await release(database, identity)


async def renew(database: Database, identity: UUID) -> None:
    """Write the row, or extend its lease; the clock is the database's. Raises DatabaseUnavailable."""
    until = func.now() + LEASE
    statement = insert(server).values(
        id=identity, hostname=socket.gethostname(), pid=os.getpid(), release=metrics.release(), lease_until=until
    )
    async with database.transaction(None) as connection:
        await connection.execute(
            statement.on_conflict_do_update(index_elements=[server.c.id], set_={"lease_until": until})
        )


async def release(database: Database, identity: UUID) -> None:
    """Remove the row. Raises DatabaseUnavailable."""
    async with database.transaction(None) as connection:
        await connection.execute(server.delete().where(server.c.id == identity))


async def forget_dead(database: Database) -> None:
    """Remove the rows of servers that have long been dead. Raises DatabaseUnavailable."""
    async with database.transaction(None) as connection:
        await connection.execute(server.delete().where(server.c.lease_until < func.now() - _FORGET))


async def _keep(database: Database, identity: UUID) -> None:
    held = False
    forgot = False
    while True:
        metrics.observe_process(database)
        try:
            await renew(database, identity)
            if not held:
                logger.debug("holding the lease %s", identity)
            held = True
            if not forgot:
                await forget_dead(database)
                forgot = True
        except DatabaseUnavailable as error:
            if held or not forgot:
                logger.warning("the server lease cannot be renewed: %s", error.message)
            held = False
        await asyncio.sleep(RENEW_EVERY)
