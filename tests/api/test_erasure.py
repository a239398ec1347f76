"""What erasure means, also with forks in between; tests/database/test_needle.py digs."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.test_access import bearer, make_key
from tests.api.test_events import append, new_conversation
from tests.api.test_forks import contents, fork


async def events(client: httpx.AsyncClient, conversation: str) -> list[dict[str, Any]]:
    answer = await client.get(f"/v1/conversations/{conversation}/events?limit=1000")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


async def erase(client: httpx.AsyncClient, conversation: str, seq: int) -> httpx.Response:
    event = (await client.get(f"/v1/conversations/{conversation}/events?after_seq={seq - 1}&limit=1")).json()["data"][0]
    return await client.delete(f"/v1/conversations/{conversation}/events/{event['id']}")


async def erasures(client: httpx.AsyncClient) -> list[tuple[Any, ...]]:
    found = (await client.get("/v1/erasures?limit=100")).json()["data"]
    return [(one["scope"], one["conversation_id"], one["first_seq"], one["events"]) for one in found]


async def test_a_tombstone_keeps_the_place(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    event = {"role": "user", "content": "secret", "id": "mine", "name": "Ada", "session": "s", "metadata": {"a": 1}}
    url = f"/v1/conversations/{conversation}/events"
    sent = await client.post(url, json={"events": [event, {"role": "user", "content": "kept"}]})
    before = (await events(client, conversation))[0]
    answer = await client.delete(f"{url}/mine")
    assert answer.status_code == 200
    tombstone = answer.json()
    assert tombstone == {
        "id": f"evt_{conversation[-32:]}_1",
        "seq": 1,
        "type": "message",
        "role": "user",
        "occurred_at": before["occurred_at"],
        "recorded_at": before["recorded_at"],
        "erased_at": tombstone["erased_at"],
    }
    shown = await events(client, conversation)
    assert shown[0] == tombstone
    assert [one["seq"] for one in shown] == [1, 2, 3]
    assert (shown[2]["type"], shown[2]["content"]) == ("erasure", {"seq": 1})
    # A retry of the append stays a retry: the text does not come back.
    again = await client.post(url, json={"events": [event]})
    assert again.json() == {"events": [sent.json()["events"][0]], "head": 3}
    other = await client.post(url, json={"events": [event | {"content": "another"}]})
    assert other.json()["error"]["code"] == "id_conflict"
    # Erasing it again changes nothing, by either id; an erasure cannot be erased.
    for name in ("mine", tombstone["id"]):
        assert (await client.delete(f"{url}/{name}")).json() == tombstone
    assert (await erase(client, conversation, 3)).status_code == 422
    assert len(await events(client, conversation)) == 3
    assert await erasures(client) == [("event", conversation, 1, 1)]


async def test_an_idempotent_retry_does_not_bring_text_back(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    url = f"/v1/conversations/{conversation}/events"
    body = {"events": [{"role": "user", "content": "secret"}]}
    first = await client.post(url, json=body, headers={"idempotency-key": "k"})
    await erase(client, conversation, 1)
    again = await client.post(url, json=body, headers={"idempotency-key": "k"})
    assert (again.status_code, again.content) == (201, first.content)
    assert [one.get("content") for one in await events(client, conversation)] == [None, {"seq": 1}]


async def test_an_event_goes_from_every_fork(client: httpx.AsyncClient) -> None:
    """Whichever conversation it is erased through; the erasure is told in its owner's log only."""
    parent = await new_conversation(client)
    await append(client, parent, "1", "2", "3")
    child = await fork(client, parent, 2)
    grandchild = await fork(client, child, 2)
    unaware = await fork(client, parent, 1)
    await append(client, grandchild, "own")
    assert (await erase(client, grandchild, 2)).status_code == 200
    assert await contents(client, parent) == ["1", None, "3", {"seq": 2}]
    assert await contents(client, child) == ["1", None]
    assert await contents(client, grandchild) == ["1", None, "own"]
    assert await contents(client, unaware) == ["1"]
    assert (await erase(client, grandchild, 3)).status_code == 200
    assert await contents(client, grandchild) == ["1", None, None, {"seq": 3}]
    assert await contents(client, parent) == ["1", None, "3", {"seq": 2}]
    assert await erasures(client) == [("event", parent, 2, 1), ("event", grandchild, 3, 1)]


@pytest.mark.parametrize("first", ["near", "far"])
async def test_a_deleted_conversation_keeps_what_live_forks_show(client: httpx.AsyncClient, first: str) -> None:
    parent = await new_conversation(client, user="ada")
    await append(client, parent, "1", "2", "3", "4")
    near, far = await fork(client, parent, 1), await fork(client, parent, 3)
    assert (await client.delete(f"/v1/conversations/{parent}")).status_code == 200
    for gone in (parent, f"{parent}/events"):
        assert (await client.get(f"/v1/conversations/{gone}")).status_code == 404
    assert (await append(client, parent, "5")).status_code == 404
    assert (await client.post(f"/v1/conversations/{parent}/fork", json={"at_seq": 1})).status_code == 404
    assert (await client.delete(f"/v1/conversations/{parent}")).status_code == 404
    assert {one["id"] for one in (await client.get("/v1/conversations")).json()["data"]} == {near, far}
    assert (await contents(client, near), await contents(client, far)) == (["1"], ["1", "2", "3"])
    # A shared event of a deleted conversation can still be erased through those that show it.
    assert (await erase(client, far, 1)).status_code == 200
    assert (await contents(client, near), await contents(client, far)) == ([None], [None, "2", "3"])
    order = {"near": near, "far": far}
    await client.delete(f"/v1/conversations/{order.pop(first)}")
    (left,) = order.values()
    assert await contents(client, left) == ([None, "2", "3"] if left == far else [None])
    await append(client, left, "goes on")
    await client.delete(f"/v1/conversations/{left}")
    counted = [record for record in await erasures(client) if record[0] == "conversation"]
    assert sum(record[3] for record in counted) >= 2
    assert (await client.get("/v1/conversations")).json()["data"] == []


async def test_a_deleted_link_in_the_middle(client: httpx.AsyncClient) -> None:
    parent = await new_conversation(client)
    await append(client, parent, "1")
    middle = await fork(client, parent, 1)
    await append(client, middle, "2", "3")
    leaf = await fork(client, middle, 2)
    await client.delete(f"/v1/conversations/{middle}")
    assert await contents(client, leaf) == ["1", "2"]
    await client.delete(f"/v1/conversations/{parent}")
    assert await contents(client, leaf) == ["1", "2"]
    await append(client, leaf, "3 of the leaf")
    assert await contents(client, await fork(client, leaf, 3)) == ["1", "2", "3 of the leaf"]


async def test_erasing_a_user(client: httpx.AsyncClient) -> None:
    mine = [await new_conversation(client, user="ada/with strange?name", metadata={"n": n}) for n in range(2)]
    for conversation in mine:
        await append(client, conversation, "1", "2")
    child = await fork(client, mine[0], 1)
    other, alone = await new_conversation(client, user="bob"), await new_conversation(client)
    await append(client, other, "bob's")
    answer = await client.delete("/v1/users/ada%2Fwith%20strange%3Fname")
    assert answer.json() == {
        "id": "ada/with strange?name",
        "object": "user.deleted",
        "deleted": True,
        "events": 4,
    }, answer.text
    for gone in (*mine, child):
        assert (await client.get(f"/v1/conversations/{gone}")).status_code == 404
    assert {one["id"] for one in (await client.get("/v1/conversations")).json()["data"]} == {other, alone}
    assert [one["id"] for one in (await client.get("/v1/users")).json()["data"]] == ["bob"]
    assert (await client.delete("/v1/users/ada%2Fwith%20strange%3Fname")).status_code == 404
    assert await erasures(client) == [("user", None, None, 4)]
    again = await new_conversation(client, user="ada/with strange?name")
    assert await contents(client, again) == []


async def test_only_a_key_that_may_erase_erases(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client, user="ada")
    await append(client, conversation, "1")
    weak = bearer((await make_key(client, scopes=["read", "append"]))["key"])
    event = (await events(client, conversation))[0]["id"]
    for path in (
        f"/v1/conversations/{conversation}/events/{event}",
        f"/v1/conversations/{conversation}",
        "/v1/users/ada",
    ):
        assert (await client.delete(path, headers=weak)).status_code == 403
    assert await contents(client, conversation) == ["1"]
    strong = await make_key(client, scopes=["erase"])
    assert (await client.delete("/v1/users/ada", headers=bearer(strong["key"]))).status_code == 200
    assert (await client.get("/v1/erasures")).json()["data"][0]["actor"] == strong["id"]
