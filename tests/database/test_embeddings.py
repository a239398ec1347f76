"""Every text-bearing event gets one vector of the right text, whatever happens between; what is erased, none."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import psycopg
import pytest
import sqlalchemy as sa

from schema.embeddings import relation_name
from schema.tables import embedding_routing
from schema.vocabulary import VersionState
from server.database.address import Address, EmbeddedAddress
from server.database.connections import Database
from server.database.ids import ConversationId, parse_conversation_id
from server.database.tenant import Tenant
from server.database.upgrade import owning, upgrade
from server.embeddings import pending, sweep, versions
from server.embeddings.embedder import Embedder
from server.embeddings.lane import ROLE
from server.embeddings.making import make, text_hash
from server.embeddings.model import Model, open_model
from server.embeddings.providers import Spec
from server.embeddings.relations import create_relation, ensure_first, probe, register
from server.embeddings.texts import build
from server.embeddings.vectors import vectors_of
from server.embeddings.versions import DEFAULT_SPEC
from server.errors import ModelRefused, ProviderUnavailable
from server.log import conversations, erase, retention
from server.log.append import Appender
from server.log.events import NewEvent
from server.log.read import read_range
from server.settings import Settings
from tests.api.test_events import append, new_conversation
from tests.conftest import serving, the_tenant
from tests.embedding_server import EmbeddingServer, embedding_server
from tests.operations.running import Serve, free_port

PATIENCE = 30.0  # seconds
STATIC = open_model(DEFAULT_SPEC)


def event(text: str, **fields: Any) -> NewEvent:
    return NewEvent(role="user", content=msgspec.Raw(msgspec.json.encode(text)), **fields)


def rows(address: Address, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        return connection.execute(query.encode(), values).fetchall()


def stored(address: Address, version: int = 1) -> dict[tuple[str, int], tuple[bytes, np.ndarray[Any, Any]]]:
    """Return all vectors of a version, by conversation and seq."""
    found = rows(address, f"SELECT conversation::text, seq, text_hash, embedding::text FROM {relation_name(version)}")
    return {(owner, seq): (hashed, np.array(msgspec.json.decode(text))) for owner, seq, hashed, text in found}


def behind(address: Address, version: int = 1) -> int:
    query = (
        "SELECT count(*) FROM conversation c LEFT JOIN embedding_progress p ON p.user_key = c.user_key "
        "AND p.conversation = c.id AND p.version = %s WHERE c.head > coalesce(p.seq, 0)"
    )
    return int(rows(address, query, version)[0][0])


async def caught_up(address: Address, version: int = 1) -> None:
    """Wait until no conversation has an event beyond its progress."""
    deadline = time.monotonic() + PATIENCE
    while await asyncio.to_thread(behind, address, version):
        assert time.monotonic() < deadline, "events still wait for their vectors"
        await asyncio.sleep(0.02)


def hold_against_log(address: Address, tenant: Tenant, model: Model = STATIC, version: int = 1) -> int:
    """Compare every vector with the log: one for each event that has a text, of that text, and no other."""
    wanted: dict[tuple[str, int], str] = {}
    query = (
        "SELECT conversation::text, seq, type, role, name, content FROM event "
        "WHERE erased_at IS NULL AND tenant_id = %s"
    )
    for owner, seq, kind, role, name, content in rows(address, query, tenant.id):
        logged = NewEvent(
            type=kind, role=role, name=name, content=msgspec.UNSET if content is None else msgspec.Raw(content.encode())
        )
        if (built := build(logged)) is not None:
            wanted[owner, seq] = built.text
    found = stored(address, version)
    assert found.keys() == wanted.keys()
    if wanted:
        expected = model.embed_documents(list(wanted.values()))
        for place, vector in zip(wanted, expected, strict=True):
            hashed, embedding = found[place]
            assert hashed == text_hash(tenant, wanted[place]), place
            assert np.allclose(embedding, vector, atol=1e-3), place
    return len(wanted)


@asynccontextmanager
async def embedding(database: Database, **options: Any) -> AsyncIterator[Embedder]:
    """Run an embedder, ready to be asked."""
    embedder = Embedder(database, **options)
    task = asyncio.create_task(embedder.run())
    try:
        await embedder.ready()
        yield embedder
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_events_get_vectors_soon_after_their_append(
    client: httpx.AsyncClient, address: EmbeddedAddress, tenant: Tenant
) -> None:
    conversation = await new_conversation(
        client, user="ada", items=[{"type": "message", "role": "user", "content": "first"}]
    )
    url = f"/v1/conversations/{conversation}/events"
    long = "A long answer about gardens. " * 5000
    sent = [
        {"role": "user", "content": "I'm vegetarian.", "name": "Ada"},
        {"role": "assistant", "content": [{"type": "text", "text": "Noted."}, {"type": "image_url", "url": "x"}]},
        {"type": "tool_call", "call_id": "1", "name": "search", "content": {"query": "tofu"}},
        {"type": "tool_result", "call_id": "1", "content": "row " * 5000},
        {"type": "run", "run_id": "r", "content": {"state": "started"}},
        {"role": "user", "content": "null \x00 byte, \u200b, \ufeff, 😀, e\u0301, \u202e"},
        {"role": "user", "content": "\x00"},
        {"role": "user", "content": ""},
        {"role": "user", "content": "   "},
        {"role": "assistant", "content": long},
        {"type": "item", "content": {"deep": {"deep": [1, {"x": None}]}}},
        {"type": "reasoning", "content": None},
        {"role": "user", "content": "no"},
    ]
    answer = await client.post(url, json={"events": sent})
    assert answer.status_code == 201, answer.text
    await client.post(f"/v1/conversations/{conversation}/fork", json={"at_seq": 3})
    await caught_up(address)
    assert hold_against_log(address, tenant) >= 8
    assert rows(address, "SELECT * FROM embedding_failure") == []
    erased = answer.json()["events"][0]["id"]
    assert (await client.delete(f"{url}/{erased}")).status_code == 200
    await caught_up(address)
    hold_against_log(address, tenant)
    found = (await client.get("/metrics")).text
    assert 'turnstone_embedding_provider_up{version="wordllama-256"} 1.0' in found
    assert 'turnstone_embedded_total{version="wordllama-256"}' in found


async def test_a_search_can_wait_for_what_it_must_see(
    database: Database, tenant: Tenant, address: EmbeddedAddress
) -> None:
    async with embedding(database) as embedder:
        appender = Appender(database, on_append=[embedder.on_append])
        at = (await conversations.create(database, tenant, user="ada")).id
        for number in range(1, 30):
            await appender.append(tenant, at, [event(f"number {number}")])
            await embedder.ensure(tenant, {at: number})
            found = await vectors_of(database, tenant, at.user_key, embedder.active()[0], {at.uuid: (number, number)})
            assert found.seqs.tolist() == [number]
        # What is not there is not waited for, be it an event or a conversation.
        await embedder.ensure(tenant, {at: 10_000, ConversationId(1, at.uuid): 3}, timeout=5)
    hold_against_log(address, tenant)


async def test_a_server_that_does_not_embed_waits_for_one_that_does(database: Database, tenant: Tenant) -> None:
    at = (await conversations.create(database, tenant)).id
    async with embedding(database, writes=False) as reader:
        await Appender(database, on_append=[reader.on_append]).append(tenant, at, [event("x")])
        with pytest.raises(ProviderUnavailable, match="within"):
            await reader.ensure(tenant, {at: 1}, timeout=0.2)
        async with embedding(database):
            await reader.ensure(tenant, {at: 1})


async def test_two_embedders_on_the_same_conversations(
    servers: Callable[[], Awaitable[httpx.AsyncClient]], address: EmbeddedAddress, tenant: Tenant
) -> None:
    one, two = await servers(), await servers()
    made = [await new_conversation(one, user=f"u{n}") for n in range(4)]

    async def write(client: httpx.AsyncClient, name: str) -> None:
        for number in range(30):
            assert (await append(client, made[number % 4], f"{name} says {number}")).status_code == 201

    await asyncio.gather(*(write(client, f"{client is one} {n}") for client in (one, two) for n in range(3)))
    await caught_up(address)
    assert hold_against_log(address, tenant) == 180
    assert rows(address, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]


async def test_what_is_erased_while_it_is_embedded_gets_no_vector(
    database: Database, tenant: Tenant, address: EmbeddedAddress
) -> None:
    """The moment is made by hand: read, embed, erase, write."""
    appender = Appender(database)
    made = [(await conversations.create(database, tenant, user=user)).id for user in ("a", "b", "c", "d")]
    for at in made:
        await appender.append(tenant, at, [event(f"secret {n}") for n in range(5)])
    branch = (await conversations.fork(database, tenant, made[2], 2)).id
    connection = await database.connect(ROLE)
    try:
        kind = await pending.vector_type(connection, STATIC.dimensions)
        found = await pending.read(connection, tenant, 1, made, page=100)
        assert [len(stretch.events) for stretch in found.stretches] == [5] * 4
        batch = make(tenant, STATIC, found.stretches)
        await erase.erase_event(database, tenant, made[0], 3, actor="test")
        await erase.erase_user(database, tenant, "b", actor="test")
        await erase.erase_conversation(database, tenant, made[2], actor="test")
        with psycopg.connect(address.conninfo("admin")) as admin:
            admin.execute("UPDATE conversation SET retention_days = 1 WHERE id = %s", (made[3].uuid,))
            admin.execute(
                "UPDATE event SET recorded_at = recorded_at - interval '2 days' WHERE conversation = %s AND seq < 4",
                (made[3].uuid,),
            )
        await retention.run(database, tenant)
        come = await pending.write(connection, tenant, 1, kind, batch)
        assert come == {made[0]: 5, made[2]: 2, made[3]: 5}
    finally:
        await connection.close()
    seqs = {
        uuid: sorted(seq for owner, seq in stored(address) if owner == str(uuid)) for uuid in (a.uuid for a in made)
    }
    assert list(seqs.values()) == [[1, 2, 4, 5], [], [1, 2], [4, 5]]
    hold_against_log(address, tenant)
    await erase.erase_conversation(database, tenant, branch, actor="test")
    assert not any(owner == str(made[2].uuid) for owner, _ in stored(address)), (
        "the last fork took the shared ones along"
    )
    await erase.erase_tenant(database, tenant, actor="test")
    for table in ("embedding_v1", "embedding_progress", "embedding_failure"):
        assert rows(address, f"SELECT count(*) FROM {table}") == [(0,)]


async def test_an_erasure_waits_for_a_write_and_then_takes_it_along(
    database: Database, tenant: Tenant, address: EmbeddedAddress
) -> None:
    at = (await conversations.create(database, tenant)).id
    await Appender(database).append(tenant, at, [event("secret")])
    with psycopg.connect(address.conninfo(ROLE)) as writer:
        writer.execute("SELECT set_config('turnstone.tenant', %s, true)", (str(tenant.id),))
        writer.execute("SELECT FROM conversation WHERE id = %s FOR KEY SHARE", (at.uuid,))
        erasing = asyncio.create_task(erase.erase_event(database, tenant, at, 1, actor="test"))
        # An append is not held up, only what takes something away.
        await asyncio.wait_for(Appender(database).append(tenant, at, [event("more")]), 5)
        writer.execute(
            "INSERT INTO embedding_v1 SELECT user_key, id, 1, tenant_id, 'hash', %s::vector "
            "FROM conversation WHERE id = %s",
            (str([1] * 256), at.uuid),
        )
        assert not erasing.done()
        writer.commit()
    await erasing
    assert stored(address) == {}


async def test_a_write_waits_for_an_erasure_and_then_leaves_it_alone(
    database: Database, tenant: Tenant, address: EmbeddedAddress
) -> None:
    at = (await conversations.create(database, tenant)).id
    await Appender(database).append(tenant, at, [event("secret"), event("fine")])
    connection = await database.connect(ROLE)
    try:
        kind = await pending.vector_type(connection, STATIC.dimensions)
        batch = make(tenant, STATIC, (await pending.read(connection, tenant, 1, [at], page=9)).stretches)
        async with database.transaction(tenant, role=erase.ROLE) as eraser:
            await erase.lock(eraser, tenant, at.user_key, sa.true())
            await erase.forget(eraser, tenant, at.user_key, at.uuid, "erase_events", 1, 1)
            writing = asyncio.create_task(pending.write(connection, tenant, 1, kind, batch))
            await asyncio.wait([writing], timeout=0.3)
            assert not writing.done()
        assert await writing == {at: 2}
    finally:
        await connection.close()
    assert {seq for _, seq in stored(address)} == {2}


async def test_what_a_fork_shares_is_embedded_once(
    database: Database, tenant: Tenant, address: EmbeddedAddress
) -> None:
    async with embedding(database) as embedder:
        appender = Appender(database, on_append=[embedder.on_append])
        at = (await conversations.create(database, tenant, user="ada")).id
        await appender.append(tenant, at, [event(f"shared {n}") for n in range(4)])
        branch = (await conversations.fork(database, tenant, at, 3)).id
        await appender.append(tenant, branch, [event("own")])
        await embedder.ensure(tenant, {at: 4, branch: 4})
        assert hold_against_log(address, tenant) == 5
        ranges = {at.uuid: (1, 3), branch.uuid: (4, 4)}
        found = await vectors_of(database, tenant, at.user_key, embedder.active()[0], ranges)
        assert found.owners == [at.uuid, branch.uuid]
        assert (found.owner.tolist(), found.seqs.tolist()) == ([0, 0, 0, 1], [1, 2, 3, 4])


async def test_an_import_is_embedded(
    client: httpx.AsyncClient, settings: Settings, new_database: Callable[[], EmbeddedAddress], tenant: Tenant
) -> None:
    conversation = await new_conversation(client, user="ada")
    for number in range(3):
        await append(client, conversation, f"fact {number}")
    exported = (await client.get("/v1/export")).content
    from server.access.tenants import bootstrap

    other = new_database()
    database = Database(other)
    await database.open()
    key = await bootstrap(database)
    async with serving(settings, other) as url, httpx.AsyncClient(base_url=url, timeout=30) as there:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/x-ndjson"}
        answer = await there.post("/v1/import", content=exported, headers=headers)
        assert answer.status_code == 200, answer.text
        await caught_up(other)
    assert hold_against_log(other, await the_tenant(database)) == 3
    await database.close()


def test_killed_between_append_and_embedding(tmp_path: Path) -> None:
    """Acknowledged events are pending in the log itself: a server that is killed at any point loses none."""
    data_dir, port = tmp_path / "data", free_port()
    sent: dict[str, list[str]] = {}
    serve = Serve(data_dir, port, "--embedder=off")
    try:
        serve.wait_ready()
        for kill in range(3):
            if kill:
                serve = Serve(data_dir, port, f"--workers={1 + kill % 2}")
                serve.wait_ready()
            with serve.client() as client:
                conversation = client.post("/v1/conversations", json={"user": f"u{kill}"}).json()["id"]
                for number in range(40):
                    url = f"/v1/conversations/{conversation}/events"
                    answer = client.post(url, json={"events": [{"role": "user", "content": f"{kill}:{number} hello"}]})
                    assert answer.status_code == 201
                    sent.setdefault(conversation, []).append(f"{kill}:{number} hello")
            family = serve.children("python")
            serve.process.send_signal(signal.SIGKILL)
            serve.process.wait()
            for process in family:
                process.wait(10)
        serve = Serve(data_dir, port)
        serve.wait_ready()
        address = _of(data_dir)
        asyncio.run(caught_up(address))
        found = stored(address)
        assert len(found) == 120
        for conversation, texts in sent.items():
            at = parse_conversation_id(conversation)
            assert at is not None
            for seq, vector in enumerate(STATIC.embed_documents(texts), 1):
                assert np.allclose(found[str(at.uuid), seq][1], vector, atol=1e-5), (conversation, seq)
    finally:
        serve.end()


def _of(data_dir: Path) -> Address:
    from server.operations.databases import running

    address = running(data_dir, None)
    assert address is not None
    return address


def add_version(address: Address, spec: Spec, name: str = "second", state: VersionState = "verified") -> int:
    """Add a version that every writer covers, as a migration does."""
    found = probe(spec)
    with owning(address) as connection:
        number = register(connection, name, spec, found, state=state)
        create_relation(connection, number, found.dimensions)
        connection.execute(
            sa.update(embedding_routing).values(
                epoch=embedding_routing.c.epoch + 1, written=sa.func.array_append(embedding_routing.c.written, number)
            )
        )
        connection.commit()
    assert upgrade(address) is False, "the relation was not secured as the next start would do it"
    return number


def spec_of(served: EmbeddingServer, **options: object) -> Spec:
    return Spec(provider="openai", model="words", options={"url": served.url, **options})


async def test_two_versions_are_written_side_by_side(
    database: Database, tenant: Tenant, address: EmbeddedAddress, served: EmbeddingServer
) -> None:
    """The second one starts under way: what was there before it is embedded too, without a backfill's help."""
    async with embedding(database) as embedder:
        appender = Appender(database, on_append=[embedder.on_append])
        at = (await conversations.create(database, tenant)).id
        await appender.append(tenant, at, [event(f"before {n}") for n in range(5)])
        await embedder.ensure(tenant, {at: 5})
        second = await asyncio.to_thread(add_version, address, spec_of(served))
        await appender.append(tenant, at, [event(f"after {n}") for n in range(5)])
        await caught_up(address, second)
        await embedder.ensure(tenant, {at: 10})
        await embedder.ensure(tenant, {at: 10}, version=second)
        assert embedder.active()[0].id == 1
    model = open_model(spec_of(served))
    assert hold_against_log(address, tenant, model, second) == hold_against_log(address, tenant) == 10
    model.close()
    await erase.erase_event(database, tenant, at, 2, actor="test")
    assert {seq for _, seq in stored(address)} == {seq for _, seq in stored(address, second)} == {1, *range(3, 11)}


async def test_a_refused_text_is_a_dead_letter_and_stops_nothing(
    database: Database, tenant: Tenant, address: EmbeddedAddress, served: EmbeddingServer
) -> None:
    second = await asyncio.to_thread(add_version, address, spec_of(served))
    served.poison = "poison"
    at = (await conversations.create(database, tenant)).id
    await Appender(database).append(tenant, at, [event("poison" if n in (3, 7) else f"fine {n}") for n in range(10)])
    async with embedding(database) as embedder:
        await caught_up(address, second)
        letters = "SELECT seq, error, attempts FROM embedding_failure WHERE version = %s ORDER BY seq"
        assert rows(address, letters, second) == [(4, "status 400", 1), (8, "status 400", 1)]
        assert {seq for _, seq in stored(address, second)} == {1, 2, 3, 5, 6, 7, 9, 10}
        await embedder.ensure(tenant, {at: 10}, version=second)
        embedder.sweep()  # as happens every hour: they are tried again, and no more often than that
        deadline = time.monotonic() + PATIENCE
        while rows(address, letters, second) != [(4, "status 400", 2), (8, "status 400", 2)]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        served.poison = None
        embedder.sweep()
        while rows(address, letters, second):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    model = open_model(spec_of(served))
    assert hold_against_log(address, tenant, model, second) == 10
    model.close()


async def test_a_provider_that_is_down_holds_up_no_append_and_catches_up(
    database: Database,
    tenant: Tenant,
    address: EmbeddedAddress,
    served: EmbeddingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from server.embeddings import lane
    from server.embeddings.providers import openai

    monkeypatch.setattr(openai, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(lane, "_BACKOFF", (0.05, 0.1))
    second = await asyncio.to_thread(add_version, address, spec_of(served))
    async with embedding(database) as embedder:
        appender = Appender(database, on_append=[embedder.on_append])
        at = (await conversations.create(database, tenant)).id
        await appender.append(tenant, at, [event("up")])
        await embedder.ensure(tenant, {at: 1}, version=second)
        served.down = True
        for number in range(20):
            await appender.append(tenant, at, [event(f"down {number}")])
        await embedder.ensure(tenant, {at: 21})
        began = time.monotonic()
        with pytest.raises(ProviderUnavailable, match="status 503"):
            await embedder.ensure(tenant, {at: 21}, version=second)
        assert time.monotonic() - began < 5
        assert len(stored(address, second)) == 1
        served.down = False
        await caught_up(address, second)
        served.statuses = [401]
        await appender.append(tenant, at, [event("once more")])
        await caught_up(address, second)
    model = open_model(spec_of(served))
    assert hold_against_log(address, tenant, model, second) == 22
    model.close()


async def test_a_model_that_changed_under_its_name_writes_nothing(
    database: Database,
    tenant: Tenant,
    address: EmbeddedAddress,
    served: EmbeddingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from server.embeddings import lane

    monkeypatch.setattr(lane, "_BACKOFF", (0.05, 0.1))
    second = await asyncio.to_thread(add_version, address, spec_of(served))
    served.seed = 7
    at = (await conversations.create(database, tenant)).id
    await Appender(database).append(tenant, at, [event("x")])
    async with embedding(database) as embedder:
        await caught_up(address)
        while embedder._lanes[second][0].problem is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with pytest.raises(ModelRefused, match="changed under its name"):
            await embedder.ensure(tenant, {at: 1}, version=second)
        assert stored(address, second) == {}
        served.seed = 0
        await caught_up(address, second)
    assert len(stored(address, second)) == 1


async def test_what_a_lost_hint_left_is_found_when_its_server_ends(
    database: Database, tenant: Tenant, address: EmbeddedAddress
) -> None:
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as admin:
        admin.execute(
            "INSERT INTO server (id, hostname, pid, release, lease_until) "
            "VALUES (gen_random_uuid(), 'h', 1, '0', now() + interval '1 hour')"
        )
        async with embedding(database) as embedder:
            at = (await conversations.create(database, tenant)).id
            await embedder.ensure(tenant, {at: 1})  # its first look is over
            await asyncio.sleep(1.2)
            await Appender(database).append(tenant, at, [event("told to nobody")])
            admin.execute("DELETE FROM server")
            await caught_up(address)
    assert hold_against_log(address, tenant) == 1


async def test_vectors_of_many_dimensions_are_half_as_long(
    database: Database, tenant: Tenant, address: EmbeddedAddress
) -> None:
    with embedding_server(2100) as served:
        second = await asyncio.to_thread(add_version, address, spec_of(served))
        async with embedding(database) as embedder:
            appender = Appender(database, on_append=[embedder.on_append])
            at = (await conversations.create(database, tenant)).id
            await appender.append(tenant, at, [event(f"word{n} and more") for n in range(40)])
            await embedder.ensure(tenant, {at: 40}, version=second)
            version = embedder.registered.versions[second]
            found = await vectors_of(database, tenant, at.user_key, version, {at.uuid: (5, 39)})
        model = open_model(spec_of(served))
        expected = model.embed_documents([f"word{n} and more" for n in range(4, 39)])
        model.close()
    assert found.seqs.tolist() == list(range(5, 40))
    assert found.matrix.dtype == np.dtype(np.float32)
    assert np.allclose(found.matrix, expected, atol=1e-3)
    kinds = (
        "SELECT atttypid::regtype::text, attstorage::text FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attname = 'embedding'"
    )
    assert rows(address, kinds, relation_name(second)) == [("halfvec", "p")]


async def test_a_users_vectors_come_in_order_and_are_the_tenants_own(
    database: Database, tenant: Tenant, address: EmbeddedAddress
) -> None:
    async with embedding(database) as embedder:
        appender = Appender(database, on_append=[embedder.on_append])
        made = [(await conversations.create(database, tenant, user="ada")).id for _ in range(3)]
        for at in made:
            await appender.append(tenant, at, [event(f"{at.uuid} {n}") for n in range(1000)])
            for _ in range(3):
                await appender.append(tenant, at, [event(f"{at.uuid} more {n}") for n in range(700)])
        await embedder.ensure(tenant, dict.fromkeys(made, 3100))
        version, model = embedder.active()
        asked = [(at.uuid, (10, 3000)) for at in reversed(made)]
        found = await vectors_of(database, tenant, made[0].user_key, version, asked)
        assert found.owner.tolist() == [place for place in range(3) for _ in range(2991)]
        assert found.seqs.tolist() == list(range(10, 3001)) * 3
        log = await read_range(database, tenant, made[2], after_seq=2500, limit=1)
        texts = [built.text for one in log.events if (built := build(one))]
        assert np.allclose(found.matrix[2501 - 10], model.embed_documents(texts)[0], atol=1e-6)
        stranger = tenant._replace(id=tenant.id + 1)
        nothing = await vectors_of(database, stranger, made[0].user_key, version, asked)
        assert nothing.matrix.shape == (0, 256)


async def test_looking_for_what_waits_takes_pages(
    database: Database, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_PAGE", 4)
    monkeypatch.setattr(sweep, "_LOOKED_AT", 3)
    appender = Appender(database)
    made = [(await conversations.create(database, tenant, user=f"u{n}")).id for n in range(11)]
    for at in made[::2]:
        await appender.append(tenant, at, [event("x"), event("y")])
    found = [page.conversations async for page in sweep.run(database, 1)]
    assert [at for page in found for at in page] == made[::2][::-1], "newest first"
    assert all(events == 2 for page in found for events in page.values())


async def test_the_first_version_is_made_once(new_database: Callable[[], EmbeddedAddress]) -> None:
    address = new_database()
    assert ensure_first(address) is False
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as admin:
        admin.execute("DELETE FROM embedding_routing")
        admin.execute("DELETE FROM embedding_version")
        admin.execute("DROP TABLE embedding_v1")
    made = await asyncio.gather(*(asyncio.to_thread(ensure_first, address) for _ in range(3)))
    assert sorted(made) == [False, False, True]
    database = Database(address)
    await database.open()
    registered = await versions.read(database)
    await database.close()
    assert registered.active is not None
    assert (registered.active.name, registered.active.dimensions) == ("wordllama-256", 256)
    assert [version.id for version in registered.written] == [registered.active.id]
    registered.active.open().close()
