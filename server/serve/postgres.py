"""Keeps the embedded database running while the server serves."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time

from server.database.embedded import EmbeddedPostgres
from server.errors import TurnstoneError

logger = logging.getLogger(__name__)

_LOOK_EVERY = 0.1  # seconds
_LONGEST_PAUSE = 10.0  # seconds between two attempts to start it again


class KeptPostgres:
    """Starts the database and starts it again whenever it ends by itself; meanwhile requests are answered with 503."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="postgres-keeper", daemon=True)

    def start(self) -> None:
        """Start the database; raises DatabaseError when this first start fails."""
        self._postgres.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop the database and wait for it; harmless when it was never started."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._postgres.stop()

    def hurry(self) -> None:
        """Make a stop (or a start) that is under way end at once; the next start recovers from the log."""
        pid = self._postgres.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)

    def _keep(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause or _LOOK_EVERY):
            if self._postgres.running():
                pause = 0.0
                continue
            logger.error(
                "PostgreSQL ended by itself; starting it again (its log: %s)", self._postgres.data_dir / "postgres.log"
            )
            began = time.monotonic()
            try:
                self._postgres.start()
            except TurnstoneError as error:
                pause = min(_LONGEST_PAUSE, max(0.5, pause * 2))
                logger.error("PostgreSQL does not start; trying again in %.1f s: %s", pause, error.message)
            else:
                logger.warning("PostgreSQL serves again after %.1f s", time.monotonic() - began)
