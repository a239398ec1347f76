"""Reads from memory: the very bytes that the database would give, at once, and never of what is erased."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest

from server.api.events import EventPage
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.ids import ConversationId, parse_conversation_id
from server.database.tenant import Tenant
from server.log.read import read_range, read_state
from tests.api.test_events import append, new_conversation
from tests.api.test_retention import age, run

Start = Callable[[], Awaitable[httpx.AsyncClient]]


async def figure(client: httpx.AsyncClient, name: str) -> float:
    """Return one figure of the tails, over all servers of this process."""
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(f'turnstone_cache_{name}{{cache="tails"}}'))


def identified(text: str) -> ConversationId:
    found = parse_conversation_id(text)
    assert found is not None
    return found


async def uncached(database: Database, tenant: Tenant, conversation: str, query: dict[str, Any]) -> bytes:
    """Return what a server without a cache would answer."""
    page = await read_range(
        database,
        tenant,
        identified(conversation),
        after_seq=query.get("after_seq", 0),
        before_seq=query.get("before_seq"),
        limit=query.get("limit", 50),
        descending=query.get("order") == "desc",
    )
    return msgspec.json.encode(EventPage(page.events, page.has_more, page.head))


def some_query(dice: random.Random, head: int) -> dict[str, Any]:
    query: dict[str, Any] = {"order": dice.choice(["asc", "desc", "desc", "desc"])}
    if dice.random() < 0.7:
        query["limit"] = dice.choice([1, 2, 5, 50, 200, 1000])
    if dice.random() < 0.4:
        query["after_seq"] = max(0, head + dice.randint(-12, 3))
    if dice.random() < 0.3:
        query["before_seq"] = max(1, head + dice.randint(-12, 3))
    return query


def some_event(dice: random.Random, number: int) -> dict[str, Any]:
    text = dice.choice(["", "a", "\0", "😀 ü", "x" * dice.choice([10, 3000, 50_000])])
    event: dict[str, Any] = {"role": dice.choice(["user", "assistant"]), "content": text}
    if dice.random() < 0.3:
        event["content"] = [{"type": "text", "text": text, "more": [1e400, -0.0, None, 2**70]}]
    if dice.random() < 0.2:
        event |= {"type": "tool_call", "role": None, "call_id": f"c{number}", "name": "w", "content": None}
    for name, value in {
        "id": f"mine {number}",
        "name": "Ada",
        "session": "s1",
        "run_id": "r1",
        "metadata": {"n": [1, {"b": 2}]},
        "occurred_at": dice.choice(
            ["0001-01-01T00:00:00Z", "2020-02-29T12:00:00.1234567+05:30", "9999-12-31T23:59:59Z"]
        ),
    }.items():
        if dice.random() < 0.15:
            event[name] = value
    return event


def as_text(body: object) -> bytes:
    """Return JSON with white space in it, as a caller may send it."""
    return msgspec.json.format(msgspec.json.encode(body), indent=1)


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_cached_answer_is_the_uncached_one_byte_for_byte(
    servers: Start, database: Database, tenant: Tenant, address: EmbeddedAddress, seed: int
) -> None:
    dice = random.Random(seed)
    pair = [await servers(), await servers()]
    known = [await new_conversation(pair[0], user="ada")]
    hits = await figure(pair[0], "hits_total")
    for number in range(100):
        at = dice.choice([known[0], *known[-2:]])
        head = (await read_state(database, tenant, identified(at))).head
        step = dice.random()
        if step < 0.6 or head < 5:
            count = dice.choice([1, 1, 2, 7, 230])
            body = {"events": [some_event(dice, number * 1000 + each) for each in range(count)]}
            path = f"/v1/conversations/{at}/events"
            headers = {"idempotency-key": f"k{number}"} if dice.random() < 0.2 else {}
            for client in dice.choice([pair[:1], pair[1:], [pair[0]] * 2]):  # twice is a retry if anything is named
                answer = await client.post(path, content=as_text(body), headers=headers)
                assert answer.status_code == 201, answer.text
        elif step < 0.75:
            place = dice.randint(max(1, head - 10), head)
            shown = await pair[1].get(f"/v1/conversations/{at}/events?before_seq={place + 1}&limit=1&order=desc")
            for event in shown.json()["data"]:
                await pair[0].delete(f"/v1/conversations/{at}/events/{event['id']}")
        elif step < 0.85:
            where = {"at_seq": dice.randint(max(0, head - 10), head)}
            known.append((await pair[0].post(f"/v1/conversations/{at}/fork", json=where)).json()["id"])
        elif step < 0.9:
            root = known[0]  # it owns all that it shows, so that what is aged is what expires
            age(address, root, (await read_state(database, tenant, identified(root))).head - 4, 31)
            await pair[0].put(f"/v1/conversations/{root}/retention", json={"retention_days": 30})
            await run(pair[0])
        for _ in range(3):
            one = dice.choice([known[0], *known[-2:]])
            state = await read_state(database, tenant, identified(one))
            query = some_query(dice, state.head)
            for client in pair:
                answer = await client.get(f"/v1/conversations/{one}/events", params=query)
                assert answer.content == await uncached(database, tenant, one, query), (number, query)
    assert await figure(pair[0], "hits_total") > hits + 50


async def test_another_server_sees_an_append_at_once_and_erased_text_never(servers: Start) -> None:
    writer, reader = await servers(), await servers()
    conversation = await new_conversation(writer)
    path = f"/v1/conversations/{conversation}/events"
    query: dict[str, str | int] = {"order": "desc", "limit": 5}
    hits = await figure(reader, "hits_total")
    for number in range(10):
        secret = f"secret {number}"
        appended = await append(writer, conversation, secret)
        for client in (reader, writer, reader):
            assert (await client.get(path, params=query)).json()["data"][0]["content"] == secret
        await writer.delete(f"{path}/{appended.json()['events'][0]['id']}")
        for client in (reader, writer, reader):
            assert secret not in (await client.get(path, params=query)).text
    assert await figure(reader, "hits_total") > hits
    assert (await writer.delete(f"/v1/conversations/{conversation}")).status_code == 200
    for client in (reader, writer):
        assert (await client.get(path, params=query)).status_code == 404


async def test_readers_keep_up_with_writers_of_both_servers(servers: Start) -> None:
    """Whoever asks after an append was acknowledged sees it, whichever server is asked."""
    pair = [await servers(), await servers()]
    conversation = await new_conversation(pair[0])
    acknowledged = 0
    writing = True

    async def write(client: httpx.AsyncClient) -> None:
        nonlocal acknowledged
        for _ in range(40):
            answer = await append(client, conversation, "x")
            acknowledged = max(acknowledged, answer.json()["head"])

    async def read(client: httpx.AsyncClient) -> None:
        while writing:
            least = acknowledged
            page = (
                await client.get(f"/v1/conversations/{conversation}/events", params={"order": "desc", "limit": 3})
            ).json()
            assert page["head"] >= least
            assert [event["seq"] for event in page["data"]] == list(range(page["head"], 0, -1))[:3]

    readers = [asyncio.create_task(read(client)) for client in pair * 3]
    await asyncio.gather(*(write(client) for client in pair * 2))
    writing = False
    await asyncio.gather(*readers)
    assert acknowledged == 160


async def test_what_one_tenant_reads_another_does_not(
    client: httpx.AsyncClient, server_url: str, database: Database
) -> None:
    """Not even from memory, where it lies after its own tenant has read it."""
    conversation = await new_conversation(client)
    await append(client, conversation, "ours")
    path = f"/v1/conversations/{conversation}/events"
    for _ in range(2):
        assert (await client.get(path)).status_code == 200
    assert (await client.post("/v1/tenants", json={"name": "other"})).status_code == 201
    made = await client.post("/v1/keys", json={"name": "reader", "tenant": "other", "scopes": ["read"]})
    headers = {"authorization": f"Bearer {made.json()['key']}"}
    async with httpx.AsyncClient(base_url=server_url, headers=headers) as other:
        missing = await other.get(f"/v1/conversations/conv_{'0' * 48}/events")
        for _ in range(2):
            answer = await other.get(path)
            assert (answer.status_code, answer.content) == (404, missing.content)
    assert (await client.get(path)).json()["data"][0]["content"] == "ours"
