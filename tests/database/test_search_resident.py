"""Resident indexes against the database: who shares one, what is read again, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import psycopg
import pytest
from msgspec import Raw

from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.ids import ConversationId, uuid7
from server.database.ids import user_key as key_of
from server.database.round_trip import round_trip
from server.database.tenant import Tenant
from server.errors import NotFound
from server.log import conversations, erase
from server.log.append import Appender
from server.log.events import NewEvent
from server.log.stored import StoredEvent
from server.retrieval.index import Index
from server.retrieval.plan import DEFAULT
from server.retrieval.turns import Entry, Key
from server.search import reading
from server.search.bodies import MOST_BYTES, Bodies
from server.search.family import NO_VERSION, Family, members
from server.search.indexes import Indexes, TooLarge
from server.search.resident import Resident
from server.search.stamps import Stamps


def said(text: str) -> NewEvent:
    return NewEvent(role="user", content=Raw(msgspec.json.encode(text)))


@pytest.fixture
async def indexes(database: Database) -> AsyncIterator[Indexes]:
    """The indexes of one process."""
    made = Indexes(database, 64 * 2**20)
    yield made
    made.close()


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events each call of Index.add was given."""
    counts: list[int] = []
    add = Index.add

    def counted(self: Index, entries: list[Entry], vectors: object = None) -> None:
        counts.append(len(entries))
        add(self, entries, vectors)  # type: ignore[arg-type]

    monkeypatch.setattr(Index, "add", counted)
    return counts


async def found(indexes: Indexes, tenant: Tenant, user: str, question: str) -> set[tuple[str, int]]:
    resident = await indexes.of_user(tenant, user, None)
    assert isinstance(resident, Resident)

    def search() -> set[tuple[str, int]]:
        ranking = resident.index.search(question, None, DEFAULT, 100, within=resident.view())
        return {(hit.key.conversation, hit.key.seq) for hit in ranking.hits}

    return await resident.run(search, thread=False)


async def started(database: Database, tenant: Tenant, user: str | None, *texts: str) -> ConversationId:
    made = await conversations.create(database, tenant, user=user, items=[said(text) for text in texts])
    return made.id


def insert(
    address: EmbeddedAddress, tenant: int, key: int, user: str | None, texts: Iterable[str], seq: int = 0
) -> UUID:
    """Store a conversation under any key at all, as a collision of hashes would."""
    uuid = uuid7()
    stored = list(texts)
    with psycopg.connect(address.conninfo("admin")) as connection:
        connection.execute(
            "INSERT INTO conversation (user_key, id, tenant_id, user_id, head, recorded_at, created_at) "
            "VALUES (%s, %s, %s, %s, %s, now(), now())",
            (key, uuid, tenant, user, len(stored)),
        )
        for place, text in enumerate(stored, 1):
            connection.execute(
                "INSERT INTO event (user_key, conversation, seq, recorded_at, occurred_at, tenant_id, type, role, "
                "content) VALUES (%s, %s, %s, now(), now(), %s, 'message', 'user', %s)",
                (key, uuid, seq + place, tenant, f'"{text}"'),
            )
    return uuid


async def test_users_whose_keys_collide_stay_apart(
    database: Database, address: EmbeddedAddress, tenant: Tenant, indexes: Indexes
) -> None:
    key = key_of(tenant.salt, "user", "ada")
    own = insert(address, tenant.id, key, "ada", ["ada keeps bees"])
    insert(address, tenant.id, key, "bob", ["bob keeps bees"])
    alone = insert(address, tenant.id, key, None, ["nobody keeps bees"])
    insert(address, tenant.id + 1, key, "ada", ["another ada keeps bees"])
    assert await found(indexes, tenant, "ada", "who keeps bees") == {(own.hex, 1)}
    resident = await indexes.of_conversation(tenant, ConversationId(key, alone), None)
    assert isinstance(resident, Resident)
    assert set(resident.members) == {alone}
    assert len(resident.index) == 1
    stranger = tenant._replace(id=tenant.id + 1)
    with pytest.raises(NotFound):
        await indexes.of_conversation(stranger, ConversationId(key, own), None)


async def test_an_append_adds_and_nothing_is_indexed_twice(
    database: Database, tenant: Tenant, indexes: Indexes, added: list[int]
) -> None:
    appender = Appender(database)
    at = await started(database, tenant, "ada", *[f"note {number} about bees" for number in range(50)])
    assert len(await found(indexes, tenant, "ada", "bees")) == 50
    resident = await indexes.of_user(tenant, "ada", None)
    for number in range(5):
        await appender.append(tenant, at, [said(f"more bees {number}")])
        assert len(await found(indexes, tenant, "ada", "bees")) == 51 + number
    second = await started(database, tenant, "ada", "bees elsewhere")
    assert (second.uuid.hex, 1) in await found(indexes, tenant, "ada", "bees")
    assert await indexes.of_user(tenant, "ada", None) is resident
    assert sum(added) == 56
    before = indexes.hits
    await found(indexes, tenant, "ada", "bees")
    assert indexes.hits == before + 1


async def test_what_is_erased_leaves_memory(database: Database, tenant: Tenant, indexes: Indexes) -> None:
    at = await started(database, tenant, "ada", "the hive is green", "the hive is blue", "the hive is red")
    other = await started(database, tenant, "ada", "another hive")
    assert len(await found(indexes, tenant, "ada", "hive")) == 4
    await erase.erase_event(database, tenant, at, 2, actor="test")
    assert (at.uuid.hex, 2) not in await found(indexes, tenant, "ada", "hive")
    resident = await indexes.of_user(tenant, "ada", None)
    assert isinstance(resident, Resident)
    assert "blue" not in resident.index._postings
    await erase.erase_conversation(database, tenant, other, actor="test")
    assert await found(indexes, tenant, "ada", "hive") == {(at.uuid.hex, 1), (at.uuid.hex, 3)}
    await erase.erase_user(database, tenant, "ada", actor="test")
    assert await found(indexes, tenant, "ada", "hive") == set()
    assert len(resident.index) == 0
    again = await started(database, tenant, "ada", "a new hive")
    assert await found(indexes, tenant, "ada", "hive") == {(again.uuid.hex, 1)}


async def test_answers_are_read_once_and_erased_ones_leave_memory(
    database: Database, tenant: Tenant, indexes: Indexes, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = await started(database, tenant, "ada", "the hive is green", "the hive is blue")
    keys = [Key(at.uuid.hex, 2), Key(at.uuid.hex, 1)]
    asked: list[int] = []
    answers = reading.answers

    async def counted(*given: Any) -> list[StoredEvent | None]:
        asked.append(len(given[2]))
        return await answers(*given)

    monkeypatch.setattr(reading, "answers", counted)
    resident = await indexes.of_user(tenant, "ada", None)
    assert isinstance(resident, Resident)
    for _ in range(2):
        read = await resident.read(database, tenant, keys)
        assert [event and event.content for event in read] == [Raw(b'"the hive is blue"'), Raw(b'"the hive is green"')]
    assert asked == [2]
    await erase.erase_event(database, tenant, at, 2, actor="test")
    await indexes.of_user(tenant, "ada", None)
    assert (await resident.read(database, tenant, keys))[0] is None
    assert asked == [2, 2]


def test_answers_in_memory_are_bounded() -> None:
    bodies = Bodies()
    now = datetime.now(UTC)
    for seq in range(1, 2001):
        content = Raw(b'"%b"' % (b"x" * (60_000 if seq == 7 else 900)))
        bodies.put(
            Key("c", seq),
            StoredEvent(id="e", seq=seq, type="message", content=content, occurred_at=now, recorded_at=now),
        )
        assert bodies.nbytes <= MOST_BYTES
    assert bodies.get(Key("c", 1)) is None
    assert bodies.get(Key("c", 7)) is None
    assert bodies.get(Key("c", 2000)) is not None


async def test_many_states_are_asked_for_in_one_round_trip(
    database: Database, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [await started(database, tenant, f"user {n}", *["x"] * n) for n in range(1, 9)]
    alone = await started(database, tenant, None, "x", "x")
    trips: list[int] = []

    async def counted(*given: Any) -> list[tuple[Any, ...]]:
        trips.append(1)
        return await round_trip(*given)

    monkeypatch.setattr("server.search.stamps.round_trip", counted)
    stamps = Stamps(database, lanes=1)
    found = await asyncio.gather(*(stamps.of_user(tenant, f"user {n}", NO_VERSION) for n in range(1, 10)))
    assert len(trips) == 1
    assert [stamp.events for _, stamp in found] == [1, 2, 3, 4, 5, 6, 7, 8, 0]
    for (family, stamp), at in zip(found, users, strict=False):
        assert await stamps.of_conversation(tenant, at, NO_VERSION) == (family, stamp)
        assert (await members(database, tenant, family, NO_VERSION)).stamp == stamp
    nobody = ConversationId(alone.user_key, uuid7())
    both = await asyncio.gather(
        stamps.of_conversation(tenant, nobody, NO_VERSION),
        stamps.of_conversation(tenant, alone, NO_VERSION),
        return_exceptions=True,
    )
    assert isinstance(both[0], NotFound)
    assert both[1] == (Family(tenant.id, alone.user_key, None), (1, 2, *both[1][1][2:]))  # type: ignore[index]


async def test_a_state_is_never_older_than_the_question(database: Database, tenant: Tenant) -> None:
    appender, stamps = Appender(database), Stamps(database)
    at = await started(database, tenant, "ada", "x")

    async def ask() -> int:
        appended = await appender.append(tenant, at, [said("x")])
        _, stamp = await stamps.of_user(tenant, "ada", NO_VERSION)
        return stamp.events - appended.head

    assert min(await asyncio.gather(*(ask() for _ in range(50)))) >= 0


async def test_a_conversation_that_came_again_under_its_id_is_indexed_anew(
    database: Database, address: EmbeddedAddress, tenant: Tenant, indexes: Indexes
) -> None:
    at = await started(database, tenant, "ada", "old words")
    assert await found(indexes, tenant, "ada", "old") == {(at.uuid.hex, 1)}
    with psycopg.connect(address.conninfo("admin")) as connection:
        connection.execute("UPDATE event SET content = '\"new text\"'")
        connection.execute("UPDATE conversation SET recorded_at = now() + interval '1 second'")
    assert await found(indexes, tenant, "ada", "old") == set()
    assert await found(indexes, tenant, "ada", "new text") == {(at.uuid.hex, 1)}


async def test_memory_is_bounded_and_a_family_beyond_it_is_refused(database: Database, tenant: Tenant) -> None:
    indexes = Indexes(database, 400_000)
    try:
        for user in "abcdefgh":
            await started(database, tenant, user, *[f"note {number} of {user}" for number in range(60)])
            assert len(await found(indexes, tenant, user, "note")) == 60
            assert indexes.bytes <= 400_000
        assert indexes.evictions > 0
        await started(database, tenant, "large", *["x" for _ in range(300)])
        assert isinstance(await indexes.of_user(tenant, "large", None), TooLarge)
    finally:
        indexes.close()


async def test_expired_events_are_not_found(
    database: Database, address: EmbeddedAddress, tenant: Tenant, indexes: Indexes
) -> None:
    at = await started(database, tenant, "ada", "bees one", "bees two", "bees three")
    assert len(await found(indexes, tenant, "ada", "bees")) == 3
    with psycopg.connect(address.conninfo("admin")) as connection:
        connection.execute("UPDATE conversation SET floor = 2")
    assert await found(indexes, tenant, "ada", "bees") == {(at.uuid.hex, 3)}


async def test_a_caller_who_leaves_does_not_break_what_others_wait_for(
    database: Database, tenant: Tenant, indexes: Indexes
) -> None:
    await started(database, tenant, "ada", *[f"bees {number}" for number in range(300)])
    first = asyncio.create_task(found(indexes, tenant, "ada", "bees"))
    others = [asyncio.create_task(found(indexes, tenant, "ada", "bees")) for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()
    answers = await asyncio.gather(*others)
    assert all(len(answer) == 100 for answer in answers)


async def test_large_events_are_loaded_in_pages(
    database: Database, tenant: Tenant, indexes: Indexes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.search.reading._PAGE_BYTES", 2_000)
    monkeypatch.setattr("server.search.reading._PAGE", 7)
    texts = [f"page{number} " + "word " * (number * 37 % 400) for number in range(40)]
    first = await started(database, tenant, "ada", *texts)
    second = await started(database, tenant, "ada", *texts[:5])
    assert len(await found(indexes, tenant, "ada", "word " + " ".join(f"page{n}" for n in range(40)))) == 45
    resident = await indexes.of_user(tenant, "ada", None)
    assert isinstance(resident, Resident)
    assert np.all(np.bincount(resident.index.turns["seq"])[1:6] == 2)
    assert {first.uuid, second.uuid} == set(resident.members)
