"""The recorder of snapshots: in batches, bounded, and what becomes of them when the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from server.context import snapshots
from server.context.snapshots import Answered, Recorder, parse_snapshot_id
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.errors import DatabaseUnavailable
from server.log import conversations

COUNT = "SELECT count(*) FROM snapshot"


@pytest.fixture
async def recorder(database: Database) -> AsyncIterator[Recorder]:
    made = Recorder(database)
    yield made
    await made.drain()


@pytest.fixture
async def conversation(database: Database, tenant: Tenant) -> ConversationId:
    return (await conversations.create(database, tenant)).id


def answered(tenant: Tenant, size: int = 2) -> Answered:
    return Answered.of(tenant, "{" + " " * (size - 2) + "}", 1, b"}")


async def count(address: EmbeddedAddress) -> int:
    async with await psycopg.AsyncConnection.connect(address.conninfo("admin")) as connection:
        row = await (await connection.execute(COUNT)).fetchone()
    assert row is not None
    return int(row[0])


async def test_a_batch_is_one_transaction(
    recorder: Recorder, tenant: Tenant, conversation: ConversationId, address: EmbeddedAddress
) -> None:
    for _ in range(snapshots.BATCH):
        await recorder.add(tenant, conversation, answered(tenant))
    await recorder.drain()
    async with await psycopg.AsyncConnection.connect(address.conninfo("admin")) as connection:
        row = await (await connection.execute("SELECT count(*), count(DISTINCT xmin::text) FROM snapshot")).fetchone()
    assert row == (snapshots.BATCH, 1)


async def test_a_full_queue_makes_answers_wait(
    recorder: Recorder,
    tenant: Tenant,
    conversation: ConversationId,
    address: EmbeddedAddress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshots, "MAX_WAITING_BYTES", 1000)
    monkeypatch.setattr(snapshots, "_PATIENCE", 0.2)
    async with await psycopg.AsyncConnection.connect(address.conninfo("admin")) as blocking:
        await blocking.execute("SELECT FROM conversation FOR UPDATE")
        await recorder.add(tenant, conversation, answered(tenant, 1001))
        with pytest.raises(DatabaseUnavailable, match="too many snapshots"):
            await recorder.add(tenant, conversation, answered(tenant))
        monkeypatch.setattr(snapshots, "_PATIENCE", 20)
        waiting = asyncio.create_task(recorder.add(tenant, conversation, answered(tenant)))
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        assert not done
    assert (await waiting).startswith(b'{"snapshot_id":"ctx_')
    await recorder.drain()
    assert await count(address) == 2


async def test_a_database_that_is_away_is_waited_for(
    recorder: Recorder,
    tenant: Tenant,
    conversation: ConversationId,
    address: EmbeddedAddress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshots, "_RETRY", 0.01)
    insert, tries = recorder._insert, 0

    async def fails_twice(batch: list[snapshots.Snapshot]) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise DatabaseUnavailable("away")
        await insert(batch)

    monkeypatch.setattr(recorder, "_insert", fails_twice)
    body = await recorder.add(tenant, conversation, answered(tenant))
    made = parse_snapshot_id(body[16:68].decode())
    assert made is not None
    assert recorder.pending(tenant, made) is not None
    assert recorder._writing is not None
    await asyncio.wait_for(recorder._writing, 10)
    assert recorder.pending(tenant, made) is None
    assert (tries, await count(address)) == (3, 1)


async def test_a_stop_does_not_wait_for_a_database_that_is_away(
    recorder: Recorder, tenant: Tenant, conversation: ConversationId, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(batch: list[snapshots.Snapshot]) -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(recorder, "_insert", fails)
    await recorder.add(tenant, conversation, answered(tenant))
    async with asyncio.timeout(5):
        await recorder.drain()
    assert recorder._waiting_bytes == 0


async def test_a_batch_that_cannot_be_written_holds_up_no_other(
    recorder: Recorder, tenant: Tenant, conversation: ConversationId, address: EmbeddedAddress
) -> None:
    await recorder.add(tenant, conversation, Answered.of(tenant, "\0", 1, b"}"))  # PostgreSQL takes no such text
    await recorder.drain()
    await recorder.add(tenant, conversation, answered(tenant))
    await recorder.drain()
    assert await count(address) == 1
    assert recorder._waiting_bytes == 0


async def test_a_conversation_that_is_deleted_meanwhile_has_none(
    recorder: Recorder, tenant: Tenant, conversation: ConversationId, address: EmbeddedAddress
) -> None:
    """Its row stays while forks share it; its deletion is waited for, and then found."""
    async with await psycopg.AsyncConnection.connect(address.conninfo("admin")) as deleting:
        await deleting.execute("SELECT FROM conversation FOR UPDATE")  # first of all, as every erasure does
        await deleting.execute("UPDATE conversation SET deleted_at = now()")
        await recorder.add(tenant, conversation, answered(tenant))
        writing = asyncio.create_task(recorder.drain())
        done, _ = await asyncio.wait({writing}, timeout=0.2)
        assert not done
    await writing
    assert await count(address) == 0
