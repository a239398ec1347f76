"""Embedding versions whose models are told what words mean, sound ones and sabotaged; a routing that is set by hand.

Each thing has a word in the log and another one in the questions, which share no letter that counts: only a model that
knows both finds the one by the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from types import ModuleType
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import psycopg
import pytest

from schema.vocabulary import VersionState
from server.database.address import Address
from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.database.upgrade import owning
from server.embeddings import providers
from server.embeddings.embedder import Embedder
from server.embeddings.lifecycle.routing import Unit
from server.embeddings.providers import Spec
from server.embeddings.relations import create_relation, probe, register
from server.embeddings.serving import Serving, of_version
from server.errors import ProviderUnavailable
from server.log import conversations
from server.log.events import NewEvent
from server.retrieval.plan import DEFAULT
from server.search.indexes import Indexes
from server.search.near import Builder
from server.search.search import Searcher
from server.search.shadow import Shadow

DIMENSIONS: Final = 64
PATIENCE: Final = 30.0  # seconds
THINGS: Final = 360
_CONSONANTS, _VOWELS = "bdfgklmnprtvz", "aou"
Floats = npt.NDArray[np.float32]


def _words(seed: int) -> list[str]:
    """Return words that no stemmer shortens and no language knows."""
    chance = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < THINGS:
        found["".join(chance.choice(_CONSONANTS) + chance.choice(_VOWELS) for _ in range(5)) + "k"] = None
    return list(found)


TOLD: Final = _words(1)
ASKED: Final = _words(2)
_THING_OF: Final = {word: number for words in (TOLD, ASKED) for number, word in enumerate(words)}
_WORD: Final = re.compile(r"[a-z]+")
LONG: Final = 500  # characters

Vector = Callable[[str, Floats], Floats]


def _direction(*seeds: object) -> Floats:
    digest = hashlib.sha256(repr(seeds).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8])).standard_normal(DIMENSIONS).astype(np.float32)


def noise(text: str) -> Floats:
    """Return a vector that says nothing of a text but which it is."""
    return _direction("noise", text)


def sound(_text: str, vector: Floats) -> Floats:
    return vector


def random_vectors(text: str, _vector: Floats) -> Floats:
    return noise(text)


def broken_when_long(text: str, vector: Floats) -> Floats:
    return noise(text) if len(text) > LONG else vector


def poor_when_short(text: str, vector: Floats) -> Floats:
    """Know only a half of the short texts."""
    return noise(text) if len(text) <= LONG and hashlib.sha256(text.encode()).digest()[0] % 2 else vector


class Told:
    """A model in a frame of its own (``seed``); ``spoil`` changes vectors; it fails while ``down`` is set.

    A call waits while ``gate`` is not set; ``waits`` is set by every call.
    """

    batch = 256

    def __init__(self, seed: int, spoil: Vector) -> None:
        self._seed = seed
        self._spoil = spoil
        self.down = False
        self.gate = threading.Event()
        self.gate.set()
        self.waits = threading.Event()
        self.refuses: Callable[[str], bool] | None = None

    def embed(self, texts: Sequence[str]) -> Floats:
        self.waits.set()
        assert self.gate.wait(PATIENCE)
        if self.down or (self.refuses is not None and any(self.refuses(text) for text in texts)):
            raise ProviderUnavailable("the model is down")
        return np.stack([self._vector(text) for text in texts])

    def close(self) -> None:
        pass

    def _vector(self, text: str) -> Floats:
        things = [_THING_OF[word] for word in _WORD.findall(text.lower()) if word in _THING_OF]
        vector = 0.3 * _direction(self._seed, "text", text)
        for thing in things:
            vector = vector + _direction(self._seed, thing)
        return self._spoil(text, np.asarray(vector, np.float32))


class Models:
    """The models of the provider ``told``, by their names."""

    def __init__(self) -> None:
        self.by_name: dict[str, Told] = {}

    def add(self, name: str, spoil: Vector = sound) -> Told:
        self.by_name[name] = Told(len(self.by_name), spoil)
        return self.by_name[name]


@contextmanager
def telling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    """Make the provider ``told`` one that the server finds."""
    models = Models()
    module = ModuleType(f"{providers.__name__}.told")
    module.open_model = lambda spec: models.by_name[spec.model]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(providers, "NAMES", (*providers.NAMES, "told"))
    yield models
    for model in models.by_name.values():
        model.gate.set()


def add_version(address: Address, name: str, state: VersionState = "shadowing") -> int:
    """Register a model of ``told`` under its own name, with a relation."""
    spec = Spec(provider="told", model=name)
    found = probe(spec)
    with owning(address) as connection:
        number = register(connection, name, spec, found, state=state)
        create_relation(connection, number, found.dimensions)
        connection.commit()
    return number


def route(address: Address, *, units: Mapping[int, Mapping[str, float]] | None = None, **columns: Any) -> None:
    """Change the routing as a flip does. ``units``: thresholds by version; each has a plan of its own name."""
    if units is not None:
        tuned = [
            Unit(
                version=number,
                plan=msgspec.structs.replace(DEFAULT, version=f"plan/{number}"),
                thresholds=dict(thresholds),
            )
            for number, thresholds in units.items()
        ]
        columns["tuning"] = msgspec.json.encode(tuned).decode()
    named = "".join(f", {name} = %s" for name in columns)
    with closing(psycopg.connect(address.conninfo("admin"), autocommit=True)) as connection:
        connection.execute(f"UPDATE embedding_routing SET epoch = epoch + 1{named}".encode(), list(columns.values()))


def rows(address: Address, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        return connection.execute(query.encode(), values).fetchall()


async def embedded(address: Address, *versions: int) -> None:
    """Wait until every event has its vectors of these versions."""
    query = (
        "SELECT count(*) FROM conversation c CROSS JOIN unnest(%s::int[]) AS v(id) LEFT JOIN embedding_progress p "
        "ON p.user_key = c.user_key AND p.conversation = c.id AND p.version = v.id WHERE c.head > coalesce(p.seq, 0)"
    )
    deadline = time.monotonic() + PATIENCE
    while (await asyncio.to_thread(rows, address, query, list(versions)))[0][0]:
        assert time.monotonic() < deadline, "events still wait for their vectors"
        await asyncio.sleep(0.02)


def told(thing: int, *, long: bool = False) -> str:
    """Return what is said of a thing."""
    text = f"Yesterday there was a {TOLD[thing]} on the table."
    return text + " It was a quiet day and nothing else was worth telling anybody." * 10 if long else text


def asked(thing: int) -> str:
    """Return a question about it, in the other word."""
    return f"Was a {ASKED[thing]} seen?"


class Lab:
    """A searcher with all that it works with, on a database of its own."""

    def __init__(self, database: Database, embedder: Embedder, indexes: Indexes, shadow: Shadow) -> None:
        self.database = database
        self.embedder = embedder
        self.indexes = indexes
        self.shadow = shadow
        self.searcher = Searcher(database, embedder, indexes, Builder(database.address), shadow)

    async def follow(self) -> None:
        """Follow the routing as it is now, with every model open."""
        await self.embedder.look()
        deadline = time.monotonic() + PATIENCE
        for version in self.embedder.registered.written:
            while True:
                try:
                    self.embedder.model(version.id)
                    break
                except ProviderUnavailable:
                    assert time.monotonic() < deadline, version.name
                    await asyncio.sleep(0.01)

    def serving(self, version: int) -> Serving:
        return of_version(self.embedder.registered, version)


@asynccontextmanager
async def lab(database: Database, *, keep_text: bool = False) -> AsyncIterator[Lab]:
    """Run an embedder beside a searcher."""
    embedder = Embedder(database)
    task = asyncio.create_task(embedder.run())
    indexes = Indexes(database, 64 * 2**20)
    shadow = Shadow(database, keep_text=keep_text)
    made = Lab(database, embedder, indexes, shadow)
    try:
        await embedder.ready()
        yield made
    finally:
        await shadow.drain()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        made.searcher.close()
        indexes.close()


async def said(
    database: Database, tenant: Tenant, user: str | None, texts: Sequence[str], *, origin: str | None = None
) -> ConversationId:
    """Create a conversation; its events have the ids ``e1``, ``e2`` …"""
    events = [
        NewEvent(role="user", content=msgspec.Raw(msgspec.json.encode(text)), id=f"e{number}")
        for number, text in enumerate(texts, 1)
    ]
    return (await conversations.create(database, tenant, user=user, items=events, origin_id=origin)).id
