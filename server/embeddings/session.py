"""The session in which an embedder works: one connection, which owns the locks on what it embeds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from server.database.connections import Database
from server.database.failures import unavailable
from server.database.round_trip import HotConnection
from server.errors import DatabaseUnavailable

ROLE: Final = "turnstone_worker"


@asynccontextmanager
async def session(database: Database) -> AsyncIterator[HotConnection]:
    """Hold one connection while the block runs; raises DatabaseUnavailable, also for what breaks in the block."""
    try:
        # What a crash takes of a batch it takes whole, progress and all, and it is made again: no commit need wait for
        # the disk, which the appends need.
        connection = await database.connect(ROLE, options="-c synchronous_commit=off")
        try:
            yield connection
        finally:
            await connection.close()
    except Exception as error:
        if not isinstance(error, DatabaseUnavailable) and (answer := unavailable(error)):
            raise answer from error
        raise
