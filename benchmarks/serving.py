"""A server of its own for a benchmark: ``turnstone serve`` in a fresh data directory, as a user starts it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import msgspec
import psutil

from server.access import admin_key
from server.database.embedded import EmbeddedPostgres, attach


class Memory(NamedTuple):
    """Memory in MiB, shared pages counted once over all processes (PSS; RSS where the platform has no PSS)."""

    python: float
    postgres: float

    @property
    def total(self) -> float:
        return self.python + self.postgres


class Cpu(NamedTuple):
    """Processor seconds used so far."""

    python: float
    postgres: float


class Serving:
    """A running server; ``first_answer`` is the seconds from its start to the first 200 of /readyz."""

    def __init__(
        self, data_dir: Path, *, flags: list[str] | None = None, program: Sequence[str] = ("server.cli", "serve")
    ) -> None:
        self.data_dir = data_dir
        self._program = program
        self._flags = flags or []
        self.first_answer = 0.0

    def __enter__(self) -> Serving:
        self._log = (self.data_dir.parent / f"{self.data_dir.name}.log").open("ab")
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", *self._program, "--data-dir", str(self.data_dir), "--port", "0"),
                *self._flags,
            ],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.url = self._announced()
        if httpx.get(f"{self.url}/readyz").status_code != 200:
            raise SystemExit("the server started but is not ready")
        self.first_answer = time.perf_counter() - began
        key = admin_key.read(self.data_dir)
        assert key is not None, "written before the server answers"
        self.key = key
        self.client = httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {key}"}, timeout=60)
        parts = urlsplit(self.url)
        self.host, self.port = str(parts.hostname), int(parts.port or 80)
        return self

    def _announced(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if " serves on " in line:
                threading.Thread(target=self._process.stdout.read, daemon=True).start()
                return line.split(" serves on ")[1].split()[0]
        self._process.wait()
        raise SystemExit(f"the server did not start: {Path(self._log.name).read_text()[-2000:]}")

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait(60)
        self._log.close()

    def postgres(self) -> EmbeddedPostgres:
        """Return the server's embedded database, attached to."""
        found = attach(self.data_dir)
        assert found is not None, "the server is running, so its database is"
        return found

    def conversations(self, count: int) -> list[str]:
        """Create conversations, each of a user of its own, and return their ids."""
        made = [self.client.post("/v1/conversations", json={"user": f"user {n}"}) for n in range(count)]
        return [str(reply.raise_for_status().json()["id"]) for reply in made]

    def request(self, method: str, path: str, body: object = None) -> bytes:
        """Return a whole HTTP request as bytes."""
        content = b"" if body is None else msgspec.json.encode(body)
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAuthorization: Bearer {self.key}\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        return head.encode() + b"\r\n" + content

    def _processes(self) -> Iterator[tuple[bool, psutil.Process]]:
        own = psutil.Process(self._process.pid)
        for process in [own, *own.children(recursive=True)]:
            try:
                yield process.name().startswith("postgres"), process
            except psutil.NoSuchProcess:
                continue

    def memory(self) -> Memory:
        """Return what the server and its database occupy now."""
        sums = [0.0, 0.0]
        for is_postgres, process in self._processes():
            try:
                full = process.memory_full_info()
                sums[is_postgres] += getattr(full, "pss", full.rss) / 2**20
            except psutil.Error:
                continue
        return Memory(*sums)

    def cpu(self) -> Cpu:
        """Return the processor time that the server and its database have used."""
        sums = [0.0, 0.0]
        for is_postgres, process in self._processes():
            try:
                times = process.cpu_times()
                sums[is_postgres] += times.user + times.system
                if is_postgres:  # the sessions that have ended since
                    sums[1] += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            except psutil.Error:
                continue
        return Cpu(*sums)


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a directory on the disk (not in memory, where an fsync costs nothing), removed afterwards."""
    root = Path("bench-results")
    root.mkdir(exist_ok=True)
    # Root's database runs under an account of its own, which may not be able to reach the checkout.
    places = ["/var/lib", "/var/tmp", str(root.absolute())]
    place = next(p for p in places if _usable(Path(p)))
    directory = Path(tempfile.mkdtemp(prefix="turnstone-bench-", dir=place))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _usable(directory: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False
