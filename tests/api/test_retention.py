"""Retention: what has expired is gone, here and in forks; the rest keeps its seq."""

from __future__ import annotations

import httpx
import psycopg

from server.database.address import EmbeddedAddress
from tests.api.test_events import append, new_conversation


def age(address: EmbeddedAddress, conversation: str, last_seq: int, days: int) -> None:
    """Pretend that a conversation's first events were recorded days ago."""
    uuid = conversation[-32:]
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        connection.execute(
            "UPDATE event SET recorded_at = recorded_at - make_interval(days => %s) "
            "WHERE conversation = %s AND seq <= %s",
            (days, uuid, last_seq),
        )
        connection.execute(
            "UPDATE conversation c SET recorded_at = (SELECT max(recorded_at) FROM event WHERE conversation = c.id), "
            "created_at = created_at - make_interval(days => %s) WHERE id = %s",
            (days, uuid),
        )


async def run(client: httpx.AsyncClient) -> dict[str, int]:
    answer = await client.post("/v1/retention/run")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def contents(client: httpx.AsyncClient, conversation: str, query: str = "") -> list[tuple[int, str]]:
    page = (await client.get(f"/v1/conversations/{conversation}/events?{query}")).json()
    return [(event["seq"], event["content"]) for event in page["data"]]


async def test_the_expired_beginning_goes_and_the_rest_keeps_its_seq(
    client: httpx.AsyncClient, address: EmbeddedAddress
) -> None:
    conversation = await new_conversation(client, user="ada")
    await append(client, conversation, "old", "older", "new")
    fork = (await client.post(f"/v1/conversations/{conversation}/fork", json={"at_seq": 3})).json()["id"]
    await append(client, fork, "fork")
    age(address, conversation, 2, 31)
    await client.put(f"/v1/conversations/{conversation}/retention", json={"retention_days": 30})
    assert await run(client) == {"conversations": 0, "events": 2}
    assert await contents(client, conversation) == [(3, "new")]
    assert await contents(client, fork) == [(3, "new"), (4, "fork")]
    assert await contents(client, fork, "limit=1") == [(3, "new")]
    assert (await append(client, conversation, "next")).json()["head"] == 4
    assert await run(client) == {"conversations": 0, "events": 0}
    record = (await client.get("/v1/erasures")).json()["data"][0]
    assert (record["scope"], record["events"], record["last_seq"], record["actor"]) == ("retention", 2, 2, "retention")


async def test_a_tenants_retention_removes_silent_conversations_whole(
    client: httpx.AsyncClient, address: EmbeddedAddress
) -> None:
    silent = await new_conversation(client, metadata={"title": "secret"})
    await append(client, silent, "old")
    kept = await new_conversation(client)
    await append(client, kept, "new")
    empty = await new_conversation(client)
    age(address, silent, 1, 8)
    tenant = (await client.get("/v1/tenants")).json()["data"][0]["id"]
    assert (await client.post(f"/v1/tenants/{tenant}", json={"retention_days": 7})).status_code == 200
    assert await run(client) == {"conversations": 1, "events": 1}
    assert (await client.get(f"/v1/conversations/{silent}")).status_code == 404
    assert await contents(client, kept) == [(1, "new")]
    assert (await client.get(f"/v1/conversations/{empty}")).status_code == 200


async def test_a_forks_own_retention_hides_what_it_shares_and_leaves_it_to_its_owner(
    client: httpx.AsyncClient, address: EmbeddedAddress
) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "shared")
    fork = (await client.post(f"/v1/conversations/{conversation}/fork", json={"at_seq": 1})).json()["id"]
    await append(client, fork, "expires", "stays")
    age(address, fork, 2, 31)
    await client.put(f"/v1/conversations/{fork}/retention", json={"retention_days": 30})
    assert await run(client) == {"conversations": 0, "events": 1}
    assert await contents(client, fork) == [(3, "stays")]
    assert await contents(client, fork, "limit=1") == [(3, "stays")]
    shared = (await client.get(f"/v1/conversations/{conversation}/events")).json()["data"][0]
    assert shared["content"] == "shared"
    assert (await client.get(f"/v1/conversations/{fork}/events/{shared['id']}")).status_code == 404


async def test_an_erased_tenant_is_gone_with_its_keys(client: httpx.AsyncClient, server_url: str) -> None:
    made = (await client.post("/v1/tenants", json={"name": "acme"})).json()
    body = {"name": "backend", "scopes": ["read", "append"], "tenant": "acme"}
    key = (await client.post("/v1/keys", json=body)).json()["key"]
    async with httpx.AsyncClient(base_url=server_url, headers={"authorization": f"Bearer {key}"}) as backend:
        await append(backend, await new_conversation(backend, user="ada"), "hello")
        assert (await client.delete("/v1/tenants/acme")).json() == {
            "id": made["id"],
            "object": "tenant.deleted",
            "deleted": True,
        }
        assert (await backend.get("/v1/users")).status_code == 401
    assert (await client.get("/v1/tenants/acme")).status_code == 404
    assert (await client.delete("/v1/tenants/default")).status_code == 409
