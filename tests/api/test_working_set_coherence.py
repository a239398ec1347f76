"""Two servers on one database, writers on both: what each serves from its memory is never older than it says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.api.test_events import append, new_conversation

Start = Callable[[], Awaitable[httpx.AsyncClient]]


async def working_set(client: httpx.AsyncClient, conversation: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(f"/v1/conversations/{conversation}/working-set", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def texts(client: httpx.AsyncClient, conversation: str, **body: Any) -> list[str]:
    answer = await client.post(f"/v1/conversations/{conversation}/context", json=body)
    assert answer.status_code == 200, answer.text
    return [str(message.get("content", "")) for message in answer.json()["messages"]]


async def test_concurrent_writers_on_two_servers(servers: Start) -> None:
    """Without min_seq a read shows whatever was acknowledged before it began, by any server; with it, no less."""
    clients = [await servers(), await servers()]
    conversations = [await new_conversation(clients[0]) for _ in range(3)]
    acknowledged = dict.fromkeys(conversations, 0)
    stop = asyncio.Event()

    async def write(client: httpx.AsyncClient, seed: int) -> None:
        chance = random.Random(seed)
        for number in range(40):
            at = chance.choice(conversations)
            head = (await append(client, at, *[f"{seed} {number}"] * chance.randint(1, 3))).json()["head"]
            acknowledged[at] = max(acknowledged[at], head)

    async def read(client: httpx.AsyncClient, seed: int, *, with_min_seq: bool) -> int:
        chance = random.Random(seed)
        reads = 0
        while not stop.is_set():
            at = chance.choice(conversations)
            known = acknowledged[at]
            found = await working_set(client, at, **({"min_seq": known} if with_min_seq else {}))
            assert found["head"] >= known
            if known:
                newest = found["residents"][-1]
                assert newest["seq"] == found["head"]  # everything here is a user message
                assert newest["why"] == "the newest user message"
            reads += 1
        return reads

    readers = [
        asyncio.create_task(read(client, seed, with_min_seq=bool(seed % 2)))
        for seed, client in enumerate([*clients, *clients])
    ]
    await asyncio.gather(*(write(client, seed) for seed, client in enumerate([*clients, *clients])))
    stop.set()
    assert min(await asyncio.gather(*readers)) > 0
    third = await servers()
    for at in conversations:
        bodies = [await working_set(client, at) for client in [*clients, third]]
        assert bodies[0] == bodies[1] == bodies[2]
        assert bodies[0]["head"] == acknowledged[at]


async def test_pins_choices_and_touches_show_at_once_elsewhere(servers: Start) -> None:
    one, other = await servers(), await servers()
    at = await new_conversation(one)
    await append(one, at, *[f"a message of some words, number {number}" for number in range(40)])
    await working_set(other, at)
    assert (await one.put(f"/v1/conversations/{at}/working-set", json={"budget_tokens": 100})).status_code == 200
    assert (await working_set(other, at))["budget_tokens"] == 100
    assert (await one.post(f"/v1/conversations/{at}/pins", json={"seq": 2})).status_code in (200, 201)
    assert (await working_set(other, at))["pins"]["seqs"] == [2]
    assert "a message of some words, number 4" not in await texts(other, at)
    assert "a message of some words, number 4" in await texts(one, at, used=[5])
    assert "a message of some words, number 4" in await texts(other, at)


async def test_what_was_erased_is_shown_by_no_server_once_that_is_acknowledged(servers: Start) -> None:
    clients = [await servers(), await servers()]
    at = await new_conversation(clients[0])
    gone: set[str] = set()
    stop = asyncio.Event()

    async def look(client: httpx.AsyncClient, *, with_min_seq: bool) -> None:
        while not stop.is_set():
            known = set(gone)
            shown = await texts(client, at, **({"min_seq": 1} if with_min_seq else {}))
            assert not known & set(shown)

    first = (await append(clients[0], at, "begin")).json()["head"]
    assert first == 1
    looking = [asyncio.create_task(look(client, with_min_seq=flag)) for client in clients for flag in (False, True)]
    for number in range(8):
        eraser = clients[number % 2]
        events = (await append(eraser, at, f"needle {number}", f"kept {number}")).json()["events"]
        assert f"needle {number}" in await texts(eraser, at)
        answer = await eraser.delete(f"/v1/conversations/{at}/events/{events[0]['id']}")
        assert answer.status_code in (200, 204), answer.text
        gone.add(f"needle {number}")
    stop.set()
    await asyncio.gather(*looking)
    for client in clients:
        shown = await texts(client, at)
        assert "kept 7" in shown
    answer = await clients[1].delete(f"/v1/conversations/{at}")
    assert answer.status_code in (200, 204)
    for query in ({}, {"min_seq": 1}):
        answer = await clients[0].get(f"/v1/conversations/{at}/working-set", params=query)
        assert answer.status_code == 404


async def test_min_seq_beyond_the_head_says_where_that_is(client: httpx.AsyncClient) -> None:
    at = await new_conversation(client)
    await append(client, at, "one")
    answer = await client.get(f"/v1/conversations/{at}/working-set", params={"min_seq": 2})
    assert answer.status_code == 409
    assert answer.json()["error"]["head"] == 1
    assert answer.json()["error"]["param"] == "min_seq"


async def test_the_figures_are_counted(client: httpx.AsyncClient) -> None:
    at = await new_conversation(client)
    answer = await client.put(f"/v1/conversations/{at}/working-set", json={"policy": "fifo", "budget_tokens": 60})
    assert answer.status_code == 200
    for number in range(12):
        await append(client, at, f"this is message number {number}, which takes room")
        await working_set(client, at)
    figures = dict(
        line.rsplit(" ", 1) for line in (await client.get("/metrics")).text.splitlines() if not line.startswith("#")
    )
    assert float(figures['turnstone_cache_hits_total{cache="working_set"}']) > 0
    assert float(figures['turnstone_cache_misses_total{cache="working_set"}']) > 0
    assert float(figures['turnstone_cache_bytes{cache="working_set"}']) > 0
    assert float(figures['turnstone_working_set_evicted_events_total{policy="fifo"}']) > 0
    assert float(figures["turnstone_working_set_rebuild_seconds_count"]) > 0
