"""Heads and tails beneath the routes: shared look-ups, what listeners are told, how much is held."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from typing import Any

import msgspec
import psycopg
import pytest

from server.database.address import EmbeddedAddress
from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId, uuid7
from server.database.round_trip import Statement, array, round_trip
from server.database.tenant import Tenant
from server.errors import DatabaseUnavailable, IdConflict, NotFound, StaleHead
from server.log import conversations, heads, statements, tails
from server.log.append import Appender, Committed, Idempotency
from server.log.events import NewEvent
from server.log.heads import Heads
from server.log.read import read_range, read_state
from server.log.tails import Tails


def said(*texts: str, **more: Any) -> list[NewEvent]:
    return [NewEvent(role="user", content=msgspec.Raw(msgspec.json.encode(text)), **more) for text in texts]


@pytest.fixture
async def several(database: Database, tenant: Tenant) -> list[ConversationId]:
    """Conversations with 1, 2, 3 … events."""
    return [(await conversations.create(database, tenant, items=said(*"x" * number))).id for number in range(1, 6)]


async def test_each_asker_gets_its_own_conversations_state(
    database: Database, tenant: Tenant, several: list[ConversationId]
) -> None:
    looked_up = Heads(database)
    asked = [looked_up.read(tenant, at) for _ in range(20) for at in several]
    states = await asyncio.gather(*asked)
    assert [state.head for state in states] == [1, 2, 3, 4, 5] * 20
    assert states[:5] == [await read_state(database, tenant, at) for at in several]


async def test_many_share_a_round_trip(
    database: Database, tenant: Tenant, several: list[ConversationId], monkeypatch: pytest.MonkeyPatch
) -> None:
    trips = 0

    async def counted(*arguments: Any) -> Any:
        nonlocal trips
        trips += 1
        return await round_trip(*arguments)

    monkeypatch.setattr(heads, "round_trip", counted)
    looked_up = Heads(database, lanes=1)
    await asyncio.gather(*(looked_up.read(tenant, several[number % 5]) for number in range(heads.MAX_BATCH)))
    assert trips == 1
    await asyncio.gather(*(looked_up.read(tenant, several[number % 5]) for number in range(heads.MAX_BATCH + 1)))
    assert trips == 3


async def test_who_asks_during_a_look_up_waits_for_the_next(
    database: Database, tenant: Tenant, several: list[ConversationId], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an append that was acknowledged before the question could be missing from the answer."""
    looked_up = Heads(database, lanes=1)
    appender = Appender(database)
    answered, held = asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        rows = await round_trip(*arguments)
        answered.set()
        await held.wait()
        return rows

    monkeypatch.setattr(heads, "round_trip", slow)
    first = asyncio.create_task(looked_up.read(tenant, several[0]))
    await answered.wait()
    await appender.append(tenant, several[0], said("y"))
    second = asyncio.create_task(looked_up.read(tenant, several[0]))
    await asyncio.sleep(0)
    held.set()
    assert [(await first).head, (await second).head] == [1, 2]


async def test_what_is_missing_fails_only_who_asked_for_it(
    database: Database, tenant: Tenant, several: list[ConversationId]
) -> None:
    looked_up = Heads(database)
    nowhere = ConversationId(several[0].user_key, uuid7())
    other = Tenant(tenant.id + 1, "other", tenant.salt, operator=False, retention_days=None)
    leaving = asyncio.create_task(looked_up.read(tenant, several[2]))
    asking = [
        asyncio.create_task(looked_up.read(*asked))
        for asked in ((tenant, several[0]), (tenant, nowhere), (other, several[0]), (tenant, several[1]))
    ]
    await asyncio.sleep(0)
    leaving.cancel()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(answer) for answer in answers[1:3]] == [NotFound, NotFound]
    assert [answers[0].head, answers[3].head] == [1, 2]  # type: ignore[union-attr]
    assert (await looked_up.read(tenant, several[4])).head == 5


async def test_a_failure_reaches_every_asker_and_passes(
    database: Database, tenant: Tenant, several: list[ConversationId], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = Heads(database)

    async def broken(*_: Any) -> Any:
        raise psycopg.OperationalError("the connection is lost")

    with monkeypatch.context() as patched:
        patched.setattr(heads, "round_trip", broken)
        asked = (looked_up.read(tenant, several[number % 5]) for number in range(30))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(answer) for answer in answers} == {DatabaseUnavailable}
    assert (await looked_up.read(tenant, several[0])).head == 1


async def plan_of(database: Database, tenant: Tenant, statement: Statement, values: dict[str, object]) -> str:
    """Return how a statement is planned on a hot connection while the tables are as good as empty."""
    async with hot_connection(database) as connection:
        await connection.execute("SELECT set_config('turnstone.tenant', %s, false)", (str(tenant.id),))
        await connection.execute(b"PREPARE planned AS " + statement.text)
        bound = ["NULL" if value is None else f"'{value.decode()}'" for value in statement(values)[1]]
        rows = await (await connection.execute(f"EXPLAIN EXECUTE planned({', '.join(bound)})".encode())).fetchall()
        await connection.execute("RESET turnstone.tenant")
        await connection.execute("DEALLOCATE planned")
    return "\n".join(row[0] for row in rows)


async def test_a_look_up_reads_no_table_whole(
    database: Database, tenant: Tenant, several: list[ConversationId]
) -> None:
    keys, ids = zip(*several, strict=True)
    values: dict[str, object] = {"keys": array(keys), "ids": array(ids), "tenant": tenant.id}
    plan = await plan_of(database, tenant, heads.LOOKING_UP, values)
    assert re.search(r"Index Cond: .*\(id = k\.id\)", plan), plan
    assert "Seq Scan" not in plan


async def test_an_append_reads_no_table_whole(
    database: Database, tenant: Tenant, several: list[ConversationId]
) -> None:
    """Planned as joins, it would walk through all conversations of the tenant, and all Idempotency-Keys."""
    keys, ids = zip(*several, strict=True)
    values: dict[str, object] = defaultdict(lambda: None) | {
        "keys": array(keys),
        "ids": array(ids),
        "tenant": tenant.id,
    }
    for statement in (statements.LOCKING, statements.WRITING):
        plan = await plan_of(database, tenant, statement, values)
        scans = re.findall(r"Index Scan using .*\n\s+(Index Cond: .*)?", plan)
        assert scans, plan
        assert all(re.search(r"\bid = |key_digest = ", condition) for condition in scans), plan
        assert "Seq Scan" not in plan


async def test_listeners_are_told_before_the_answer(database: Database, tenant: Tenant) -> None:
    told: list[Committed] = []

    def failing(_: Committed) -> None:
        raise RuntimeError("a listener's own trouble")

    appender = Appender(database, on_append=[failing, told.append])
    at = (await conversations.create(database, tenant, items=said("one"))).id
    await appender.append(tenant, at, said("two", "three"))
    (committed,) = told
    state = await read_state(database, tenant, at)
    assert (committed.tenant, committed.conversation, committed.base) == (tenant, at, 1)
    assert tuple(state) == (
        committed.head,
        committed.floor,
        committed.epoch,
        committed.touches,
        committed.recorded_at,
    )
    assert [bytes(event.content) for event in committed.events] == [b'"two"', b'"three"']  # type: ignore[arg-type]


async def test_listeners_are_told_of_what_is_stored_and_of_nothing_else(database: Database, tenant: Tenant) -> None:
    told: list[Committed] = []
    appender = Appender(database, on_append=[told.append])
    at = (await conversations.create(database, tenant)).id
    key = Idempotency(b"k" * 16, b"b" * 16)
    for _ in range(2):
        await appender.append(tenant, at, said("keyed"), idempotency=key)
    for _ in range(2):
        await appender.append(tenant, at, said("named", id="n1"))
    await appender.append(tenant, at, [*said("named", id="n1"), *said("beside")])
    with pytest.raises(StaleHead):
        await appender.append(tenant, at, said("stale"), expected_head=0)
    with pytest.raises(IdConflict):
        await appender.append(tenant, at, said("another body", id="n1"))
    with pytest.raises(NotFound):
        await appender.append(tenant, ConversationId(at.user_key, uuid7()), said("nowhere"))
    seen = [(one.base, one.head, [bytes(event.content) for event in one.events]) for one in told]  # type: ignore[arg-type]
    assert seen == [(0, 1, [b'"keyed"']), (1, 2, [b'"named"']), (2, 3, [b'"beside"'])]


async def test_requests_that_share_a_commit_are_told_as_they_were_stored(database: Database, tenant: Tenant) -> None:
    told: list[Committed] = []
    appender = Appender(database, on_append=[told.append])
    at = [(await conversations.create(database, tenant)).id for _ in range(2)]
    await asyncio.gather(*(appender.append(tenant, at[n % 2], said(str(n), f"{n}b")) for n in range(20)))
    assert len(told) < 20
    for one in at:
        contents = [event.content for committed in told if committed.conversation == one for event in committed.events]
        page = await read_range(database, tenant, one, limit=100)
        assert contents == [event.content for event in page.events]


async def test_what_is_held_is_bounded(database: Database, tenant: Tenant) -> None:
    """Over all conversations, and for one that many events or large ones are appended to."""
    limit = 100_000
    held = Tails(database, Heads(database), limit)
    appender = Appender(database, on_append=[held.on_append])
    made = [(await conversations.create(database, tenant, items=said("x" * 5000))).id for _ in range(30)]
    for _ in range(2):
        for at in made:
            await held.read_range(tenant, at)
    assert held.bytes <= limit
    assert held.evictions > 10
    hot = made[-1]
    for count, size in ((150, 10), (150, 10), (3, 60_000), (1, 20), (1, 300_000), (1, 10), (201, 1), (5, 1)):
        await held.read_range(tenant, hot, descending=True)
        await appender.append(tenant, hot, said(*["y" * size] * count))
        assert held.bytes <= limit
        page = await held.read_range(tenant, hot, descending=True, limit=1000)
        plain = await read_range(database, tenant, hot, descending=True, limit=1000)
        assert [tails._encode(event) for event in plain.events] == page.events


async def test_a_poll_for_news_is_answered_from_memory(database: Database, tenant: Tenant) -> None:
    held = Tails(database, Heads(database), 100_000)
    appender = Appender(database, on_append=[held.on_append])
    at = (await conversations.create(database, tenant, items=said("one", "two"))).id
    assert (await held.read_range(tenant, at, after_seq=2))[:3] == ([], False, 2)
    assert (await held.read_range(tenant, at, after_seq=2))[:3] == ([], False, 2)
    await appender.append(tenant, at, said("three"))
    assert len((await held.read_range(tenant, at, after_seq=2)).events) == 1
    assert (held.hits, held.misses) == (2, 1)
    assert len((await held.read_range(tenant, at)).events) == 3, "what is not held is read"
    assert len((await held.read_range(tenant, at)).events) == 3
    assert (held.hits, held.misses) == (3, 2)
    with pytest.raises(NotFound):
        await held.read_range(tenant, ConversationId(at.user_key, uuid7()))


async def test_a_conversation_restored_to_the_same_head_is_another(
    database: Database, tenant: Tenant, address: EmbeddedAddress
) -> None:
    """Deleted, restored from an export and gone on differently elsewhere: what was held is not shown."""
    held = Tails(database, Heads(database), 100_000)
    at = (await conversations.create(database, tenant, items=said("one", "gone"))).id
    await held.read_range(tenant, at)
    with psycopg.connect(address.conninfo("admin")) as connection:
        connection.execute("""UPDATE event SET content = '"new"', recorded_at = recorded_at + '1s' WHERE seq = 2""")
        connection.execute("UPDATE conversation SET recorded_at = recorded_at + '1s'")
    page = await held.read_range(tenant, at)
    assert b"new" in page.encode()
    assert b"gone" not in page.encode()
