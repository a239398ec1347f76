"""Keeps a worker running beside a server, as long as there is something to backfill."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec
import psycopg

from server.database.connections import Database
from server.embeddings.backfill.backlog import overdue
from server.embeddings.backfill.finishing import to_its_end
from server.embeddings.backfill.orders import ROLES, Orders
from server.embeddings.session import session
from server.embeddings.versions import Registered
from server.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

_LOOK: Final = 2.0  # seconds
_AGAIN: Final = 10.0  # seconds until a worker that failed is started again
_PATIENCE: Final = 5.0  # seconds that a worker may take to end


class KeptBackfill:
    """One for each server process; of those on one machine, one at a time has a worker.

    ``registered``: what the process follows. The worker ends by itself when nothing is left, and on `pause`.
    """

    def __init__(
        self,
        database: Database,
        registered: Callable[[], Registered],
        *,
        key: str | None,
        log_level: str,
        log_format: str,
    ) -> None:
        self._database = database
        self._registered = registered
        self._key = key
        self._log = log_level, log_format

    async def run(self) -> None:
        """Start a worker whenever one is wanted, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK)
            version = self._wanted()
            if version is None:
                continue
            try:
                await self._keep(version)
            except (DatabaseUnavailable, psycopg.Error, OSError) as error:
                logger.debug("the backfill cannot be kept running: %s", error)

    def _wanted(self) -> int | None:
        registered = self._registered()
        routing = registered.routing
        if routing is None or routing.candidate is None or routing.paused:
            return None
        return routing.candidate if registered.versions[routing.candidate].state == "backfilling" else None

    async def _keep(self, version: int) -> None:
        """Run one worker to its end, unless another process of this machine does, or there is nothing to do."""
        # The lock is the session's: it goes with this process, however that ends.
        async with session(self._database) as connection:
            cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (_lock_number(),))
            row = await cursor.fetchone()
            if row is None or not row[0] or not await to_its_end(overdue(self._database, version)):
                return
            logger.info("starting a backfill worker")
            status = await self._work()
        if status:
            logger.error("the backfill worker ended with status %d; starting another", status)
            await asyncio.sleep(_AGAIN)

    async def _work(self) -> int:
        conninfo = {role: self._database.address.conninfo(role) for role in ROLES}
        orders = Orders(conninfo, self._key, *self._log)
        # Its figures are in its row; in the servers' directory of metrics they would outlive it.
        environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "server.embeddings.backfill",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # the terminal's Ctrl-C is the server's to pass on
        )
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it died already: its status says so
                process.stdin.write(msgspec.json.encode(orders) + b"\n")
                await process.stdin.drain()
            return await process.wait()
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_PATIENCE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _lock_number() -> int:
    host = socket.gethostname().encode()
    return int.from_bytes(hashlib.blake2b(host, digest_size=8, person=b"backfill").digest(), signed=True)
