"""Appends and reads over HTTP against pgbench and bare psycopg, on the same database with the same durability.

Each ratio compares two runs of the same round, moments apart, and the tables show medians over the rounds: on a shared
machine absolute rates come and go, ratios much less.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import msgspec
import psycopg

from benchmarks import bulk, generators, pgbench, report
from benchmarks.bare import Orders as BareOrders
from benchmarks.load import Figures, Orders
from benchmarks.measure import Measured, measure
from benchmarks.serving import Serving, scratch

CONNECTIONS = (1, 8, 16, 32)
BATCH = 100
TEXT = (
    "I moved to Lisbon in the spring, and the first thing I did was to look for a climbing gym near the river; "
    "do you remember which one you told me about?"
)
READ_LENGTH = 200  # events of the conversations that are read


class Bench:
    """One server, and what is measured on it."""

    def __init__(self, serving: Serving, generate: generators.Generator, seconds: float, directory: Path) -> None:
        self.serving = serving
        self.postgres = serving.postgres()
        self.generate = generate
        self.seconds = seconds
        self.directory = directory
        self.uuid = uuid4()
        most = max(CONNECTIONS)
        self.appended = serving.conversations(most)
        self.batched = serving.conversations(8)
        self.shared = serving.conversations(1)
        self.read = self._readable(most)

    def superuser(self) -> psycopg.Connection:
        """Connect to the server's database as its superuser."""
        return psycopg.connect(self.postgres.conninfo("postgres"))

    def _readable(self, count: int) -> list[str]:
        made = self.serving.conversations(count)
        event = {"role": "user", "content": TEXT}
        for name in made:
            body = {"events": [event] * READ_LENGTH}
            self.serving.client.post(f"/v1/conversations/{name}/events", json=body).raise_for_status()
        with self.superuser() as connection:
            content = msgspec.json.encode(TEXT).decode()
            bulk.fixed(connection, uuid=self.uuid, keys=count, length=READ_LENGTH, text=content)
        return made

    def http(self, connections: int, requests: list[bytes]) -> Measured:
        """Repeat requests over a number of connections."""
        orders = Orders(self.serving.host, self.serving.port, connections, 0.5, self.seconds, requests)
        return measure(self.serving, lambda: self.generate(orders))

    def append(self, connections: int) -> Measured:
        """Append single events, each connection to its own conversation."""
        return self.http(connections, self._appends(self.appended[:connections], 1))

    def append_shared(self, connections: int) -> Measured:
        """Append single events, all connections to one conversation."""
        return self.http(connections, self._appends(self.shared, 1))

    def append_batch(self, connections: int) -> Measured:
        """Append batches of events."""
        return self.http(connections, self._appends(self.batched[:connections], BATCH))

    def _appends(self, conversations: list[str], count: int) -> list[bytes]:
        body = {"events": [{"role": "user", "content": TEXT}] * count}
        return [self.serving.request("POST", f"/v1/conversations/{name}/events", body) for name in conversations]

    def read_last(self, connections: int) -> Measured:
        """Read the last 50 events."""
        paths = [f"/v1/conversations/{name}/events?order=desc&limit=50" for name in self.read]
        return self.http(connections, [self.serving.request("GET", path) for path in paths])

    def static(self, connections: int) -> Measured:
        """Fetch /healthz, which asks nobody."""
        return self.http(connections, [self.serving.request("GET", "/healthz")])

    def pgbench(self, script: str, clients: int) -> Measured:
        """Run a pgbench script."""
        content = pgbench.quoted(msgspec.json.encode(TEXT).decode())
        filled = script.format(uuid=uuid4(), content=content)
        return self._pgbench(filled, clients)

    def pgbench_full(self, clients: int) -> Measured:
        """Run the whole append in pgbench, on fresh conversations."""
        uuid, text = uuid4(), msgspec.json.encode(TEXT).decode()
        with self.superuser() as connection:
            bulk.fixed(connection, uuid=uuid, keys=clients, length=0, text=text)
        return self._pgbench(pgbench.FULL_APPEND.format(uuid=uuid, content=pgbench.quoted(text)), clients)

    def pgbench_read(self, clients: int) -> Measured:
        """Run the plain SQL of a read of the last 50 in pgbench."""
        return self._pgbench(pgbench.LAST_50.format(uuid=self.uuid, count=max(CONNECTIONS)), clients)

    def _pgbench(self, script: str, clients: int) -> Measured:
        run = pgbench.run
        return measure(
            self.serving,
            lambda: run(self.postgres, script, clients=clients, seconds=self.seconds, directory=self.directory),
        )

    def bare_batch(self, connections: int) -> Measured:
        """Insert the same batches through psycopg."""
        contents = [msgspec.json.encode(TEXT).decode()] * BATCH
        conninfo = self.postgres.conninfo("turnstone_runtime")
        orders = BareOrders(conninfo, connections, self.seconds, contents)
        return measure(self.serving, lambda: generators.bare(orders))
