"""Many writers on two servers: every order that PostgreSQL may choose keeps the log's promises."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import httpx
import psycopg
import pytest

from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.tenant import Tenant
from server.errors import NotFound
from server.log import conversations
from server.log.erase import erase_tenant
from tests.api.test_events import append, new_conversation
from tests.conftest import the_tenant

Start = Callable[[], Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def pair(servers: Start) -> list[httpx.AsyncClient]:
    """Two servers on one database."""
    return [await servers(), await servers()]


async def everything(client: httpx.AsyncClient, conversation: str) -> list[dict[str, Any]]:
    """Return all events of a conversation, page by page."""
    events: list[dict[str, Any]] = []
    while True:
        after = events[-1]["seq"] if events else 0
        answer = await client.get(
            f"/v1/conversations/{conversation}/events", params={"after_seq": after, "limit": 1000}
        )
        assert answer.status_code == 200, answer.text
        page = answer.json()
        events += page["data"]
        if not page["has_more"]:
            assert [event["seq"] for event in events] == list(range(1, page["head"] + 1)), "the log has a gap"
            return events


async def post(client: httpx.AsyncClient, conversation: str, body: bytes, key: str | None = None) -> httpx.Response:
    headers = {"idempotency-key": key} if key else {}
    return await client.post(f"/v1/conversations/{conversation}/events", content=body, headers=headers)


@pytest.mark.parametrize("spread", [1, 16])
async def test_32_writers_on_two_servers(pair: list[httpx.AsyncClient], spread: int) -> None:
    """No gap, each event exactly once where its answer said, and each writer's own order kept."""
    ids = [await new_conversation(pair[0]) for _ in range(spread)]
    told: dict[tuple[str, int], str] = {}

    async def write(writer: int) -> None:
        conversation = ids[writer % spread]
        for number in range(12):
            texts = [f"{writer}:{number}:{part}" for part in range(1 + number % 3)]
            answer = await append(pair[(writer + number) % 2], conversation, *texts)
            assert answer.status_code == 201, answer.text
            seqs = [event["seq"] for event in answer.json()["events"]]
            assert seqs == list(range(seqs[0], seqs[0] + len(texts))), "an append was torn apart"
            assert answer.json()["head"] >= seqs[-1]
            told.update({(conversation, seq): text for seq, text in zip(seqs, texts, strict=True)})

    await asyncio.gather(*(write(writer) for writer in range(32)))
    found: dict[tuple[str, int], str] = {}
    for conversation in ids:
        events = await everything(pair[1], conversation)
        assert [event["recorded_at"] for event in events] == sorted(event["recorded_at"] for event in events)
        found.update({(conversation, event["seq"]): event["content"] for event in events})
    assert found == told
    written: dict[str, list[list[int]]] = {}
    for _, text in sorted(found.items()):
        writer, number, part = text.split(":")
        written.setdefault(writer, []).append([int(number), int(part)])
    assert all(order == sorted(order) for order in written.values())
    assert len(written) == 32


async def test_simultaneous_retries_are_stored_once(pair: list[httpx.AsyncClient]) -> None:
    """One Idempotency-Key, sent ten times at once to two servers: one event, and one answer for all."""
    conversation = await new_conversation(pair[0])
    for round_ in range(8):
        body = b'{"events":[{"role":"user","content":"%d"},{"role":"user","content":"b"}]}' % round_
        answers = await asyncio.gather(*(post(pair[n % 2], conversation, body, f"key {round_}") for n in range(10)))
        assert {answer.status_code for answer in answers} == {201}, [answer.text for answer in answers]
        assert len({answer.content for answer in answers}) == 1
    events = await everything(pair[0], conversation)
    assert Counter(event["content"] for event in events) == {"b": 8} | {str(n): 1 for n in range(8)}


async def test_one_key_with_two_bodies_at_once(pair: list[httpx.AsyncClient]) -> None:
    conversation = await new_conversation(pair[0])
    bodies = [b'{"events":[{"role":"user","content":"%d"}]}' % (n % 2) for n in range(8)]
    answers = await asyncio.gather(
        *(post(pair[n // 2 % 2], conversation, body, "key") for n, body in enumerate(bodies))
    )
    stored = {event["content"] for event in await everything(pair[0], conversation)}
    assert len(stored) == 1
    for body, answer in zip(bodies, answers, strict=True):
        won = body[-5:-4].decode() in stored
        assert answer.status_code == (201 if won else 422), answer.text


@pytest.mark.parametrize("key", [None, "shared"])
async def test_one_client_id_at_once(pair: list[httpx.AsyncClient], key: str | None) -> None:
    """The caller's own id makes an event unique, whichever servers it is sent to at once."""
    conversation = await new_conversation(pair[0])
    for round_ in range(5):
        body = b'{"events":[{"role":"user","content":"x","id":"mine %d"},{"role":"user","content":"y"}]}' % round_
        answers = await asyncio.gather(
            *(post(pair[n % 2], conversation, body, key and f"{key} {round_}") for n in range(8))
        )
        assert {answer.status_code for answer in answers} == {201}, [answer.text for answer in answers]
        assert len({answer.json()["events"][0]["seq"] for answer in answers}) == 1
    events = await everything(pair[0], conversation)
    assert Counter(event["content"] for event in events) == {"x": 5, "y": 5 if key else 40}


async def test_a_refusal_does_not_fail_later_requests(client: httpx.AsyncClient) -> None:
    """A transaction that was rolled back leaves its connection, and what is prepared on it, as good as it was."""
    conversation = await new_conversation(client)
    names = count(1)

    async def name(content: str, number: int) -> int:
        body = b'{"events":[{"role":"user","content":"%b","id":"%d"}]}' % (content.encode(), number)
        return (await post(client, conversation, body)).status_code

    for _ in range(30):  # until every connection of the pool has prepared what it uses
        assert await name("x", next(names)) == 201
        assert (await append(client, conversation, "z")).status_code == 201
    for _ in range(6):
        assert await name("y", 1) == 409
    for _ in range(6):
        assert await name("x", next(names)) == 201
        assert (await append(client, conversation, "z")).status_code == 201
        assert (await client.get(f"/v1/conversations/{conversation}/events")).status_code == 200


async def test_exactly_one_of_racing_expectations_wins(pair: list[httpx.AsyncClient]) -> None:
    """And every loser is told a head that is not the one it named."""
    conversation = await new_conversation(pair[0])
    for head in range(20):
        answers = await asyncio.gather(
            *(append(pair[n % 2], conversation, f"{head} {n}", expected_head=head) for n in range(8))
        )
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7, [a.text for a in answers]
        assert {answer.json()["error"]["head"] for answer in answers if answer.status_code == 409} == {head + 1}
    assert len(await everything(pair[0], conversation)) == 20


async def test_what_an_append_waited_for_is_what_it_answers(
    client: httpx.AsyncClient, address: EmbeddedAddress, database: Database
) -> None:
    """An append that finds its conversation changed by another server's transaction tells the head of after it."""
    conversation = await new_conversation(client)
    await append(client, conversation, "one")
    for change, answers in (
        ("UPDATE conversation SET head = head", (201, None)),
        (  # what another server's append would do
            "WITH bumped AS (UPDATE conversation SET head = head + 1 RETURNING *) INSERT INTO event SELECT user_key, "
            "id, head, recorded_at, recorded_at, NULL, tenant_id, 'message', 'user' FROM bumped",
            (409, 3),
        ),
        ("UPDATE conversation SET deleted_at = now()", (404, None)),
    ):
        async with await psycopg.AsyncConnection.connect(address.conninfo("admin")) as other:
            await other.execute(change)
            expected = {"expected_head": 1 if answers[0] == 201 else 2}
            if answers[0] == 404:
                expected = {}
            waiting = asyncio.create_task(append(client, conversation, "two", **expected))
            async with await psycopg.AsyncConnection.connect(address.conninfo("admin"), autocommit=True) as watch:
                blocked = "SELECT FROM pg_locks WHERE NOT granted"
                while not (await watch.execute(blocked)).rowcount:  # noqa: ASYNC110 - PostgreSQL has no event for it
                    await asyncio.sleep(0.01)
            await other.commit()
        answer = await waiting
        assert (answer.status_code, answer.json().get("error", {}).get("head")) == answers, answer.text


async def test_creating_with_items_is_repeatable_at_once(pair: list[httpx.AsyncClient]) -> None:
    """A creation with its first events, retried on two servers at once, makes one conversation with those events."""
    items = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
    for round_ in range(6):
        for extra, headers in (({}, {"idempotency-key": f"create {round_}"}), ({"origin_id": f"old {round_}"}, {})):
            body = {"items": items, "user": "ada", **extra}
            answers = await asyncio.gather(
                *(pair[n % 2].post("/v1/conversations", json=body, headers=headers) for n in range(6))
            )
            assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
            assert {answer.json()["head"] for answer in answers} == {2}
            (conversation,) = {answer.json()["id"] for answer in answers}
            assert [event["content"] for event in await everything(pair[0], conversation)] == ["one", "two"]


async def test_a_creation_with_both_an_origin_and_a_key_is_repeatable(client: httpx.AsyncClient) -> None:
    first = await client.post("/v1/conversations", json={"origin_id": "old", "user": "ada"})
    headers = {"idempotency-key": "k"}
    again = [await client.post("/v1/conversations", json={"origin_id": "old", "user": "ada"}, headers=headers)]
    again.append(await client.post("/v1/conversations", json={"origin_id": "old", "user": "ada"}, headers=headers))
    assert [(a.status_code, a.json()["id"]) for a in again] == [(200, first.json()["id"])] * 2


async def test_creating_and_deleting_at_once(pair: list[httpx.AsyncClient]) -> None:
    """A repeatable creation that races with the deletion of what it made answers with a conversation."""

    async def create(number: int, headers: dict[str, str], body: dict[str, Any]) -> None:
        for _ in range(12):
            made = await pair[number % 2].post("/v1/conversations", json=body, headers=headers)
            assert made.status_code == 200, made.text
            gone = await pair[1 - number % 2].delete(f"/v1/conversations/{made.json()['id']}")
            assert gone.status_code in (200, 404), gone.text

    await asyncio.gather(
        *(create(n, {"idempotency-key": "k"}, {"user": "ada"}) for n in range(6)),
        *(create(n, {}, {"user": "bob", "origin_id": "old"}) for n in range(6)),
    )


@pytest.mark.parametrize("delete_after", [None, 0.1, 0.2, 0.4])
async def test_append_read_fork_erase_and_delete_race(
    pair: list[httpx.AsyncClient], delete_after: float | None
) -> None:
    """Whatever meets whatever: never an error of ours, never a gap for a reader, never a later event in a fork."""
    conversation = await new_conversation(pair[0])
    await append(pair[0], conversation, "0", "1", "2")
    alive = True
    forks: dict[str, tuple[int, list[str]]] = {}

    def seen(answer: httpx.Response, *allowed: int) -> bool:
        assert answer.status_code in (allowed if alive else (*allowed, 404)), answer.text
        return answer.status_code < 400

    async def write(number: int) -> None:
        for text in range(12):
            server = pair[(number + text) % 2]
            expected = {"expected_head": 5} if number == 0 else {}
            seen(await append(server, conversation, f"w{number} {text}", **expected), 201, 409)

    async def fork(number: int) -> None:
        for at_seq in (1, 2, 3, 3, 2):
            server = pair[number % 2]
            answer = await server.post(f"/v1/conversations/{conversation}/fork", json={"at_seq": at_seq})
            if seen(answer, 201):
                made = answer.json()["id"]
                assert (await append(server, made, f"f{number}")).status_code == 201
                forks[made] = (at_seq, [f"f{number}"])

    async def read(number: int) -> None:
        for _ in range(12):
            url = f"/v1/conversations/{conversation}/events"
            answer = await pair[number % 2].get(url, params={"limit": 1000})
            if seen(answer, 200):
                page = answer.json()
                assert [event["seq"] for event in page["data"]] == list(range(1, page["head"] + 1))
            answer = await pair[number % 2].get(url, params={"limit": 5, "order": "desc"})
            if seen(answer, 200):
                page = answer.json()
                expected = list(range(page["head"], max(0, page["head"] - 5), -1))
                assert [event["seq"] for event in page["data"]] == expected

    async def erase() -> None:
        for seq in (1, 3):
            answer = await pair[seq % 2].get(f"/v1/conversations/{conversation}/events?after_seq={seq - 1}&limit=1")
            if seen(answer, 200):
                event = answer.json()["data"][0]["id"]
                seen(await pair[seq % 2].delete(f"/v1/conversations/{conversation}/events/{event}"), 200)

    async def delete() -> None:
        nonlocal alive
        if delete_after is not None:
            await asyncio.sleep(delete_after)  # let the others get going; any moment will do
            alive = False
            seen(await pair[1].delete(f"/v1/conversations/{conversation}"), 200)

    await asyncio.gather(*map(write, range(3)), fork(0), fork(1), read(0), read(1), erase(), delete())
    for made, (at_seq, own) in forks.items():
        events = await everything(pair[0], made)
        assert len(events) == at_seq + 1
        assert [event["content"] for event in events[at_seq:]] == own
        assert {event.get("content") for event in events[:at_seq]} <= {None, "0", "1", "2"}
        assert events[0].get("erased_at") or not alive


async def test_erasing_a_user_while_it_writes(
    pair: list[httpx.AsyncClient], database: Database, tenant: Tenant
) -> None:
    """After the erasure of a user nothing of before is left, and whatever was created later is whole."""

    async def write(number: int) -> None:
        for _ in range(8):
            server = pair[number % 2]
            at = await new_conversation(server, user="ada", items=[{"role": "user", "content": "a"}])
            assert (await append(server, at, "b")).status_code in (201, 404)
            fork = await server.post(f"/v1/conversations/{at}/fork", json={"at_seq": 1})
            assert fork.status_code in (201, 404), fork.text

    async def erase() -> None:
        for number in range(6):
            answer = await pair[number % 2].delete("/v1/users/ada")
            assert answer.status_code in (200, 404), answer.text

    await asyncio.gather(*map(write, range(6)), erase())
    answer = await pair[0].delete("/v1/users/ada")
    assert answer.status_code in (200, 404)
    async with database.transaction(tenant) as connection:
        for table in ("event", "conversation", "end_user", "idempotency"):
            left = (await connection.exec_driver_sql(f"SELECT count(*) FROM {table}")).scalar_one()
            assert left == 0, f"{left} rows of an erased user are left in {table}"


async def test_erasing_a_tenant_while_it_creates(
    client: httpx.AsyncClient, address: EmbeddedAddress, database: Database
) -> None:
    """A creation that was let in before the erasure, however slow, leaves nothing behind it."""
    made = (await client.post("/v1/tenants", json={"name": "leaving"})).json()
    number = int(made["id"].removeprefix("ten_"))
    leaving = await the_tenant(database, "leaving")
    async with await psycopg.AsyncConnection.connect(address.conninfo("admin")) as other:
        await other.execute("LOCK TABLE end_user IN EXCLUSIVE MODE")  # makes the creation slow
        creating = asyncio.create_task(conversations.create(database, leaving, user="ada"))
        async with await psycopg.AsyncConnection.connect(address.conninfo("admin"), autocommit=True) as watch:
            while not (await watch.execute("SELECT FROM pg_locks WHERE NOT granted")).rowcount:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        erasing = asyncio.create_task(erase_tenant(database, leaving, actor="test"))
        await asyncio.sleep(1.3)  # by now it has revoked the keys and would be through
        await other.commit()
    await asyncio.gather(creating, erasing)
    with pytest.raises(NotFound):
        await conversations.create(database, leaving, user="bob")
    async with await psycopg.AsyncConnection.connect(address.conninfo("admin")) as other:
        for table in ("end_user", "conversation", "event", "idempotency"):
            found = await other.execute(f"SELECT count(*) FROM {table} WHERE tenant_id = %s", (number,))
            assert await found.fetchone() == (0,), f"an erased tenant has rows in {table}"
