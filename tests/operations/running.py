"""A real ``turnstone serve`` in a process of its own, for tests of its life."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

START = 30.0  # seconds


class Serve:
    """``turnstone serve`` on a data directory and a port; its output goes to files beside the data directory."""

    def __init__(self, data_dir: Path, port: int, *flags: str, durable: bool = False) -> None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not durable:
            (data_dir / "postgres.conf").write_text("fsync = off\n")  # these tests pull no plug
        self.url = f"http://127.0.0.1:{port}"
        self.data_dir = data_dir
        self.output = data_dir.parent / f"{data_dir.name}.out"
        self.log = data_dir.parent / f"{data_dir.name}.log"
        with self.output.open("wb") as output, self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server.cli", "serve", f"--data-dir={data_dir}", f"--port={port}", *flags],
                stdout=output,
                stderr=log,
                env=environment(),
                start_new_session=True,
            )

    def wait_ready(self) -> float:
        """Wait for /readyz; returns how many seconds it took."""
        began = time.monotonic()
        while self.status("/readyz") != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() - began < START, self.log.read_text()
            time.sleep(0.02)
        return time.monotonic() - began

    def status(self, path: str) -> int | None:
        """Return a GET's status, or None when nobody listens."""
        try:
            return httpx.get(self.url + path, timeout=20).status_code
        except httpx.TransportError:
            return None

    def client(self) -> httpx.Client:
        key = (self.data_dir / "admin-key").read_text().strip()
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {key}"}, timeout=30)

    def children(self, name: str) -> list[psutil.Process]:
        """Return the direct children whose program is called so."""
        return [child for child in psutil.Process(self.process.pid).children() if child.name().startswith(name)]

    def stop(self, number: int = signal.SIGTERM, *, within: float = 30) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(within)

    def end(self) -> None:
        """Leave nothing running, whatever the test did."""
        if self.process.poll() is None:
            family = psutil.Process(self.process.pid).children(recursive=True)
            try:
                self.stop(within=20)
            except subprocess.TimeoutExpired:
                for process in (*family, self.process):
                    process.kill()
                self.process.wait()


def environment() -> dict[str, str]:
    """Return this environment without settings of Turnstone's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TURNSTONE_")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_gone(process: psutil.Process) -> bool:
    """Whether a process ended, collected by its parent or not."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_gone(*processes: psutil.Process, within: float = 15) -> None:
    """Wait until processes that are not our children have ended."""
    deadline = time.monotonic() + within
    while not all(is_gone(process) for process in processes):
        assert time.monotonic() < deadline, f"still running: {[p for p in processes if not is_gone(p)]}"
        time.sleep(0.02)
