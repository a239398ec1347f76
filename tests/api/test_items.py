"""Items over HTTP, beside the log that they are a view of."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import psycopg
import pytest

from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.tenant import Tenant
from server.log.retention import forget_keys
from tests.api.test_access import admin_of, make_key
from tests.api.test_events import append, new_conversation
from tests.api.test_forks import fork


async def items(client: httpx.AsyncClient, conversation: str, **query: Any) -> list[dict[str, Any]]:
    """Return all items, page by page."""
    found: list[dict[str, Any]] = []
    query = {"order": "asc", **query}
    while True:
        answer = await client.get(f"/v1/conversations/{conversation}/items", params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert (page["first_id"], page["last_id"]) == (
            (page["data"][0]["id"], page["data"][-1]["id"]) if page["data"] else (None, None)
        )
        found += page["data"]
        if not page["has_more"]:
            return found
        query["after"] = page["last_id"]


async def texts(client: httpx.AsyncClient, conversation: str, **query: Any) -> list[str]:
    return [item["content"][0]["text"] for item in await items(client, conversation, **query)]


async def delete(client: httpx.AsyncClient, conversation: str, item: str, **headers: str) -> int:
    answer = await client.delete(f"/v1/conversations/{conversation}/items/{item}", headers=headers)
    return answer.status_code


async def test_native_events_and_items_are_one_log(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client, items=[{"role": "user", "content": "first"}])
    events = [
        {"type": "tool_call", "call_id": "c", "name": "f", "content": {"a": 1}},
        {"type": "run", "run_id": "r", "content": {"state": "started"}},
        {"role": "user", "name": "Ada", "id": "mine", "content": "third"},
        {"type": "summary", "content": "all of it"},
    ]
    answer = await client.post(f"/v1/conversations/{conversation}/events", json={"events": events})
    assert answer.status_code == 201, answer.text
    sent = [{"type": "function_call_output", "call_id": "c", "output": "ok"}]
    answer = await client.post(f"/v1/conversations/{conversation}/items", json={"items": sent})
    assert answer.status_code == 200, answer.text
    found = await items(client, conversation)
    assert [item["type"] for item in found] == ["message", "function_call", "message", "function_call_output"]
    assert (found[1]["arguments"], found[2]["id"], found[3]["output"]) == ('{"a":1}', "mine", "ok")
    log = (await client.get(f"/v1/conversations/{conversation}/events")).json()["data"]
    assert [event["type"] for event in log][-1] == "tool_result"
    assert log[-1]["role"] == "tool"
    for item in found:
        answer = await client.get(f"/v1/conversations/{conversation}/items/{item['id']}")
        assert answer.json() == item
    for wrong in ("msg_none", "evt_2_deleted", found[1]["id"].replace("fc_", "msg_"), found[0]["id"] + "0", "%00"):
        answer = await client.get(f"/v1/conversations/{conversation}/items/{wrong}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), wrong


async def test_include_may_be_whatever_it_likes(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client, items=[{"role": "user", "content": "x"}])
    url = f"/v1/conversations/{conversation}/items"
    for query in ("include=a&include=b", "include[]=a&include%5B%5D=%F0%93%A1%80&limit=1", "include=&order=asc"):
        assert [item["type"] for item in (await client.get(f"{url}?{query}")).json()["data"]] == ["message"], query
        assert (await client.get(f"{url}/msg_x?{query}")).status_code in (400, 404), query
    for query in ("include=a&after=%F0%93%A1%80", "include=a&limit=0", "include=a&other=1", "limit=1&limit=1"):
        assert (await client.get(f"{url}?{query}")).status_code == 400, query


async def test_a_deletion_hides_and_an_erasure_removes(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, *"abcdef")
    ids = [item["id"] for item in await items(client, conversation)]
    assert await delete(client, conversation, ids[1]) == 200
    assert await delete(client, conversation, ids[1]) == 404
    assert await delete(client, conversation, ids[1], **{"x-stainless-retry-count": "1"}) == 200
    erased = await client.delete(f"/v1/conversations/{conversation}/events/{ids[3].replace('msg', 'evt')}")
    assert erased.status_code == 200
    for limit in (1, 2, 3, 100):
        assert await texts(client, conversation, limit=limit) == ["a", "c", "e", "f"]
        assert await texts(client, conversation, limit=limit, order="desc") == ["f", "e", "c", "a"]
    assert await texts(client, conversation, after=ids[1], limit=1) == ["c", "e", "f"], "a place stays a place"
    assert await delete(client, conversation, ids[3]) == 404
    log = (await client.get(f"/v1/conversations/{conversation}/events")).json()["data"]
    assert log[1]["content"] == "b"
    deletion = log[6]
    assert (deletion["type"], deletion["content"]) == ("deletion", {"seq": 2})
    for own in (deletion["id"], log[7]["id"]):
        assert (await client.delete(f"/v1/conversations/{conversation}/events/{own}")).status_code == 422
    refused = await client.post(
        f"/v1/conversations/{conversation}/events", json={"events": [{"type": "deletion", "content": {"seq": 1}}]}
    )
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "events[0].type")


async def test_a_deleted_item_leaves_the_context(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, *"abc")
    ids = [item["id"] for item in await items(client, conversation)]

    async def context(**body: Any) -> list[str]:
        answer = await client.post(f"/v1/conversations/{conversation}/context", json=body)
        assert answer.status_code == 200, answer.text
        return [message["content"] for message in answer.json()["messages"]]

    assert await context() == ["a", "b", "c"]
    assert await delete(client, conversation, ids[1]) == 200
    assert await context() == ["a", "c"]
    assert await context(used=[2]) == ["a", "c"], "a touch brings it back"
    assert await context(as_of=3) == ["a", "b", "c"]
    pinned = await client.post(f"/v1/conversations/{conversation}/pins", json={"seq": 2})
    assert pinned.status_code == 422, pinned.text


async def test_deleting_at_once_deletes_once(servers: Callable[[], Awaitable[httpx.AsyncClient]]) -> None:
    one, other = await servers(), await servers()
    conversation = await new_conversation(one)
    await append(one, conversation, *"abcdefgh")
    ids = [item["id"] for item in await items(one, conversation)]
    outcomes = await asyncio.gather(*(delete(client, conversation, item) for item in ids for client in (one, other)))
    assert sorted(outcomes) == [200] * 8 + [404] * 8
    assert await items(other, conversation) == []
    assert (await one.get(f"/v1/conversations/{conversation}")).json()["head"] == 16


async def test_a_deletion_stays_in_its_branch(client: httpx.AsyncClient) -> None:
    parent = await new_conversation(client)
    await append(client, parent, *"abcd")
    ids = [item["id"] for item in await items(client, parent)]
    assert await delete(client, parent, ids[0]) == 200
    early, late = await fork(client, parent, 4), await fork(client, parent, 5)
    assert await delete(client, late, ids[1]) == 200
    assert await delete(client, late, ids[0]) == 404
    assert await texts(client, parent) == ["b", "c", "d"]
    assert await texts(client, early, limit=1) == ["a", "b", "c", "d"]
    assert await texts(client, late, limit=1) == ["c", "d"]
    assert await texts(client, late, limit=1, order="desc") == ["d", "c"]
    assert await texts(client, early, after=ids[1]) == ["c", "d"]
    assert [item["id"] for item in await items(client, early)] == ids


async def test_many_deletions_in_a_row(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, *(str(number) for number in range(120)))
    ids = [item["id"] for item in await items(client, conversation, limit=100)]
    for item in ids[10:110]:
        assert await delete(client, conversation, item) == 200
    expected = [str(number) for number in (*range(10), *range(110, 120))]
    assert await texts(client, conversation, limit=7) == expected
    assert await texts(client, conversation, limit=7, order="desc") == expected[::-1]


async def test_an_id_may_be_given_again_after_its_deletion(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    url = f"/v1/conversations/{conversation}/items"
    item = {"role": "user", "content": "x", "id": "mine"}
    for _ in range(2):
        assert (await client.post(url, json={"items": [item]})).json()["last_id"] == "mine"
    changed = {"items": [{"role": "user", "content": "new"}, item | {"content": "y"}]}
    refused = await client.post(url, json=changed)
    assert (refused.status_code, refused.json()["error"]["param"]) == (409, "items[1].id")
    assert refused.headers["x-should-retry"] == "false"
    assert await texts(client, conversation) == ["x"]
    assert await delete(client, conversation, "mine") == 200
    again = (await client.post(url, json=changed)).json()
    assert again["last_id"].startswith("msg_")
    assert await texts(client, conversation) == ["new", "y"]
    native = await client.post(f"/v1/conversations/{conversation}/events", json={"events": [item]})
    assert native.json()["events"] == [{"id": "mine", "seq": 1}], "in the log the id is taken for good"


async def test_items_of_another_tenant_are_not_there(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "mine")
    (item,) = await items(client, conversation)
    stranger = await admin_of(client, "other")
    url = f"/v1/conversations/{conversation}/items"
    body = {"items": [{"role": "user", "content": "x"}]}
    for answer in (
        await client.get(url, headers=stranger),
        await client.get(url, headers=stranger, params={"after": item["id"]}),
        await client.post(url, json=body, headers=stranger),
        await client.get(f"{url}/{item['id']}", headers=stranger),
        await client.delete(f"{url}/{item['id']}", headers=stranger),
    ):
        assert answer.status_code == 404
    reader = {"authorization": f"Bearer {(await make_key(client, name='reader', scopes=['read']))['key']}"}
    assert (await client.post(url, json=body, headers=reader)).status_code == 403
    assert (await client.delete(f"{url}/{item['id']}", headers=reader)).status_code == 403
    assert await texts(client, conversation) == ["mine"]


async def test_chains_of_retries_end(
    client: httpx.AsyncClient, address: EmbeddedAddress, database: Database, tenant: Tenant
) -> None:
    """A retry that comes after the window is a new request, and retention forgets what nobody asks for."""
    conversation = await new_conversation(client)
    url, body = f"/v1/conversations/{conversation}/items", {"items": [{"role": "user", "content": "x"}]}
    attempt = "x-stainless-retry-count"
    for number in ("0", "1"):
        assert (await client.post(url, json=body, headers={attempt: number})).status_code == 200
    assert len(await items(client, conversation)) == 1
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        connection.execute("UPDATE retry_chain SET created_at = created_at - interval '11 minutes'")
        assert (await client.post(url, json=body, headers={attempt: "2"})).status_code == 200
        assert len(await items(client, conversation)) == 2
        await forget_keys(database, tenant, 24)
        assert connection.execute("SELECT level FROM retry_chain").fetchall() == [(2,)]
        for odd in ("x", "-1", "1" * 30, ""):
            assert (await client.post(url, json=body, headers={attempt: odd})).status_code == 200
        assert connection.execute("SELECT level FROM retry_chain").fetchall() == [(2,)]
    assert len(await items(client, conversation)) == 6


async def test_a_deleted_conversation_answers_the_retry_of_its_deletion(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    retry = {"x-stainless-retry-count": "1"}
    never = f"conv_{'0' * 48}"
    assert (await client.delete(f"/v1/conversations/{conversation}")).status_code == 200
    assert (await client.delete(f"/v1/conversations/{conversation}")).status_code == 404
    again = await client.delete(f"/v1/conversations/{conversation}", headers=retry)
    assert (again.status_code, again.json()["object"]) == (200, "conversation.deleted")
    assert (await client.delete(f"/v1/conversations/{never}", headers=retry)).status_code == 404


@pytest.mark.parametrize("seed", [1, 2])
async def test_any_list_is_what_is_there(servers: Callable[[], Awaitable[httpx.AsyncClient]], seed: int) -> None:
    """From memory and from the database, on the server that wrote and on the other, whatever came in between."""
    dice = random.Random(seed)
    pair = [await servers(), await servers()]
    conversation = await new_conversation(pair[0])
    url = f"/v1/conversations/{conversation}"
    places: list[str] = []  # each item's id, in order
    hidden: set[str] = set()
    for number in range(120):
        client = dice.choice(pair)
        alive = [item for item in places if item not in hidden]
        match dice.choice(["items", "items", "events", "other", "delete", "delete", "erase"]):
            case "items":
                new = [{"role": "user", "content": f"{number}.{n}"} for n in range(dice.choice([1, 1, 3, 20]))]
                named = dice.random() < 0.3
                sent = [item | ({"id": f"mine {number} {n}"} if named else {}) for n, item in enumerate(new)]
                answer = await client.post(f"{url}/items", json={"items": sent})
                places += [item["id"] for item in answer.json()["data"]]
            case "events":
                event = {"type": "tool_result", "call_id": "c", "content": {"n": number}}
                answer = await client.post(f"{url}/events", json={"events": [event] * dice.choice([1, 150])})
                places += [one["id"].replace("evt_", "fco_") for one in answer.json()["events"]]
            case "other":
                await client.post(f"{url}/events", json={"events": [{"type": "summary", "content": "so far"}]})
            case "delete" if alive:
                gone = dice.choice([alive[0], alive[-1], dice.choice(alive)])
                assert await delete(client, conversation, gone) == 200
                hidden.add(gone)
                assert (await client.get(f"{url}/items/{gone}")).status_code == 404
            case "erase" if alive:
                gone = dice.choice(alive[-5:])
                event_id = re.sub("^(msg|fco)_", "evt_", gone)
                assert (await client.delete(f"{url}/events/{event_id}")).status_code == 200
                hidden.add(gone)
        order = dice.choice(["asc", "desc"])
        limit = dice.choice([1, 5, 20, 100])
        query: dict[str, Any] = {"order": order, "limit": limit}
        ordered = places if order == "asc" else places[::-1]
        if places and dice.random() < 0.5:
            after = dice.choice([*places[-5:], *places[:5]])
            if not after.startswith("mine") or after not in hidden:  # an erased event is no place by its caller's id
                query["after"] = after
                ordered = ordered[ordered.index(after) + 1 :]
        expected = [item for item in ordered if item not in hidden]
        for reader in pair:
            page = (await reader.get(f"{url}/items", params=query)).json()
            assert [item["id"] for item in page["data"]] == expected[:limit], (number, query)
            assert page["has_more"] == (len(expected) > limit)


async def test_ten_thousand_items_page_in_order_while_others_append(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    for start in range(0, 10_000, 1000):
        await append(client, conversation, *(str(number) for number in range(start, start + 1000)))
    done = False

    async def talk() -> int:
        sent = 0
        while not done:
            body = {"items": [{"role": "user", "content": str(10_000 + sent)}]}
            assert (await client.post(f"/v1/conversations/{conversation}/items", json=body)).status_code == 200
            sent += 1
        return sent

    talking = asyncio.create_task(talk())
    backward = [int(text) for text in await texts(client, conversation, limit=100, order="desc")]
    forward = [int(text) for text in await texts(client, conversation, limit=100)]
    done = True
    sent = await talking
    assert sent > 10
    assert len(forward) > 10_000
    assert forward == list(range(len(forward)))
    assert backward == list(range(backward[0], -1, -1))
