"""What is wrong with a candidate's vectors is found, and named."""

from __future__ import annotations

import asyncio

import numpy as np
import psycopg
import pytest

from server.access.tenants import create_tenant
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.tenant import Tenant
from server.embeddings import versions
from server.embeddings.backfill import backlog
from server.embeddings.backfill.worker import Worker
from server.embeddings.lifecycle.gates.verification import Limits, Verified, verification
from server.embeddings.migration import coverage
from server.embeddings.migration.estimate import disk, estimate
from server.embeddings.migration.verify import measure
from server.embeddings.model import Model, open_model
from server.errors import ModelRefused
from server.log import conversations, erase
from server.log.append import Appender
from tests.conftest import the_tenant
from tests.database.candidates import DIMENSIONS, add_candidate, change, count, rows, run, said, spec_of, write_log
from tests.database.test_embeddings import embedding
from tests.embedding_server import EmbeddingServer


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "_FRESH", 0.0)
    monkeypatch.setattr(coverage, "_PATIENCE", 0.3)


@pytest.fixture
async def version(database: Database, tenant: Tenant, address: EmbeddedAddress, served: EmbeddingServer) -> int:
    """A candidate that is all there, of 300 texts."""
    await write_log(database, tenant, 6, 50)
    number = await asyncio.to_thread(add_candidate, address, spec_of(served))
    await Worker(database).run()
    assert count(address, number) == 300
    return number


async def measured(database: Database, address: EmbeddedAddress, version: int, model: Model) -> Verified:
    registered = await versions.read(database)
    return await measure(database, address, registered.versions[version], model, sample=300)


async def failing(database: Database, address: EmbeddedAddress, version: int, model: Model) -> set[str]:
    """Return the names of the gates that fail."""
    gates = verification(await measured(database, address, version, model))
    return {gate.name for gate in gates if gate.outcome == "fail"}


async def test_what_is_sound_passes(
    database: Database, tenant: Tenant, address: EmbeddedAddress, version: int, words: Model
) -> None:
    at = (await conversations.create(database, tenant, user="ada")).id
    await Appender(database).append(tenant, at, [said(""), said("one"), said("two")])
    branch = (await conversations.fork(database, tenant, at, 2)).id
    await Appender(database).append(tenant, branch, [said("three")])
    await erase.erase_event(database, tenant, at, 3, actor="test")
    await Worker(database).run()
    found = await measured(database, address, version, words)
    (covered,) = found.coverage
    assert (covered.tenant, covered.texts) == ("default", 302)
    assert (covered.missing, covered.dead, covered.extra, covered.wrong_text) == (0, 0, 0, 0)
    assert found.vectors.rows == found.sample.vectors + 2 == 302
    assert found.sample.worst > 0.99999
    assert found.probe > 0.99999
    assert 0 < found.vectors.concentration < 0.9
    assert found.index is None
    assert all(gate.outcome == "pass" for gate in verification(found)), verification(found)


async def test_what_is_fresh_is_not_missing(
    database: Database,
    tenant: Tenant,
    address: EmbeddedAddress,
    version: int,
    words: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Events are appended all the while; each has its vector a moment later."""
    monkeypatch.setattr(coverage, "_PATIENCE", 10.0)
    async with embedding(database) as embedder:
        appender = Appender(database, on_append=[embedder.on_append])
        at = (await conversations.create(database, tenant)).id
        done = asyncio.Event()

        async def write() -> None:
            number = 0
            while not done.is_set():
                await appender.append(tenant, at, [said(f"number {number}")])
                number += 1
                await asyncio.sleep(0.02)  # what a served model keeps up with

        writing = asyncio.create_task(write())
        for _ in range(3):
            assert await failing(database, address, version, words) == set()
        done.set()
        await writing


async def test_what_is_missing_left_over_or_of_another_text(
    database: Database, tenant: Tenant, address: EmbeddedAddress, version: int, words: Model
) -> None:
    run(address, f"DELETE FROM embedding_v{version} WHERE seq <= 5")
    assert await failing(database, address, version, words) == {"coverage"}
    assert (await measured(database, address, version, words)).coverage[0].missing == 30
    run(address, "UPDATE embedding_progress SET seq = 0 WHERE version = %s", version)
    await Worker(database).run()
    assert await failing(database, address, version, words) == set()
    # As a writer that did not know of the erasure would have left it.
    ((owner, key),) = rows(address, "SELECT conversation, user_key FROM event ORDER BY conversation LIMIT 1")
    run(address, "UPDATE event SET erased_at = now(), content = NULL WHERE conversation = %s AND seq = 9", owner)
    run(address, "DELETE FROM event WHERE conversation = %s AND seq = 50", owner)
    assert await failing(database, address, version, words) == {"orphans"}
    assert (await measured(database, address, version, words)).coverage[0].extra == 2
    run(address, f"DELETE FROM embedding_v{version} WHERE conversation = %s AND seq IN (9, 50)", owner)
    swap = (
        f"UPDATE embedding_v{version} v SET text_hash = o.text_hash, embedding = o.embedding FROM embedding_v{version} "
        "o WHERE v.user_key = %s AND o.user_key = v.user_key AND v.conversation = %s AND o.conversation = "
        "v.conversation AND v.seq IN (3, 4) AND o.seq = 7 - v.seq"
    )
    run(address, swap, key, owner)
    assert await failing(database, address, version, words) == {"text_hash", "re_embedded"}


async def test_vectors_that_mean_nothing(
    database: Database, address: EmbeddedAddress, version: int, words: Model
) -> None:
    relation = f"embedding_v{version}"
    run(address, f"CREATE TABLE kept AS SELECT * FROM {relation}")
    restore = (
        f"UPDATE {relation} v SET embedding = k.embedding FROM kept k "
        "WHERE v.conversation = k.conversation AND v.seq = k.seq"
    )
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        random = np.random.default_rng(1)
        for owner, seq in connection.execute(f"SELECT conversation, seq FROM {relation}").fetchall():
            vector = random.standard_normal(DIMENSIONS)
            value = str((vector / np.linalg.norm(vector)).tolist())
            connection.execute(
                f"UPDATE {relation} SET embedding = %s WHERE conversation = %s AND seq = %s", (value, owner, seq)
            )
    assert await failing(database, address, version, words) == {"re_embedded"}, "random"
    run(address, f"UPDATE {relation} SET embedding = %s", str([1.0] + [0.0] * (DIMENSIONS - 1)))
    assert await failing(database, address, version, words) == {"re_embedded", "duplicates", "constant"}, "constant"
    run(address, restore)
    assert await failing(database, address, version, words) == set()
    run(address, f"UPDATE {relation} SET embedding = embedding * %s::vector WHERE seq = 7", str([2.0] * DIMENSIONS))
    assert await failing(database, address, version, words) == {"norm"}
    run(address, f"UPDATE {relation} SET embedding = %s WHERE seq = 7", str([0.0] * DIMENSIONS))
    assert await failing(database, address, version, words) == {"zero", "re_embedded"}
    with pytest.raises(psycopg.errors.DataException, match="NaN not allowed"):
        run(address, f"UPDATE {relation} SET embedding = %s", str(["NaN"] * DIMENSIONS).replace("'", ""))


@pytest.mark.parametrize("number", [float("nan"), 0.0])
async def test_no_such_vector_is_ever_written(
    database: Database, tenant: Tenant, address: EmbeddedAddress, served: EmbeddingServer, number: float
) -> None:
    """A model that answers some texts with it: they are dead letters, and too many of them fail their gate."""
    await write_log(database, tenant, 2, 20)
    version = await asyncio.to_thread(add_candidate, address, spec_of(served))
    plain = served.vector

    def spoilt(text: str) -> list[float]:
        return [number] * DIMENSIONS if "w0 says 1" in text else plain(text)

    served.vector = spoilt  # type: ignore[method-assign]
    await Worker(database).run()
    assert count(address, version) == 29
    assert rows(address, "SELECT count(*) FROM embedding_failure") == [(11,)]
    model = open_model(spec_of(served))
    assert await failing(database, address, version, model) == {"dead_letters"}
    model.close()


async def test_other_weights_under_the_same_name(
    database: Database, address: EmbeddedAddress, version: int, served: EmbeddingServer, words: Model
) -> None:
    """Found by who opens the model, and by who has had it open all along."""
    words.fingerprint()
    served.seed = 1
    assert await failing(database, address, version, words) == {"fingerprint", "re_embedded"}
    registered = await versions.read(database)
    with pytest.raises(ModelRefused, match="changed under its name"):
        registered.versions[version].open()


async def test_an_index_that_finds_nothing_or_half(
    database: Database, address: EmbeddedAddress, version: int, words: Model
) -> None:
    relation = f"embedding_v{version}"
    make = f"CREATE INDEX {relation}_hnsw ON {relation} USING hnsw (embedding vector_cosine_ops)"
    run(address, make)
    assert await failing(database, address, version, words) == set()
    found = (await measured(database, address, version, words)).index
    assert found is not None
    assert (found.rows, found.visible, found.queries) == (300, 300, 40)
    assert found.recall > 0.99
    run(address, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", f"{relation}_hnsw")
    assert await failing(database, address, version, words) == {"index_valid", "index_complete", "index_exact"}
    run(address, f"DROP INDEX {relation}_hnsw")
    run(address, f"{make} WHERE seq > 25")
    assert await failing(database, address, version, words) == {"index_complete"}
    run(address, f"DROP INDEX {relation}_hnsw")
    # Half of its entries are of another time: PostgreSQL holds it for sound.
    run(address, make)
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        connection.execute(f"UPDATE pg_index SET indisready = false WHERE indexrelid = '{relation}_hnsw'::regclass")
        connection.execute(f"UPDATE {relation} SET seq = seq + 1000 WHERE seq > 10")
        connection.execute(f"UPDATE {relation} SET seq = seq - 1000 WHERE seq > 1000")
        connection.execute(f"UPDATE pg_index SET indisready = true WHERE indexrelid = '{relation}_hnsw'::regclass")
    assert await failing(database, address, version, words) == {"index_exact"}


async def test_equal_texts_of_two_tenants_are_no_duplicates(
    database: Database, tenant: Tenant, address: EmbeddedAddress, version: int, words: Model
) -> None:
    await create_tenant(database, "other")
    await write_log(database, await the_tenant(database, "other"), 6, 50)
    await Worker(database).run()
    found = await measured(database, address, version, words)
    assert [one.texts for one in found.coverage] == [300, 300]
    assert found.vectors.alike == 0
    assert all(gate.outcome == "pass" for gate in verification(found, Limits(alike=0)))


async def test_a_plan_says_what_it_will_take(
    database: Database, tenant: Tenant, address: EmbeddedAddress, served: EmbeddingServer
) -> None:
    made = await write_log(database, tenant, 6, 50)
    await Appender(database).append(tenant, made[0], [said("") for _ in range(3)])
    served.seconds = 0.005
    number = await asyncio.to_thread(add_candidate, address, spec_of(served), "draft")
    version = (await versions.read(database)).versions[number]
    figures = await estimate(database, version)
    assert 297 <= figures["texts"] <= 303
    assert 0 < figures["rate"] < 16 / 0.005
    assert figures["seconds"] == pytest.approx(figures["texts"] / figures["rate"])
    await asyncio.to_thread(change, address, number, "backfilling")
    await Worker(database).run()
    assert figures["bytes"] == pytest.approx(size(address, number), rel=0.5)
    assert figures["index_bytes"] == 0
    assert count(address, number) == 300


async def test_the_disk_is_estimated_as_it_is_used(database: Database, address: EmbeddedAddress) -> None:
    for dimensions in (256, 384, 1536):
        number = 100 + dimensions
        run(
            address,
            f"CREATE TABLE embedding_v{number} (user_key bigint, conversation uuid, seq bigint, tenant_id int, "
            f"text_hash bytea, embedding vector({dimensions}), PRIMARY KEY (user_key, conversation, seq))",
        )
        run(address, f"ALTER TABLE embedding_v{number} ALTER COLUMN embedding SET STORAGE PLAIN")
        run(
            address,
            f"INSERT INTO embedding_v{number} SELECT hashint8(n / 100), md5((n / 100)::text)::uuid, n, 1, "
            f"decode(repeat(md5(n::text), 2), 'hex'), ARRAY(SELECT random() + n * 0 FROM "
            f"generate_series(1, {dimensions})) FROM generate_series(1, 2000) n",
        )
        assert disk(2000, dimensions, 20_000)[0] == pytest.approx(size(address, number), rel=0.2), dimensions
        run(address, f"CREATE INDEX ON embedding_v{number} USING hnsw (embedding vector_cosine_ops)")
        assert disk(2000, dimensions, 2000)[0] == pytest.approx(size(address, number), rel=0.25), dimensions


def size(address: EmbeddedAddress, version: int) -> int:
    return int(rows(address, f"SELECT pg_total_relation_size('embedding_v{version}')")[0][0])
