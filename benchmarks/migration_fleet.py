"""The servers of a migration's benchmark: several on one database, with an operator's hands on them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg

from benchmarks.serving import Serving
from schema.embeddings import relation_name
from server.access import admin_key

PATH: Final = "/v1/embeddings/migration"
_PATIENCE: Final = 3600.0  # seconds: a large log takes its time
_OPENING: Final = 60.0  # seconds
_LOOK: Final = 0.2  # seconds
_FLAGS: Final = ("--migration-grace-hours", "0", "--log-level", "warning")


class Refused(Exception):
    """A step was refused, with the error as it was answered."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: str = str(error["code"])
        self.message: str = error["message"]
        self.gates: list[dict[str, Any]] = error.get("gates", [])


class Fleet:
    """``servers`` on one database: the first brings it, the others are told where it is."""

    def __init__(self, servers: Sequence[Serving]) -> None:
        self.servers = list(servers)
        self.first = servers[0]
        self.client = self.first.client
        self.conninfo = self.first.postgres().conninfo("postgres")

    def database(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect as the superuser."""
        return psycopg.connect(self.conninfo, autocommit=True)

    def step(self, action: str, **body: Any) -> dict[str, Any]:
        """Take a step of the migration, again while a model is still being opened; raises Refused."""
        deadline = time.monotonic() + _OPENING
        while True:
            answer = self.client.post(f"{PATH}/{action}", json=body, timeout=_PATIENCE)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                return self._answer(answer)
            time.sleep(_LOOK)

    def add(self, name: str, **spec: Any) -> dict[str, Any]:
        """Add a version; raises Refused."""
        return self._answer(self.client.post("/v1/embeddings/versions", json={"name": name, **spec}, timeout=_PATIENCE))

    def status(self) -> dict[str, Any]:
        """Return where the migration stands."""
        return self._answer(self.client.get(PATH, timeout=60))

    def number(self, name: str) -> int:
        """Return a version's id."""
        with self.database() as connection:
            row = connection.execute("SELECT id FROM embedding_version WHERE name = %s", (name,)).fetchone()
        assert row is not None, name
        return int(row[0])

    def count(self, version: int) -> int:
        """Return how many vectors a version has; 0 before it has a relation."""
        with self.database() as connection:
            found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (relation_name(version),)).fetchone()
            if found is None or not found[0]:
                return 0
            row = connection.execute(f"SELECT count(*) FROM {relation_name(version)}".encode()).fetchone()
        assert row is not None
        return int(row[0])

    def until(self, condition: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        """Wait until something is so of the status."""
        deadline = time.monotonic() + _PATIENCE
        while not condition(found := self.status()):
            if time.monotonic() > deadline:
                raise SystemExit(f"{what} did not come: {found}")
            time.sleep(_LOOK)
        return found

    def backfilled(self) -> None:
        """Wait until the candidate lacks nothing that was written before it."""
        self.until(lambda found: not found["backfill"]["waiting"], "the end of the backfill")

    def embedded(self) -> None:
        """Wait until every version that is written has its vectors of all there is."""
        query = (
            "SELECT count(*) FROM conversation c CROSS JOIN unnest((SELECT written FROM embedding_routing)) AS v(id) "
            "LEFT JOIN embedding_progress p ON p.user_key = c.user_key AND p.conversation = c.id AND p.version = v.id "
            "WHERE c.head > coalesce(p.seq, 0)"
        )
        deadline = time.monotonic() + _PATIENCE
        with self.database() as connection:
            while (row := connection.execute(query).fetchone()) and row[0]:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{row[0]} conversations still wait for their vectors")
                time.sleep(_LOOK)

    def turnstone(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a client command of the CLI against the first server."""
        return subprocess.run(
            [sys.executable, "-m", "server.cli", *arguments],
            check=check,
            capture_output=True,
            text=True,
            env={**_environment(), "TURNSTONE_URL": self.first.url, "TURNSTONE_KEY": self.first.key},
        )

    def load(self, path: Path, form: str = "locomo") -> None:
        """Import a file as a user does."""
        self.turnstone("import", form, str(path))

    def conversations(self) -> dict[str, str]:
        """Return the conversations' ids by where they came from."""
        found: dict[str, str] = {}
        after: dict[str, str] = {}
        while True:
            page = self.client.get("/v1/conversations", params={"limit": 100, **after}).raise_for_status().json()
            found |= {one["origin_id"].partition(":")[2]: one["id"] for one in page["data"] if one["origin_id"]}
            if not page["has_more"]:
                return found
            after = {"after": page["last_id"]}

    def golden(self, path: Path, name: str) -> None:
        """Load a golden set and approve it."""
        self.turnstone("golden", "add", str(path), "--name", name, "--owner", "the benchmark")
        self.turnstone("golden", "approve", name, "--version", "1")

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run one more backfill worker."""
        process = subprocess.Popen(
            [sys.executable, "-m", "server.cli", "embeddings", "backfill", "--worker"],
            env={**_environment(), "TURNSTONE_DATABASE_URL": self.conninfo},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @staticmethod
    def _answer(response: httpx.Response) -> dict[str, Any]:
        if response.is_client_error or response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            raise Refused(response.json()["error"])
        found: dict[str, Any] = response.raise_for_status().json()
        return found


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TURNSTONE_")}


@contextmanager
def fleet(directory: Path, name: str, servers: int, *flags: str) -> Iterator[Fleet]:
    """Start servers on one fresh database."""
    with ExitStack() as stack:
        first = stack.enter_context(Serving(directory / name, flags=[*_FLAGS, *flags]))
        started = [first]
        where = first.postgres().conninfo("postgres")
        for number in range(1, servers):
            data_dir = directory / f"{name}-{number}"
            data_dir.mkdir(mode=0o700)
            admin_key.write(data_dir, first.key)
            own = [*_FLAGS, *flags, "--database-url", where]
            started.append(stack.enter_context(Serving(data_dir, flags=own)))
        yield Fleet(started)
