"""A candidate beside the active version, and a log that was written before it was there."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import psycopg
import sqlalchemy as sa

from schema.embeddings import relation_name
from schema.tables import embedding_routing, embedding_version
from schema.vocabulary import VersionState
from server.database.address import Address
from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.database.upgrade import owning
from server.embeddings.backfill.orders import ROLES, Orders
from server.embeddings.providers import Spec
from server.embeddings.relations import create_relation, probe, register
from server.log import conversations
from server.log.append import Appender
from server.log.events import NewEvent
from tests.embedding_server import EmbeddingServer

PATIENCE = 30.0  # seconds
CHUNK = 500  # events in one append
DIMENSIONS = 12  # of a candidate that is served


def spec_of(served: EmbeddingServer, **options: object) -> Spec:
    return Spec(provider="openai", model="words", options={"url": served.url, "batch": 16, **options})


def add_candidate(address: Address, spec: Spec, state: VersionState = "backfilling", name: str = "candidate") -> int:
    """Begin a migration to a model, up to a state."""
    found = probe(spec)
    with owning(address) as connection:
        number = register(connection, name, spec, found, state=state)
        create_relation(connection, number, found.dimensions)
        connection.execute(
            sa.update(embedding_routing).values(
                epoch=embedding_routing.c.epoch + 1,
                candidate=number,
                written=sa.func.array_append(embedding_routing.c.written, number),
            )
        )
        connection.commit()
    return number


def change(address: Address, version: int, state: VersionState, *, paused: bool = False) -> None:
    """Bring a candidate into another state."""
    with owning(address) as connection:
        connection.execute(sa.update(embedding_version).where(embedding_version.c.id == version).values(state=state))
        connection.execute(sa.update(embedding_routing).values(epoch=embedding_routing.c.epoch + 1, paused=paused))
        connection.commit()


def said(text: str, **fields: Any) -> NewEvent:
    return NewEvent(role="user", content=msgspec.Raw(msgspec.json.encode(text)), **fields)


async def write_log(
    database: Database, tenant: Tenant, conversations_: int = 6, events: int = 50, word: str = "w"
) -> list[ConversationId]:
    """Write conversations of events whose texts are all different; returns them, oldest first."""
    appender = Appender(database)
    made = []
    for number in range(conversations_):
        at = (await conversations.create(database, tenant, user=f"user {number % 3}")).id
        texts = [f"{word}{number} says {n} of {word}{n % 7}" for n in range(events)]
        for start in range(0, events, CHUNK):
            await appender.append(tenant, at, [said(text) for text in texts[start : start + CHUNK]])
        made.append(at)
    return made


def rows(address: Address, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        return connection.execute(query.encode(), values).fetchall()


def run(address: Address, query: str, *values: object) -> None:
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        connection.execute(query.encode(), values)


def count(address: Address, version: int) -> int:
    """Return how many vectors a version has."""
    return int(rows(address, f"SELECT count(*) FROM {relation_name(version)}")[0][0])


async def until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"{what} did not come"
        await asyncio.sleep(0.01)


class WorkerProcess:
    """``python -m server.embeddings.backfill``, as a server starts it."""

    def __init__(self, address: Address, key: str | None = None) -> None:
        orders = Orders({role: address.conninfo(role) for role in ROLES}, key, "warning", "json")
        self.process = subprocess.Popen([sys.executable, "-m", "server.embeddings.backfill"], stdin=subprocess.PIPE)
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(orders) + b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> int:
        """Wait for it to end; returns its status."""
        status = self.process.wait(PATIENCE)
        assert self.process.stdin is not None
        self.process.stdin.close()
        return status
