"""What was written before a version was there gets its vectors: all, once, of the right texts, whatever happens."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from server.access.tenants import bootstrap
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.embedded import EmbeddedPostgres
from server.database.tenant import Tenant
from server.database.upgrade import upgrade
from server.embeddings import lane
from server.embeddings.backfill import backlog, worker
from server.embeddings.backfill.worker import Worker
from server.embeddings.model import Model
from server.embeddings.providers import openai
from server.embeddings.relations import ensure_first
from server.log import conversations, erase
from server.log.append import Appender
from tests.conftest import the_tenant
from tests.database.candidates import (
    WorkerProcess,
    add_candidate,
    change,
    count,
    rows,
    run,
    said,
    spec_of,
    until,
    write_log,
)
from tests.database.test_embeddings import caught_up, embedding, hold_against_log
from tests.embedding_server import EmbeddingServer

KILLS = 10
FRESH = backlog._FRESH
MINE = "FROM pg_stat_activity WHERE usename = 'turnstone_worker' AND datname = current_database()"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is young is not left to the servers, there being none; and nobody waits long."""
    monkeypatch.setattr(backlog, "_FRESH", 0.0)
    monkeypatch.setattr(worker, "_LOOK", 0.02)
    monkeypatch.setattr(worker, "_LONG", 0.2)
    monkeypatch.setattr(worker, "_OTHERS", 0.02)
    monkeypatch.setattr(worker, "_BACKOFF", (0.02, 0.1))
    monkeypatch.setattr(openai, "_FIRST_PAUSE", 0.001)


async def settled(database: Database, address: EmbeddedAddress) -> None:
    """Let the active version have all its vectors, as it would on a server that runs."""
    async with embedding(database):
        await caught_up(address)


async def test_a_backfill_fills_in_what_was_there_newest_first(
    database: Database, tenant: Tenant, address: EmbeddedAddress, served: EmbeddingServer, words: Model
) -> None:
    made = await write_log(database, tenant)
    appender = Appender(database)
    branch = (await conversations.fork(database, tenant, made[0], 20)).id
    await appender.append(tenant, branch, [said("the fork's own"), said(""), said("   ")])
    await erase.erase_event(database, tenant, made[1], 3, actor="test")
    await erase.erase_conversation(database, tenant, made[2], actor="test")
    version = await asyncio.to_thread(add_candidate, address, spec_of(served))
    before = await backlog.read(database, version)
    assert (before.waiting, before.dead, before.workers) == (before.events, 0, ())
    served.requests.clear()
    backfill = Worker(database)
    await backfill.run()
    assert backfill.embedded == hold_against_log(address, tenant, words, version) == 250
    asked = [text for request in served.requests for text in request["input"]]
    # Two batches are on their way at once, so that the first two may come in either order.
    whose = list(dict.fromkeys(text.split()[0] for text in asked if "says" in text or "fork" in text))
    assert set(whose[:2]) == {"the", "w5"}, f"the newest conversations come first: {whose}"
    assert whose[-1] == "w0", whose
    after = await backlog.read(database, version)
    assert (after.events, after.waiting, after.conversations) == (before.events, 0, 0)
    assert rows(address, "SELECT * FROM embedding_worker") == []
    assert rows(address, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]


@pytest.mark.timeout(300)
async def test_killed_again_and_again(
    database: Database,
    tenant: Tenant,
    address: EmbeddedAddress,
    served: EmbeddingServer,
    words: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it runs, events are appended, erased and deleted; nothing is missing, doubled or of the wrong text."""
    made = await write_log(database, tenant, 12, 100)
    await settled(database, address)
    # The workers here are processes of their own, which leave to the servers what is young.
    monkeypatch.setattr(backlog, "_FRESH", FRESH)
    version = await asyncio.to_thread(add_candidate, address, spec_of(served, batch=4))
    async with asyncio.timeout(4 * FRESH):
        while not await backlog.overdue(database, version):  # noqa: ASYNC110 - time alone makes it so
            await asyncio.sleep(0.1)
    served.seconds = 0.1
    appender = Appender(database)
    chance = random.Random(1)
    for kill in range(KILLS):
        before = count(address, version)
        process = await asyncio.to_thread(WorkerProcess, address)
        try:
            await until(lambda: count(address, version) > before, "progress")  # noqa: B023
            await erase.erase_event(database, tenant, made[kill % 5], 7 + kill, actor="test")
            await appender.append(tenant, made[-1 - kill % 3], [said(f"appended before kill {kill}")])
            await asyncio.sleep(chance.uniform(0, 0.3))
        finally:
            await asyncio.to_thread(process.kill)
        if kill == 2:
            await erase.erase_conversation(database, tenant, made[5], actor="test")
    assert count(address, version) < 1_100, "it was killed before its end"
    served.seconds = 0
    assert await asyncio.to_thread(WorkerProcess(address).end) == 0
    await settled(database, address)
    await caught_up(address, version)
    wanted = 1_200 - 100 - KILLS + KILLS  # a conversation, and an event for each that was appended
    assert hold_against_log(address, tenant, words, version) == hold_against_log(address, tenant) == wanted
    assert rows(address, "SELECT count(*) FROM embedding_failure") == [(0,)]


async def test_no_transaction_is_open_while_it_embeds_and_what_is_erased_then_is_gone(
    database: Database, tenant: Tenant, address: EmbeddedAddress, served: EmbeddingServer, words: Model
) -> None:
    made = await write_log(database, tenant, 3, 10)
    await settled(database, address)
    version = await asyncio.to_thread(add_candidate, address, spec_of(served))
    backfill = Worker(database)
    running = asyncio.create_task(backfill.run())
    await until(lambda: backfill.why.startswith("no live requests"), "the model")
    served.open.clear()
    served.requests.clear()
    await until(lambda: served.requests, "a batch")
    await asyncio.sleep(0.5)
    old = "AND (xact_start < now() - interval '0.4 seconds' OR query_start < now() - interval '0.4 seconds')"
    assert rows(address, f"SELECT state, xact_start {MINE} {old}") == [("idle", None)] * 2, "both tasks' sessions"
    for at in made:
        await erase.erase_event(database, tenant, at, 4, actor="test")
    await erase.erase_conversation(database, tenant, made[1], actor="test")
    served.open.set()
    await running
    await settled(database, address)
    await caught_up(address, version)
    assert hold_against_log(address, tenant, words, version) == hold_against_log(address, tenant) == 18


async def test_a_provider_that_dies_midway_is_waited_for(
    database: Database, tenant: Tenant, address: EmbeddedAddress, served: EmbeddingServer, words: Model
) -> None:
    """And one that comes back with other weights, under the same name and dimensions, writes nothing."""
    await write_log(database, tenant, 6, 100)
    version = await asyncio.to_thread(add_candidate, address, spec_of(served))
    served.seconds = 0.01
    backfill = Worker(database)
    running = asyncio.create_task(backfill.run())
    reason = "SELECT why FROM embedding_worker"

    await until(lambda: count(address, version) > 50, "the first vectors")
    served.down = True
    await until(lambda: "status 503" in str(rows(address, reason)), "the reason")
    served.seed = 1
    served.down = False
    await until(lambda: "changed under its name" in str(rows(address, reason)), "the refusal")
    written = count(address, version)
    assert written < 600
    asked = len(served.requests)
    await until(lambda: len(served.requests) > asked + 6, "more attempts")
    assert count(address, version) == written
    served.seed = 0
    await running
    assert hold_against_log(address, tenant, words, version) == 600
    assert rows(address, "SELECT count(*) FROM embedding_failure") == [(0,)]


async def test_a_database_that_restarts_midway(tmp_path: Path, served: EmbeddingServer, words: Model) -> None:
    postgres = EmbeddedPostgres(tmp_path / "data", settings={"fsync": "off"})
    postgres.start()
    address = EmbeddedAddress(postgres.conninfo)
    try:
        await asyncio.to_thread(upgrade, address)
        await asyncio.to_thread(ensure_first, address)
        database = Database(address)
        await database.open()
        await bootstrap(database)
        tenant = await the_tenant(database)
        await write_log(database, tenant, 6, 100)
        version = await asyncio.to_thread(add_candidate, address, spec_of(served))
        served.seconds = 0.05
        running = asyncio.create_task(Worker(database).run())
        for _ in range(2):
            wanted = count(address, version) + 50
            await until(lambda: count(address, version) > wanted, "vectors")  # noqa: B023
            assert postgres.pid is not None
            os.kill(postgres.pid, signal.SIGQUIT)  # at once, as in a crash
            await until(lambda: not postgres.running(), "its end")
            await asyncio.to_thread(postgres.start)
        await running
        assert hold_against_log(address, tenant, words, version) == 600
        await database.close()
    finally:
        postgres.stop()


async def test_several_workers_share_the_work(
    database: Database, tenant: Tenant, address: EmbeddedAddress, served: EmbeddingServer, words: Model
) -> None:
    await write_log(database, tenant, 20, 30)
    version = await asyncio.to_thread(add_candidate, address, spec_of(served))
    served.seconds = 0.05
    workers = [Worker(database) for _ in range(3)]
    await asyncio.gather(*(one.run() for one in workers))
    assert all(one.embedded for one in workers)
    texts = [text for request in served.requests for text in request["input"] if "says" in text]
    assert len(texts) < 1.2 * 600, "who meets a conversation that another one has passes it by"
    assert hold_against_log(address, tenant, words, version) == 600


async def test_a_text_that_is_refused_is_a_dead_letter(
    database: Database, tenant: Tenant, address: EmbeddedAddress, served: EmbeddingServer, words: Model
) -> None:
    made = await write_log(database, tenant, 2, 40)
    await Appender(database).append(tenant, made[1], [said("poison"), said("fine")])
    version = await asyncio.to_thread(add_candidate, address, spec_of(served))
    served.poison = "poison"
    backfill = Worker(database)
    await backfill.run()
    assert (backfill.embedded, backfill.refused) == (81, 1)
    assert (await backlog.read(database, version))[1:4] == (0, 0, 1)
    assert rows(address, "SELECT seq, error FROM embedding_failure") == [(41, "status 400")]
    await Worker(database).run()
    assert count(address, version) == 81, "nothing is left, so nothing is begun"
    served.poison = None
    await Appender(database).append(tenant, made[1], [said("more")])
    await Worker(database).run()  # tries it once more, since it has something to do
    assert hold_against_log(address, tenant, words, version) == 83
    assert rows(address, "SELECT * FROM embedding_failure") == []


def seen(address: EmbeddedAddress, p99: float | None, requests: int = 100, waiting: int = 0) -> None:
    """Say what a server saw in a window."""
    run(
        address,
        "INSERT INTO server (id, hostname, pid, release, lease_until, load_at, p99_ms, requests, waiting) VALUES "
        "('00000000-0000-0000-0000-000000000001', 'h', 1, '0', now() + interval '1 hour', clock_timestamp(), %s, %s, "
        "%s) ON CONFLICT (id) DO UPDATE SET load_at = clock_timestamp(), p99_ms = excluded.p99_ms, "
        "requests = excluded.requests, waiting = excluded.waiting",
        p99,
        requests,
        waiting,
    )


async def test_it_gives_way_to_live_requests_and_says_why(
    database: Database, tenant: Tenant, address: EmbeddedAddress, served: EmbeddingServer
) -> None:
    await write_log(database, tenant, 10, 200)
    version = await asyncio.to_thread(add_candidate, address, spec_of(served, batch=2))
    served.seconds = 0.01
    seen(address, 10.0)
    running = asyncio.create_task(Worker(database).run())

    def said_by_workers() -> str:
        return str(rows(address, "SELECT why, duty FROM embedding_worker"))

    async def after(p99: float | None, words: str, **more: int) -> None:
        await asyncio.to_thread(seen, address, p99, **more)
        await until(lambda: words in said_by_workers(), words)

    try:
        await until(lambda: "begins at 10%" in said_by_workers(), "a slow beginning")
        assert rows(address, "SELECT quiet_ms FROM embedding_worker") == [(10.0,)]
        await after(10.5, "at 15%")
        await after(30.0, "pauses: live p99 is 30.0 ms, the limit 20.0 ms")
        written = count(address, version)
        await after(25.0, "waits: live p99 is 25.0 ms")
        assert count(address, version) - written <= 2 * 16, "what had been begun"
        await after(12.0, "goes on at")
        await after(11.0, "at 1")
        await after(11.0, "waits: 7 fresh events come first", waiting=7)
        # A worker that joins them would find the server busy, and take that for quiet.
        await after(19.0, "slows to")
        other = asyncio.create_task(Worker(database).run())
        await until(lambda: len(rows(address, "SELECT id FROM embedding_worker")) == 2, "another worker")
        await until(lambda: "None" not in str(rows(address, "SELECT quiet_ms FROM embedding_worker")), "its measure")
        assert max(rows(address, "SELECT quiet_ms FROM embedding_worker")) <= (10.1,)
        await asyncio.to_thread(change, address, version, "backfilling", paused=True)
        await asyncio.gather(running, other)
        assert rows(address, "SELECT * FROM embedding_worker") == []
        assert 0 < count(address, version) < 2000
    finally:
        await asyncio.to_thread(change, address, version, "backfilling", paused=True)
        await running


async def test_the_duty_is_kept_to(
    database: Database, tenant: Tenant, address: EmbeddedAddress, served: EmbeddingServer
) -> None:
    """At a tenth of its time it embeds at a tenth of its rate, however many batches are under way at once."""
    await write_log(database, tenant, 10, 100)
    version = await asyncio.to_thread(add_candidate, address, spec_of(served, batch=8))
    served.seconds = 0.02
    seen(address, 10.0)
    running = asyncio.create_task(Worker(database).run())
    try:
        await until(lambda: count(address, version) > 0, "a vector")
        served.requests.clear()
        await asyncio.sleep(1.5)
        assert 1 <= len(served.requests) < 1.5 / 0.02 / 10 * 4
    finally:
        await asyncio.to_thread(change, address, version, "backfilling", paused=True)
        await running


async def test_a_lane_leaves_to_the_backfill_what_was_there_before(
    database: Database,
    tenant: Tenant,
    address: EmbeddedAddress,
    served: EmbeddingServer,
    words: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, older = reversed(await write_log(database, tenant, 2, 100))
    version = await asyncio.to_thread(add_candidate, address, spec_of(served), "writing")
    async with embedding(database) as embedder:
        appender = Appender(database, on_append=[embedder.on_append])
        await until(lambda: served.requests, "its probe")
        fresh = (await conversations.create(database, tenant)).id
        branch = (await conversations.fork(database, tenant, old, 50)).id
        embedder.sweep()
        for number in range(3):
            for at in (old, fresh, branch):
                await appender.append(tenant, at, [said(f"fresh {number} {at.uuid}")])
        await embedder.ensure(tenant, {fresh: 3, branch: 53}, version=version)
        await caught_up(address)
        assert count(address, version) == 6, "fresh ones, in a conversation that lacks nothing"
        await embedder.ensure(tenant, {older: 10}, version=version)  # a search needs these
        assert (
            rows(address, f"SELECT count(*) FROM embedding_v{version} WHERE conversation = %s", older.uuid)[0][0] >= 10
        )
        assert rows(address, f"SELECT min(seq) FROM embedding_v{version} WHERE conversation = %s", old.uuid) == [
            (None,)
        ]
        await asyncio.to_thread(change, address, version, "verified")
        await caught_up(address, version)
    assert hold_against_log(address, tenant, words, version) == 209


async def test_a_candidate_that_changed_under_its_name_is_not_written(
    database: Database,
    tenant: Tenant,
    address: EmbeddedAddress,
    served: EmbeddingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither by a server nor by a backfill, whatever it was when the version was added."""
    monkeypatch.setattr(lane, "_BACKOFF", (0.02, 0.1))
    await write_log(database, tenant, 2, 20)
    version = await asyncio.to_thread(add_candidate, address, spec_of(served))
    served.seed = 1
    running = asyncio.create_task(Worker(database).run())
    async with embedding(database) as embedder:
        fresh = (await conversations.create(database, tenant)).id
        await Appender(database, on_append=[embedder.on_append]).append(tenant, fresh, [said("fresh")])
        await caught_up(address)
        await until(lambda: "changed under" in str(rows(address, "SELECT why FROM embedding_worker")), "the refusal")
        assert count(address, version) == 0
        served.seed = 0
        await running
        await caught_up(address, version)
    assert count(address, version) == 41


async def test_servers_keep_a_worker_running(
    servers: Callable[[], Awaitable[httpx.AsyncClient]],
    database: Database,
    tenant: Tenant,
    address: EmbeddedAddress,
    served: EmbeddingServer,
    words: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two servers on one machine start one; it is started again when it was killed, and ends when it is done."""
    from server.embeddings.backfill import kept

    monkeypatch.setattr(kept, "_LOOK", 0.05)
    monkeypatch.setattr(kept, "_AGAIN", 0.05)
    await write_log(database, tenant, 6, 100)
    run(address, "UPDATE event SET recorded_at = recorded_at - interval '1 hour'")
    version = await asyncio.to_thread(add_candidate, address, spec_of(served))
    served.seconds = 0.05
    await servers()
    await servers()
    workers = "SELECT pid FROM embedding_worker WHERE seen_at > now() - interval '5 seconds'"
    await until(lambda: count(address, version) > 0, "a vector")
    ((pid,),) = rows(address, workers)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: any(other != pid for (other,) in rows(address, workers)), "another worker")
    served.seconds = 0
    await caught_up(address, version)
    await until(lambda: set(rows(address, workers)) <= {(pid,)}, "its end")
    assert hold_against_log(address, tenant, words, version) == 600
