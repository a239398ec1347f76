"""Hot working sets beside an erasing, deleting, restarting world: what they may serve, store and hold."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import psycopg
import pytest
from msgspec import Raw

from server.context import checkpoints, hot, reading, touches
from server.context.hot import WorkingSets
from server.context.keeper import Keeper
from server.context.reading import Reader
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.ids import ConversationId, uuid7
from server.database.round_trip import Statement, round_trip
from server.database.tenant import Tenant
from server.errors import Conflict, DatabaseUnavailable, InvalidInput, NotFound, Rebuilding
from server.log import erase
from server.log.append import Appender
from server.log.conversations import create, fork
from server.log.events import NewEvent
from server.log.heads import Heads
from server.log.lineage import Lineage
from server.log.read import read_state
from server.working_set import checkpoint
from tests.database.stories import Told, plainly

LIMIT = 50_000_000
NEEDLE = "xylophonist"


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as opened:
        yield opened


def said(*texts: str, **more: Any) -> list[NewEvent]:
    return [NewEvent(role="user", content=Raw(msgspec.json.encode(text)), **more) for text in texts]


@pytest.fixture
def heads(database: Database) -> Heads:
    return Heads(database)


@pytest.fixture
def server(database: Database, heads: Heads, executor: ThreadPoolExecutor) -> WorkingSets:
    return WorkingSets(database, heads, executor, LIMIT)


@pytest.fixture
def appender(database: Database, server: WorkingSets) -> Appender:
    return Appender(database, on_append=[server.on_append])


@pytest.fixture
async def conversation(database: Database, tenant: Tenant) -> ConversationId:
    return (await create(database, tenant)).id


async def fill(appender: Appender, tenant: Tenant, at: ConversationId, count: int) -> None:
    """Append short events, none of which is like another."""
    state = (await appender.append(tenant, at, said("begin"))).head
    while state < count:
        texts = [f"event {state + place} of {place % 7}" for place in range(min(999, count - state))]
        state = (await appender.append(tenant, at, said(*texts))).head


def stored(address: EmbeddedAddress, at: ConversationId) -> list[int]:
    """Return the heads of a conversation's checkpoints."""
    with psycopg.connect(address.conninfo("admin")) as connection:
        rows = connection.execute("SELECT head FROM checkpoint WHERE conversation = %s ORDER BY head", (at.uuid,))
        return [row[0] for row in rows]


async def until_waiting(address: EmbeddedAddress) -> None:
    """Wait until a statement waits for a lock in the database."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with await psycopg.AsyncConnection.connect(address.conninfo("admin"), autocommit=True) as connection:
        while True:
            row = await (await connection.execute(query)).fetchone()
            if row and row[0]:
                return
            await asyncio.sleep(0.005)


async def test_an_append_is_folded_from_memory(
    server: WorkingSets, appender: Appender, tenant: Tenant, conversation: ConversationId, monkeypatch: Any
) -> None:
    await appender.append(tenant, conversation, said("one"))
    first = await server.get(tenant, conversation)
    await appender.append(tenant, conversation, said("two", "three"))

    async def no_reading(*_: object, **__: object) -> None:
        raise AssertionError("the log was read")

    monkeypatch.setattr("server.context.folding.read_range", no_reading)
    found = await server.get(tenant, conversation)
    assert (found.head, found.fold.head, sorted(found.events)) == (3, 3, [1, 2, 3])
    assert found is first
    assert (server.hits, server.misses) == (1, 1)
    monkeypatch.undo()
    fold, events = await plainly(server._database, tenant, Told(conversation))
    assert checkpoint.dump(found.fold) == checkpoint.dump(fold)
    assert found.events == events


async def test_what_nobody_reads_is_not_kept_forever(
    server: WorkingSets, appender: Appender, tenant: Tenant, conversation: ConversationId
) -> None:
    await appender.append(tenant, conversation, said("one"))
    held = await server.get(tenant, conversation)
    for number in range(hot.MAX_PENDING + 10):
        await appender.append(tenant, conversation, said(str(number)))
        assert held.pending_events <= hot.MAX_PENDING
    assert (await server.get(tenant, conversation)).head == hot.MAX_PENDING + 11


async def test_min_seq_is_served_from_memory_for_a_moment(
    server: WorkingSets,
    appender: Appender,
    database: Database,
    tenant: Tenant,
    conversation: ConversationId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hot, "TRUST", 60)
    await appender.append(tenant, conversation, said("one"))
    await server.get(tenant, conversation)
    await appender.append(tenant, conversation, said("two"))
    await database.close()
    assert (await server.get(tenant, conversation, min_seq=2)).head == 2
    with pytest.raises(DatabaseUnavailable):
        await server.get(tenant, conversation)  # without it, the database is asked
    monkeypatch.setattr(hot, "TRUST", 0)
    with pytest.raises(DatabaseUnavailable):
        await server.get(tenant, conversation, min_seq=2)


async def test_min_seq_beyond_the_head_is_a_conflict(
    server: WorkingSets, appender: Appender, tenant: Tenant, conversation: ConversationId
) -> None:
    await appender.append(tenant, conversation, said("one"))
    with pytest.raises(Conflict) as raised:
        await server.get(tenant, conversation, min_seq=2)
    assert (raised.value.details, raised.value.param) == ({"head": 1}, "min_seq")


async def test_what_is_deleted_or_anothers_is_not_found(
    server: WorkingSets, appender: Appender, database: Database, tenant: Tenant, conversation: ConversationId
) -> None:
    await appender.append(tenant, conversation, said("one"))
    await server.get(tenant, conversation)
    stranger = tenant._replace(id=tenant.id + 1)
    for who, at in [(stranger, conversation), (tenant, ConversationId(conversation.user_key, uuid7()))]:
        with pytest.raises(NotFound):
            await server.get(who, at)
        with pytest.raises(NotFound):
            await server.as_of(who, at, 1)
        with pytest.raises(NotFound):
            await server.touch(who, at, [1])
    await erase.erase_conversation(database, tenant, conversation, actor="test")
    for min_seq in (None, 1):
        with pytest.raises(NotFound):
            await server.get(tenant, conversation, min_seq=min_seq)
    assert server.bytes == 0


async def test_touches_are_checked(
    server: WorkingSets, appender: Appender, tenant: Tenant, conversation: ConversationId
) -> None:
    await appender.append(tenant, conversation, said("one", "two"))
    for wrong in ([], [0], [3], [1, 3], [1] * (touches.MAX_TOUCHED + 1)):
        with pytest.raises(InvalidInput):
            await server.touch(tenant, conversation, wrong)
    assert await server.touch(tenant, conversation, [2, 1, 2]) == (1, 2)
    assert await server.touch(tenant, conversation, [1]) == (2, 2)
    assert (await server.get(tenant, conversation)).state.touches == 2


async def many(address: EmbeddedAddress, tenant: Tenant, count: int) -> list[ConversationId]:
    """Make conversations of one event each."""
    ids = [ConversationId(number, uuid7()) for number in range(count)]
    keys, uuids = [at.user_key for at in ids], [at.uuid for at in ids]
    async with await psycopg.AsyncConnection.connect(address.conninfo("admin"), autocommit=True) as connection:
        await connection.execute(
            "INSERT INTO conversation (user_key, id, tenant_id, head, recorded_at, created_at) "
            "SELECT k, i, %s, 1, now(), now() FROM unnest(%s::bigint[], %s::uuid[]) AS t(k, i)",
            (tenant.id, keys, uuids),
        )
        await connection.execute(
            "INSERT INTO event (user_key, conversation, seq, recorded_at, occurred_at, tenant_id, type, role, content) "
            "SELECT c.user_key, c.id, 1, c.recorded_at, c.recorded_at, c.tenant_id, 'message', 'user', '\"hello\"' "
            "FROM conversation c WHERE c.id = ANY(%s)",
            (uuids,),
        )
    return ids


async def test_memory_is_bounded(
    address: EmbeddedAddress, database: Database, heads: Heads, tenant: Tenant, executor: ThreadPoolExecutor
) -> None:
    """A thousand conversations under a limit that holds a tenth of them."""
    server = WorkingSets(database, heads, executor, 5_000_000)
    appender = Appender(database, on_append=[server.on_append])
    ids = await many(address, tenant, 1000)
    for number, at in enumerate(ids):
        found = await server.get(tenant, at)
        server.remember(tenant, found, "answer", b"x" * 1000, 1000)
        assert server.bytes <= 5_000_000
        if number % 100 == 0:
            await appender.append(tenant, ids[0], said("again"))
            assert (await server.get(tenant, ids[0])).head == number // 100 + 2
    assert server.evictions >= 800
    assert server.bytes > 3_000_000
    assert (await server.get(tenant, ids[5])).head == 1


async def test_one_that_is_larger_than_memory_is_served_all_the_same(
    database: Database, heads: Heads, tenant: Tenant, executor: ThreadPoolExecutor, conversation: ConversationId
) -> None:
    server = WorkingSets(database, heads, executor, 1000)
    await fill(Appender(database, on_append=[server.on_append]), tenant, conversation, 100)
    for _ in range(2):
        assert len((await server.get(tenant, conversation)).events) == 100
    assert server.bytes == 0


async def test_answers_are_remembered_until_something_changes(
    server: WorkingSets, appender: Appender, tenant: Tenant, conversation: ConversationId
) -> None:
    await appender.append(tenant, conversation, said("one"))
    for number in range(hot.MAX_MEMO + 4):
        server.remember(tenant, await server.get(tenant, conversation), number, b"answer", 6)
    found = await server.get(tenant, conversation)
    assert len(found.memo) == hot.MAX_MEMO
    assert found.memo[hot.MAX_MEMO + 3] == b"answer"
    await server.touch(tenant, conversation, [1])
    assert (await server.get(tenant, conversation)).memo == {}
    server.remember(tenant, await server.get(tenant, conversation), "q", b"a", 1)
    await appender.append(tenant, conversation, said("two"))
    assert (await server.get(tenant, conversation)).memo == {}


async def test_a_slow_folder_writes_no_erased_words_back(
    server: WorkingSets,
    appender: Appender,
    address: EmbeddedAddress,
    database: Database,
    tenant: Tenant,
    conversation: ConversationId,
) -> None:
    """It folded before the erasure, and writes while that is under way, or after it."""
    await appender.append(tenant, conversation, said(NEEDLE, "two"))
    found = await server.get(tenant, conversation)
    made, state = checkpoints.make(found.fold), found.state
    async with await psycopg.AsyncConnection.connect(address.conninfo("admin")) as erasing:
        await erasing.execute("SELECT FROM conversation WHERE id = %s FOR UPDATE", (conversation.uuid,))
        writing = asyncio.create_task(checkpoints.write(database, tenant, conversation, state, made))
        await until_waiting(address)
        await erasing.execute("UPDATE conversation SET epoch = epoch + 1 WHERE id = %s", (conversation.uuid,))
        await erasing.commit()
    await writing
    assert stored(address, conversation) == []
    state = await read_state(database, tenant, conversation)
    await checkpoints.write(database, tenant, conversation, state, made)
    assert stored(address, conversation) == [2]
    await erase.erase_event(database, tenant, conversation, 1, actor="test")
    assert stored(address, conversation) == []
    await checkpoints.write(database, tenant, conversation, state, made)
    assert stored(address, conversation) == []


async def test_no_checkpoint_of_an_import_under_way(
    server: WorkingSets,
    appender: Appender,
    address: EmbeddedAddress,
    database: Database,
    tenant: Tenant,
    conversation: ConversationId,
) -> None:
    """Its touches come after its events."""
    await appender.append(tenant, conversation, said("one"))
    found = await server.get(tenant, conversation)
    under_way = found.state._replace(epoch=-1)
    assert not await checkpoints.write(database, tenant, conversation, under_way, checkpoints.make(found.fold))
    assert stored(address, conversation) == []


async def test_a_fork_that_is_made_during_an_erasure_learns_of_it(
    address: EmbeddedAddress, appender: Appender, database: Database, tenant: Tenant, conversation: ConversationId
) -> None:
    """Else what a server holds of the fork would never be compared with the log again."""
    await appender.append(tenant, conversation, said(NEEDLE, "two"))
    twin = (await fork(database, tenant, conversation, 2)).id
    late = uuid7(after=conversation.uuid)
    async with await psycopg.AsyncConnection.connect(address.conninfo("admin")) as forking:
        await forking.execute("SELECT FROM conversation WHERE id = %s FOR SHARE", (conversation.uuid,))
        erasing = asyncio.create_task(erase.erase_event(database, tenant, conversation, 1, actor="test"))
        await until_waiting(address)
        await forking.execute(
            "INSERT INTO conversation (user_key, id, tenant_id, head, recorded_at, created_at, parent, fork_seq, "
            "lineage, lineage_end) SELECT user_key, %s, tenant_id, head, recorded_at, created_at, parent, fork_seq, "
            "lineage, lineage_end FROM conversation WHERE id = %s",
            (late, twin.uuid),
        )
        await forking.commit()
    assert {at.uuid for at in await erasing} == {conversation.uuid, twin.uuid, late}
    assert (await read_state(database, tenant, ConversationId(conversation.user_key, late))).epoch == 1


async def test_erasure_while_others_fold(
    address: EmbeddedAddress, database: Database, tenant: Tenant, executor: ThreadPoolExecutor, monkeypatch: Any
) -> None:
    """From the moment that an erasure is acknowledged, no server shows the text, and no checkpoint counts its words."""
    monkeypatch.setattr(checkpoints, "EVERY_EVENTS", 20)
    monkeypatch.setattr(checkpoints, "PLACES", 4)
    other = Database(address)
    await other.open()
    servers = [WorkingSets(one, Heads(one), executor, LIMIT) for one in (database, other)]
    appender = Appender(database, on_append=[servers[0].on_append])
    at = (await create(database, tenant)).id
    gone: set[int] = set()
    stop = asyncio.Event()

    async def look(server: WorkingSets, min_seq: int | None) -> None:
        while not stop.is_set():
            known = set(gone)
            found = await server.get(tenant, at, min_seq=min_seq)
            shown = {seq for seq, event in found.events.items() if event.erased_at is None}
            assert not known & shown, f"{known & shown} is shown after its erasure"
            await asyncio.sleep(0.005)  # leave some of the machine to the writer

    await fill(appender, tenant, at, 40)
    looking = [asyncio.create_task(look(server, min_seq)) for server in servers for min_seq in (None, 1)]
    for number in range(6):
        head = (await appender.append(tenant, at, said(*[f"{NEEDLE} {number} {place}" for place in range(9)]))).head
        for seq in (head, head - 4):
            await erase.erase_event(database, tenant, at, seq, actor="test")
            gone.add(seq)
    stop.set()
    await asyncio.gather(*looking)
    for server in servers:
        await server.drain()
    fold, _ = await plainly(database, tenant, Told(at))
    for server in [*servers, WorkingSets(other, Heads(other), executor, LIMIT)]:
        assert checkpoint.dump((await server.get(tenant, at)).fold) == checkpoint.dump(fold)
    assert stored(address, at)
    await other.close()


async def test_a_long_fold_says_how_far_it_is_and_goes_on(
    database: Database,
    heads: Heads,
    tenant: Tenant,
    executor: ThreadPoolExecutor,
    conversation: ConversationId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await fill(Appender(database), tenant, conversation, 1500)
    server = WorkingSets(database, heads, executor, LIMIT)
    with monkeypatch.context() as patch:
        patch.setattr(hot, "PATIENCE", 0.05)
        with pytest.raises(Rebuilding, match=r"\d+ of 1500 events") as raised:
            await server.get(tenant, conversation)
    assert raised.value.retry_after
    assert (await server.get(tenant, conversation)).fold.head == 1500
    assert (await server.get(tenant, conversation)).fold.head == 1500
    assert server.misses == 2
    assert server.hits == 1


async def test_a_reader_who_leaves_does_not_stop_the_others(
    database: Database, heads: Heads, tenant: Tenant, executor: ThreadPoolExecutor, conversation: ConversationId
) -> None:
    await fill(Appender(database), tenant, conversation, 800)
    server = WorkingSets(database, heads, executor, LIMIT)
    readers = [asyncio.create_task(server.get(tenant, conversation)) for _ in range(5)]
    await asyncio.sleep(0.02)
    readers[0].cancel()
    found = await asyncio.gather(*readers, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert len({id(one) for one in found[1:]}) == 1


async def test_the_keeper_makes_checkpoints_of_what_nobody_reads(
    address: EmbeddedAddress, database: Database, heads: Heads, tenant: Tenant, executor: ThreadPoolExecutor
) -> None:
    keeper = Keeper(database, executor)
    server = WorkingSets(database, heads, executor, LIMIT, grown=keeper.grown)
    appender = Appender(database, on_append=[server.on_append])
    silent, growing = [(await create(database, tenant)).id for _ in range(2)]
    await fill(Appender(database), tenant, silent, 2500)  # as if by a process that has died since
    running = asyncio.create_task(keeper.run())
    try:
        await fill(appender, tenant, growing, 2500)
        async with asyncio.timeout(60):
            for at in (silent, growing):
                while max(stored(address, at), default=0) < 2500 - 2 * checkpoints.EVERY_EVENTS:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    fold, _ = await plainly(database, tenant, Told(silent))
    assert checkpoint.dump((await server.get(tenant, silent)).fold) == checkpoint.dump(fold)
    assert await keeper.sweep() == 0


async def test_two_keepers_do_not_do_the_same_work(
    address: EmbeddedAddress, database: Database, tenant: Tenant, executor: ThreadPoolExecutor, monkeypatch: Any
) -> None:
    at = (await create(database, tenant)).id
    await fill(Appender(database), tenant, at, 1200)
    kept: list[Keeper] = []
    begun, held = asyncio.Event(), asyncio.Event()

    async def keep(self: Keeper, *_: object) -> None:
        kept.append(self)
        begun.set()
        await held.wait()

    monkeypatch.setattr(Keeper, "keep", keep)
    one, other = Keeper(database, executor), Keeper(database, executor)
    working = asyncio.create_task(one._keep(tenant, at))
    await begun.wait()
    await other._keep(tenant, at)
    held.set()
    await working
    await other._keep(tenant, at)
    assert kept == [one, other]


async def test_a_first_read_of_a_long_conversation_is_short(
    address: EmbeddedAddress, database: Database, heads: Heads, tenant: Tenant, executor: ThreadPoolExecutor
) -> None:
    at = (await create(database, tenant)).id
    await fill(Appender(database), tenant, at, 20_000)
    first = WorkingSets(database, heads, executor, LIMIT)
    await first.get(tenant, at)
    await first.drain()
    heads_kept = stored(address, at)
    assert 20_000 - heads_kept[-1] < checkpoints.EVERY_EVENTS + checkpoints.PLACES
    assert len(heads_kept) < 25
    reader = await Reader.open(database, tenant, at)
    fold = await checkpoints.nearest(reader, 0, 20_000)
    assert fold is not None
    assert fold.head == heads_kept[-1]
    restarted = WorkingSets(database, heads, executor, LIMIT)
    found = await restarted.get(tenant, at)
    assert checkpoint.dump(found.fold) == checkpoint.dump((await first.get(tenant, at)).fold)
    then = await restarted.as_of(tenant, at, 11_111)
    assert (then.head, then.fold.head) == (11_111, 11_111)


async def test_what_other_versions_made_is_passed_over_and_replaced(
    address: EmbeddedAddress,
    database: Database,
    heads: Heads,
    tenant: Tenant,
    executor: ThreadPoolExecutor,
    conversation: ConversationId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await fill(Appender(database), tenant, conversation, 1200)
    server = WorkingSets(database, heads, executor, LIMIT)
    expected = checkpoint.dump((await server.get(tenant, conversation)).fold)
    await server.drain()
    before = stored(address, conversation)
    assert before
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        connection.execute("UPDATE checkpoint SET fold = 'nonsense'")
    server = WorkingSets(database, heads, executor, LIMIT)
    assert checkpoint.dump((await server.get(tenant, conversation)).fold) == expected
    await server.drain()
    assert stored(address, conversation) == before
    reader = await Reader.open(database, tenant, conversation)
    assert await checkpoints.nearest(reader, 0, 1200) is not None


@pytest.mark.parametrize("spacing", [64, 512])
def test_checkpoints_thin_out_with_their_distance(spacing: int) -> None:
    kept: list[int] = []
    for head in range(spacing, 200_000, spacing):
        kept.append(head)
        gone = set(checkpoints.superfluous(kept))
        kept = [one for one in kept if one not in gone]
    newest = kept[-1]
    assert newest + spacing >= 200_000
    for older, newer in zip([0, *kept], kept, strict=False):
        assert newer - older <= max(spacing, min((newest - older) // 4 + spacing, checkpoints.MAX_GAP))
    assert len(kept) < 2 * 200_000 / checkpoints.MAX_GAP + 30
    assert checkpoints.superfluous([]) == checkpoints.superfluous([spacing]) == []


async def test_every_look_up_goes_by_key(
    address: EmbeddedAddress, database: Database, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a scan the plan says ``Filter`` for what should be a condition of the index."""
    asked: list[Any] = []

    async def explained(connection: Any, calls: list[Any]) -> list[Any]:
        asked.extend(calls[1:])
        return await round_trip(connection, calls)

    monkeypatch.setattr(reading, "round_trip", explained)
    parent = ConversationId(7, uuid7())
    reader = Reader(database, tenant, ConversationId(7, uuid7()), Lineage([parent.uuid], [50]))
    await reader.call("c1", 3, 80)
    await reader.has_erased(3, 80)
    await reader.touches((3, 1), 80, touches=9)
    await reader.checkpoint(0, 80)
    columns = [("call_id",), ("conversation", "seq"), ("at",), ("head",)]
    for (statement, parameters, *_), conditions in zip(asked, columns, strict=True):
        async with database.hot.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config('turnstone.tenant', %s, true)", (str(tenant.id),))
            rows = await (await connection.execute("EXPLAIN " + _bound(statement, parameters))).fetchall()
        plan = "\n".join(row[0] for row in rows)
        assert "Seq Scan" not in plan, plan
        by_key = " ".join(line for line in plan.splitlines() if "Index Cond" in line)
        for column in ("user_key", "conversation", *conditions):
            assert re.search(rf"\b{column}\b", by_key), plan


def _bound(statement: Statement, parameters: list[bytes | None]) -> str:
    """Return a statement with its parameters written out."""
    literals = ["NULL" if value is None else f"'{value.decode()}'" for value in parameters]
    return re.sub(r"\$(\d+)", lambda match: literals[int(match[1]) - 1], statement.text.decode())
