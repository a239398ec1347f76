"""What is stored of a migration, and what becomes of a database that an older release has made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from alembic import command
from msgspec import structs

from schema.embeddings import relation_name
from server.database import upgrade as module
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.embedded import EmbeddedPostgres
from server.database.upgrade import migrations, upgrade
from server.embeddings import versions
from server.embeddings.embedder import Embedder
from server.embeddings.lifecycle.gates.gate import Gate
from server.embeddings.lifecycle.records import Record, Transition
from server.embeddings.lifecycle.routing import Unit
from server.embeddings.migration import facts, ledger
from server.embeddings.migration.dropping import OWNER, drop_relations
from server.embeddings.relations import create_relation, ensure_first, probe, register
from server.embeddings.reporting import p99
from server.embeddings.versions import DEFAULT_SPEC
from server.log.erase import RELATIONS_LOCK
from server.operations import lease, metrics
from server.retrieval.plan import PLANS
from tests.conftest import databases_of

Rows = list[tuple[Any, ...]]


def run(address: EmbeddedAddress, query: str, *values: object) -> Rows:
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def empty(cluster: EmbeddedPostgres) -> Iterator[Callable[[], EmbeddedAddress]]:
    with databases_of(cluster, "template0") as make:
        yield make


async def test_a_database_of_the_release_before_is_migrated(empty: Callable[[], EmbeddedAddress]) -> None:
    """Its routing keeps its meaning: a ramp in percent becomes one in basis points."""
    address = empty()
    config = migrations()
    with module._locked(address, 60) as connection:
        module._prepare(connection)
        with module._as_owner(connection):
            config.attributes["connection"] = connection
            command.upgrade(config, "0005")
    found = probe(DEFAULT_SPEC)
    with module._locked(address, 60) as connection, module._as_owner(connection):
        number = register(connection, "old", DEFAULT_SPEC, found, state="active")
        connection.commit()
    run(
        address,
        "INSERT INTO embedding_routing (epoch, active, ramp, salt, written) VALUES (7, %s, 5, 'salt', ARRAY[%s::int])",
        number,
        number,
    )
    run(
        address,
        "INSERT INTO server (id, hostname, pid, release, lease_until) VALUES "
        "(gen_random_uuid(), 'old', 1, '0.1', now() + interval '1 minute')",
    )
    assert upgrade(address) is True
    assert ensure_first(address) is False
    assert run(address, "SELECT epoch, ramp, shadow, paused, tuning FROM embedding_routing") == [
        (7, 500, 0, False, "[]")
    ]
    assert run(address, "SELECT requests, waiting, reading, p99_ms FROM server") == [(0, 0, 0, None)]
    database = Database(address)
    await database.open()
    try:
        routing = (await versions.read(database)).routing
        assert routing is not None
        assert routing.units == (Unit(version=number, plan=PLANS["static"]),), "the weights that this release has"
    finally:
        await database.close()


async def test_what_is_stored_comes_back(database: Database, tenant: object) -> None:
    record = Record(
        action="compare",
        version=1,
        epoch=3,
        at=datetime(2026, 5, 4, 9, tzinfo=UTC),
        who="ada (key_1)",
        note="2 of 3 gates fail",
        done=False,
        gates=(Gate(name="recall", outcome="fail", why="it finds less", value=0.1, limit=0.2, segment="type=fact"),),
        forced="they insist",
        figures={"recall": 0.5, "rate": float("inf")},
        thresholds={"near": 0.25},
    )
    plan = structs.replace(PLANS["minilm"], k1=1.1 + 0.2)
    async with database.transaction(None, role=OWNER) as connection:
        stored = await ledger.read(connection, lock=True)
        assert [unit.plan for unit in stored.routing.units] == [PLANS["static"]]
        changed = structs.replace(
            stored.routing,
            epoch=stored.routing.epoch + 1,
            ramp=1234,
            shadow=77,
            paused=True,
            units=(Unit(version=1, plan=plan, thresholds={"near": 0.1 + 0.2}),),
        )
        step = Transition(from_epoch=stored.routing.epoch, routing=changed, states={1: "active"}, record=record)
        assert await ledger.apply(connection, stored, step) is None
        refused = await ledger.apply(connection, stored, step)
        assert refused is not None
        assert refused.code == "stale_epoch", "an update names the epoch that it was decided on"
    async with database.transaction(None) as connection:
        again = await ledger.read(connection, lock=False)
    assert again.routing == changed
    assert (await versions.read(database)).routing == changed
    assert again.history == (structs.replace(record, figures={"recall": 0.5}),)
    assert again.versions[0].since == stored.now


async def test_a_server_says_what_it_follows_and_sees(
    database: Database, tenant: object, address: EmbeddedAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.embeddings.reporting.WINDOW", 0.0)
    async with lease.lease(database) as identity:
        await lease.renew(database, identity)
        embedder = Embedder(database, identity=identity, writes=False)
        task = asyncio.create_task(embedder.run())
        await embedder.ready()
        await embedder.look()

        async def said() -> facts.Alive:
            async with database.transaction(None) as connection:
                (alive,) = await facts.servers(connection)
            return alive

        assert ((await said()).epoch, (await said()).load_at) == (1, None)
        run(address, "UPDATE server SET routing_epoch = 0")
        await embedder.look()
        assert (await said()).epoch == 1, "a row that was made anew is told again"
        run(
            address,
            "INSERT INTO embedding_version (name, provider, model, dimensions, normalised, text_builder, fingerprint, "
            "probe, state) SELECT 'new', provider, model, dimensions, normalised, text_builder, fingerprint, probe, "
            "'writing' FROM embedding_version",
        )
        with embedder.reading(1):
            run(address, "UPDATE embedding_routing SET epoch = 2")
            await embedder.look()
            await embedder.look()
            assert ((await said()).epoch, (await said()).reading) == (2, 1), "a request of the epoch before still runs"
        for milliseconds in range(1, 201):
            metrics.observe_request("/v1/search", "POST", 200, milliseconds / 1000)
        metrics.observe_request("/v1/embeddings/migration/verify", "POST", 200, 60.0)
        await embedder.look()
        alive = await said()
        assert (alive.reading, alive.requests) == (0, 200)
        assert alive.p99_ms == pytest.approx(198.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_the_p99_of_few() -> None:
    assert p99([]) is None
    assert p99([0.005]) == 5.0
    assert p99([0.001] * 99 + [0.5]) == pytest.approx(1.0)
    assert p99([0.001] * 98 + [0.5] * 2) == pytest.approx(500.0)


async def test_a_relation_is_dropped_once_nothing_needs_it(
    database: Database, tenant: object, address: EmbeddedAddress
) -> None:
    """Not while a live server follows an older epoch, an erasure names every relation, or an upgrade is under way."""
    found = probe(DEFAULT_SPEC)
    with module.owning(address) as connection:
        number = register(connection, "gone", DEFAULT_SPEC, found, state="dropped")
        create_relation(connection, number, found.dimensions)
        connection.commit()
    name = relation_name(number)
    run(address, "INSERT INTO embedding_progress VALUES (1, gen_random_uuid(), %s, 1, 5)", number)
    run(
        address,
        "INSERT INTO server (id, hostname, pid, release, lease_until) VALUES "
        "(gen_random_uuid(), 'behind', 1, '0.1', now() + interval '1 minute')",
    )

    def there() -> bool:
        return run(address, "SELECT to_regclass(%s) IS NOT NULL", name) == [(True,)]

    assert await drop_relations(database, timeout=0.2) is False
    assert there()
    run(address, "UPDATE server SET lease_until = now() - interval '1 second'")
    for lock in (RELATIONS_LOCK, module._LOCK):
        with psycopg.connect(address.conninfo("admin"), autocommit=True) as other:
            other.execute("SELECT pg_advisory_lock_shared(%s)", (lock,))
            assert await drop_relations(database, timeout=0.2) is False
            assert there()
    with psycopg.connect(address.conninfo("admin")) as reader:
        reader.execute(f"SELECT FROM {name}".encode())
        assert await drop_relations(database, timeout=0.5) is False, "it gives way to whoever reads it"
    assert there()
    assert await drop_relations(database, timeout=5) is True
    assert not there()
    assert run(address, "SELECT count(*) FROM embedding_progress") == [(0,)]
    assert await drop_relations(database, timeout=0) is True, "there is nothing left to do"
    assert upgrade(address) is False
    with module._locked(address, 60) as connection, module._as_owner(connection):
        assert module._is_secured(connection), "the next start has nothing to put right"
