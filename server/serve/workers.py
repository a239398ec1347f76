"""Several server processes that share one listening socket; one that dies is replaced."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from prometheus_client import multiprocess

from server.database.address import Address
from server.errors import TurnstoneError
from server.serve.signals import StopSignals
from server.serve.sockets import listen
from server.serve.worker import READY, Orders, encode
from server.settings import Settings

logger = logging.getLogger(__name__)

# A server creates no roles; tables only by an operator's command, for an embedding version and its index.
ROLES = ("turnstone_runtime", "turnstone_worker", "turnstone_eraser", "turnstone_owner")
_LOOK_EVERY = 0.2  # seconds
_EARLY_DEATH = 2.0  # seconds; a worker that ends sooner than this is not replaced at once


class Workers:
    """The processes, by their place from 0 to ``settings.workers`` - 1."""

    def __init__(self, settings: Settings, address: Address, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._address = address
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[int, float] = {}
        self._metrics = tempfile.mkdtemp(prefix="turnstone-metrics-")
        self._stops: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._serving = False

    def run(self, signals: StopSignals, ready: Callable[[], None]) -> None:
        """Serve until told to stop; the first stop is graceful, the second ends the processes at once."""
        with signals.handled_by(self._asked_to_stop):
            try:
                listen(self._listener)
                for place in range(self._settings.workers):
                    self._start(place)
                self._await_ready()
                if self._stops.empty():
                    self._serving = True
                    ready()
                    self._watch()
            finally:
                self._stop()
                shutil.rmtree(self._metrics, ignore_errors=True)

    def _start(self, place: int) -> None:
        listener = self._listener.fileno()
        conninfo = {role: self._address.conninfo(role) for role in ROLES}
        process = subprocess.Popen(
            [sys.executable, "-m", "server.serve.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[listener],
            # A directory that is read when prometheus_client is imported, so it cannot be handed over later.
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": self._metrics},
            start_new_session=True,  # the terminal's Ctrl-C is the supervisor's to pass on
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died already: the watch sees that
            process.stdin.write(encode(Orders(self._settings, conninfo, listener)))
            process.stdin.flush()
        self._processes[place] = process
        self._started[place] = time.monotonic()

    def _asked_to_stop(self) -> None:
        self._stops.put(None)
        if not self._serving:
            for process in self._processes.values():
                process.terminate()

    def _await_ready(self) -> None:
        """Wait until every process serves, or a stop comes first. Raises TurnstoneError when one ended by itself."""
        for process in self._processes.values():
            assert process.stdout is not None
            if process.stdout.readline() != READY and self._stops.empty():
                raise TurnstoneError(
                    f"a server process ended while starting, with status {process.wait()}; what it logged says why"
                )

    def _watch(self) -> None:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._stops.get(timeout=_LOOK_EVERY)
            for place, process in list(self._processes.items()):
                if process.poll() is None:
                    continue
                if time.monotonic() - self._started[place] < _EARLY_DEATH:
                    continue  # looked at again until then: no hot loop of processes that cannot live
                logger.error(
                    "server process %d ended with status %d; starting another", process.pid, process.returncode
                )
                multiprocess.mark_process_dead(process.pid, self._metrics)  # type: ignore[no-untyped-call]
                _close(process)
                self._start(place)

    def _stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        self._listener.close()
        deadline = time.monotonic() + self._settings.shutdown_seconds + 5
        for process in self._processes.values():
            while process.poll() is None:
                with contextlib.suppress(queue.Empty):
                    self._stops.get(timeout=0.05)
                    deadline = 0.0
                if time.monotonic() > deadline:
                    process.kill()
            _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
