"""Constraints over HTTP: listed, confirmed, dismissed, reaching no further than was said, and gone with their event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.api.test_access import make_key, make_tenant
from tests.api.test_context import context
from tests.api.test_events import append, new_conversation
from tests.api.test_working_set import choose, log


async def constraints(client: httpx.AsyncClient, conversation: str, **query: Any) -> list[dict[str, Any]]:
    answer = await client.get(f"/v1/conversations/{conversation}/constraints", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def decide(client: httpx.AsyncClient, conversation: str, **body: Any) -> httpx.Response:
    return await client.post(f"/v1/conversations/{conversation}/constraints", json=body)


async def shown(client: httpx.AsyncClient, conversation: str, **body: Any) -> dict[str, str]:
    """Return reason by content."""
    messages = (await context(client, conversation, **body))["messages"]
    return {str(one.get("content")): one["reason"] for one in messages}


def chatter(count: int) -> list[str]:
    return [f"The harbour was loud again today, number {number}." for number in range(count)]


async def test_what_was_set_is_listed_with_its_place_and_cue(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "Thanks! By the way, please don't use emojis. What is next?", "And I'm vegan.")
    first, second = await constraints(client, conversation)
    assert (first["text"], first["seq"], first["state"]) == ("please don't use emojis.", 1, "recognised")
    assert (first["kind"], first["polarity"], first["cue"]) == ("prohibition", "avoid", "please do not")
    assert first["conversation_id"] == conversation
    assert "firm cue" in first["why"]
    assert (second["seq"], second["topic"], second["reach"]) == (2, "diet", "conversation")


@pytest.mark.parametrize("turns", [6, 600])
async def test_a_constraint_set_so_many_turns_ago_is_in_the_context(client: httpx.AsyncClient, turns: int) -> None:
    conversation = await new_conversation(client)
    await choose(client, conversation, policy="fifo", budget_tokens=300)
    await append(client, conversation, "Never call me before nine.")
    await append(client, conversation, *chatter(turns))
    found = await shown(client, conversation)
    assert found["Never call me before nine."].startswith("constraint: ")
    assert (await shown(client, conversation, budget_tokens=120))["Never call me before nine."].startswith("constraint")


async def test_superseded_and_dismissed_ones_are_ordinary(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await choose(client, conversation, policy="fifo", budget_tokens=200)
    await append(client, conversation, "Please always answer in French.", "I'm vegetarian.")
    await append(client, conversation, "From now on, answer in German.")
    await append(client, conversation, *chatter(40))
    french, vegetarian, german = await constraints(client, conversation)
    assert (french["state"], french["superseded_by"]) == ("superseded", german["seq"])
    found = await shown(client, conversation)
    assert "Please always answer in French." not in found
    assert {"I'm vegetarian.", "From now on, answer in German."} <= found.keys()
    answer = await decide(client, conversation, seq=vegetarian["seq"], state="dismissed")
    assert [one["state"] for one in answer.json()["data"]] == ["superseded", "dismissed", "recognised"]
    await append(client, conversation, *chatter(40))
    assert "I'm vegetarian." not in await shown(client, conversation)


async def test_deciding_twice_is_deciding_once(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "I'm vegetarian.")
    first = await decide(client, conversation, seq=1, state="confirmed")
    again = await decide(client, conversation, seq=1, state="confirmed")
    assert first.status_code == 200, first.text
    assert first.json() == again.json()
    assert [event["type"] for event in await log(client, conversation)] == ["message", "constraint"]
    assert (await log(client, conversation))[1]["content"] == {"seq": 1, "state": "confirmed", "reach": "conversation"}


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"seq": 2, "state": "confirmed"}, "seq", "sets nothing that is recognised"),
        ({"seq": 3, "state": "confirmed"}, "seq", "sets nothing that is recognised"),
        ({"seq": 9, "state": "confirmed"}, "seq", "there is no event 9"),
        ({"seq": 0, "state": "confirmed"}, "seq", ""),
        ({"seq": 1, "state": "superseded"}, "state", "superseded"),
        ({"seq": 1, "state": "confirmed", "reach": "tenant"}, "reach", "tenant"),
        ({"seq": 1, "state": "confirmed", "reach": "user"}, "reach", "has no user"),
        ({"seq": 1, "state": "dismissed", "reach": "user"}, "reach", "reaches nowhere"),
        ({"seq": 1}, "state", "state"),
        ({"seq": 1, "state": "confirmed", "why": ""}, "why", "why"),
    ],
)
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, body: dict[str, Any], param: str, message: str
) -> None:
    items = [
        {"role": "user", "content": "I'm vegetarian."},
        {"role": "assistant", "content": "Always answer in French. Never call me."},
        {"role": "user", "content": "The harbour was loud."},
    ]
    conversation = await new_conversation(client, items=items)
    answer = await decide(client, conversation, **body)
    assert answer.status_code == 422, answer.text
    assert message in answer.json()["error"]["message"]
    assert len(await log(client, conversation)) == 3


async def test_a_malformed_decision_is_refused_on_append_too(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    for content in ({"seq": 1, "state": "bogus"}, {"seq": 0, "state": "confirmed"}, {"seq": 1, "state": [], "x": 1}):
        events = [{"type": "constraint", "content": content}]
        answer = await client.post(f"/v1/conversations/{conversation}/events", json={"events": events})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "events[0].content")
    events = [{"type": "constraint", "content": "Never call me before nine."}]
    answer = await client.post(f"/v1/conversations/{conversation}/events", json={"events": events})
    assert answer.status_code == 201, answer.text
    [found] = await constraints(client, conversation, min_seq=1)
    assert (found["state"], found["role"]) == ("confirmed", None)


async def test_only_what_was_confirmed_reaches_the_users_other_conversations(client: httpx.AsyncClient) -> None:
    one, other = await new_conversation(client, user="ada"), await new_conversation(client, user="ada")
    stranger, alone = await new_conversation(client, user="bob"), await new_conversation(client)
    await append(client, one, "Always answer in French.", "Never call me before nine.")
    for at in (other, stranger, alone):
        await append(client, at, "Hello there.")
        assert await constraints(client, at) == []
    assert (await decide(client, one, seq=1, state="confirmed")).status_code == 200
    assert await constraints(client, other) == []
    assert (await decide(client, one, seq=1, state="confirmed", reach="user")).status_code == 200
    [found] = await constraints(client, other)
    assert (found["conversation_id"], found["seq"], found["reach"]) == (one, 1, "user")
    for at in (stranger, alone):
        assert await constraints(client, at) == []
        assert "Always answer in French." not in await shown(client, at)
    message = (await context(client, other))["messages"][0]
    assert (message["conversation_id"], message["content"]) == (one, "Always answer in French.")
    assert message["reason"].startswith("constraint: ")
    # What the conversation sets itself goes before.
    await append(client, other, "From now on, answer in German.")
    assert "Always answer in French." not in await shown(client, other)
    fresh = await new_conversation(client, user="ada")
    assert "Always answer in French." in await shown(client, fresh)
    assert (await decide(client, one, seq=1, state="dismissed")).status_code == 200
    assert await constraints(client, fresh) == []


async def test_what_is_erased_or_deleted_holds_nowhere(client: httpx.AsyncClient) -> None:
    for erase in (True, False):
        one, other = [await new_conversation(client, user=f"ada {erase}") for _ in range(2)]
        events = (await append(client, one, "Always answer in French.", "Never call me before nine.")).json()["events"]
        await append(client, other, "Hello there.")
        await decide(client, one, seq=1, state="confirmed", reach="user")
        assert len(await constraints(client, other)) == 1
        path = "events" if erase else "items"
        items = (await client.get(f"/v1/conversations/{one}/items?order=asc")).json()["data"]
        name = events[0]["id"] if erase else items[0]["id"]
        answer = await client.delete(f"/v1/conversations/{one}/{path}/{name}")
        assert answer.status_code in (200, 204), answer.text
        assert [found["seq"] for found in await constraints(client, one)] == [2]
        assert await constraints(client, other) == []
        assert "Always answer in French." not in await shown(client, other)


async def test_a_fork_keeps_what_it_shares(client: httpx.AsyncClient) -> None:
    one = await new_conversation(client, user="ada")
    await append(client, one, "Always answer in French.")
    await decide(client, one, seq=1, state="confirmed", reach="user")
    fork = (await client.post(f"/v1/conversations/{one}/fork", json={"at_seq": 2})).json()["id"]
    assert [(found["conversation_id"], found["state"]) for found in await constraints(client, fork)] == [
        (fork, "confirmed")
    ]
    assert list(await shown(client, fork)) == ["Always answer in French."]


async def test_two_servers_agree(
    client: httpx.AsyncClient, servers: Callable[[], Awaitable[httpx.AsyncClient]]
) -> None:
    second = await servers()
    conversation = await new_conversation(client)
    await append(client, conversation, "I'm vegetarian.", *chatter(30))
    assert await constraints(client, conversation) == await constraints(second, conversation)
    await decide(second, conversation, seq=1, state="dismissed")
    assert [one["state"] for one in await constraints(client, conversation)] == ["dismissed"]


async def test_keys_and_tenants(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "I'm vegetarian.")
    key = await make_key(client, scopes=["read"], name="reader")
    tenant = await make_tenant(client, "other")
    foreign = await make_key(client, tenant=tenant["id"], scopes=["admin"], name="other")
    for secret, expected in ((key["key"], 403), (foreign["key"], 404)):
        headers = {"authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(base_url=client.base_url, headers=headers) as other:
            assert (await decide(other, conversation, seq=1, state="confirmed")).status_code == expected
            path = f"/v1/conversations/{conversation}/constraints"
            assert (await other.get(path)).status_code == (200 if expected == 403 else 404)
