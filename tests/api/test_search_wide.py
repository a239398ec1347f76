"""Searches where memory has no room: a whole tenant, a user with too many events; and the index that they want."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import psycopg

from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.embeddings import versions
from server.search import near
from server.settings import Settings
from tests.api.test_access import admin_of
from tests.api.test_events import append
from tests.api.test_search import STORY, ask, ask_with_vectors, story
from tests.conftest import serving


async def whole(client: httpx.AsyncClient, query: str, **body: Any) -> list[tuple[str, int]]:
    answer = await ask(client, query, scope="tenant", **body)
    return [(one["conversation_id"], one["seq"]) for one in answer["data"]]


async def test_a_tenant_is_searched_across_its_users(client: httpx.AsyncClient) -> None:
    ada = await story(client, "ada")
    bob = await story(client, "bob", "My brother plays the violin.", "I paint fences for a living.")
    other = await admin_of(client, "other")
    theirs = (await client.post("/v1/conversations", json={"user": "eve"}, headers=other)).json()["id"]
    said = {"events": [{"role": "user", "content": "My aunt plays the harp."}]}
    await client.post(f"/v1/conversations/{theirs}/events", json=said, headers=other)
    for conversation in (ada, bob):
        await ask_with_vectors(client, "ready", conversation)
    found = await ask(client, "Who plays the cello or the violin?", scope="tenant", k=10, explain=True)
    first = {(one["conversation_id"], one["seq"]) for one in found["data"][:3]}
    assert first > {(ada, 2), (bob, 1)}
    assert len(found["data"]) == 6
    assert found["stamps"]["search"] == "exact"
    fork = (await client.post(f"/v1/conversations/{ada}/fork", json={"at_seq": 3})).json()["id"]
    await client.delete(f"/v1/conversations/{ada}")
    assert (fork, 2) in await whole(client, "cello")
    assert all(conversation != ada for conversation, _ in await whole(client, "gym", k=100))
    assert await whole(client, "violin", k=100, filters={"roles": ["assistant"]}) == []
    assert await whole(client, "violin", k=100, filters={"conversations": [bob]}) == [(bob, 1), (bob, 2)]
    assert await whole(client, "violin", k=100, filters={"metadata": {"a": 1}}) == []
    missed = await ask(client, "violin", scope="tenant", k=1, why_not=[{"conversation_id": theirs, "seq": 1}])
    assert missed["explain"]["why_not"][0]["reason"] == "not_pooled"


async def test_a_user_too_large_for_memory_is_searched_all_the_same(
    settings: Settings, address: EmbeddedAddress, admin_key: str
) -> None:
    small = msgspec.structs.replace(settings, search_bytes=4_000)
    headers = {"authorization": f"Bearer {admin_key}"}
    async with serving(small, address) as url, httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        conversation = await story(client, "ada")
        other = await story(client, "bob", "Bob has a climbing gym too.")
        for one in (conversation, other):
            for _ in range(100):
                body = {"query": "ready", "conversation_id": one, "min_seq": 1}
                if (await client.post("/v1/search", json=body)).is_success:
                    break
                await asyncio.sleep(0.1)
        for scope in ({"user": "ada"}, {"conversation_id": conversation}):
            answer = await ask(client, "Which climbing gym is it?", k=10, **scope)
            contents = [one["event"]["content"] for one in answer["data"]]
            assert contents[0] == STORY[3]
            assert set(contents) == set(STORY)


async def test_the_index_is_built_once_there_are_enough_and_an_invalid_one_is_replaced(
    client: httpx.AsyncClient, address: EmbeddedAddress, database: Database
) -> None:
    conversation = await story(client, "ada")
    for number in range(6):
        await append(client, conversation, *[f"note {number} {place} about tea" for place in range(50)])
    await ask_with_vectors(client, "ready", conversation)
    before = await whole(client, "Who plays an instrument?", k=20)
    version = (await versions.read(database)).active
    assert version is not None
    async with await psycopg.AsyncConnection.connect(
        address.conninfo("turnstone_owner"), autocommit=True
    ) as connection:
        await connection.execute("ANALYZE embedding_v1")
        assert not await near.build(connection, version)
        assert await near.build(connection, version, threshold=10)
        assert not await near.build(connection, version, threshold=10)
        answer = await ask(client, "Who plays an instrument?", scope="tenant", k=20)
        assert answer["stamps"]["search"] == "approximate"
        assert answer["data"][0]["seq"] == 2
        assert before[0] == (conversation, 2)
        async with await psycopg.AsyncConnection.connect(address.conninfo("admin"), autocommit=True) as superuser:
            await superuser.execute(
                "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'embedding_v1_hnsw'::regclass"
            )
        assert (await ask(client, "instrument", scope="tenant"))["stamps"]["search"] == "exact"
        assert await near.build(connection, version, threshold=10)
        assert (await ask(client, "instrument", scope="tenant"))["stamps"]["search"] == "approximate"
