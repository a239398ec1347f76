"""Pins over HTTP: they never leave, they have a quota, and pinning twice is pinning once."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.test_events import append, new_conversation
from tests.api.test_working_set import choose, log, read, talk


async def pin(client: httpx.AsyncClient, conversation: str, **body: Any) -> httpx.Response:
    return await client.post(f"/v1/conversations/{conversation}/pins", json=body)


async def unpin(client: httpx.AsyncClient, conversation: str, seq: object) -> httpx.Response:
    return await client.delete(f"/v1/conversations/{conversation}/pins/{seq}")


async def test_a_pinned_event_stays(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await choose(client, conversation, policy="fifo", budget_tokens=60)
    await append(client, conversation, "The flight leaves at nine.")
    answer = await pin(client, conversation, seq=2)
    assert answer.status_code == 200, answer.text
    assert answer.json()["seqs"] == [2]
    assert answer.json()["quota_tokens"] == 30
    await append(client, conversation, *[f"this is message {number}" for number in range(20)])
    residents = (await read(client, conversation))["residents"]
    assert (residents[0]["seq"], residents[0]["why"]) == (2, "pinned")
    assert (await unpin(client, conversation, 2)).json()["seqs"] == []
    await append(client, conversation, *[f"this is message {number}" for number in range(20)])
    assert (await read(client, conversation))["residents"][0]["seq"] > 20


async def test_pinning_twice_is_pinning_once(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "one", "two")
    first, again = await pin(client, conversation, seq=1), await pin(client, conversation, seq=1)
    assert first.json() == again.json()
    assert [event["type"] for event in await log(client, conversation)].count("pin") == 1
    assert (await unpin(client, conversation, 1)).json()["seqs"] == []
    assert (await unpin(client, conversation, 1)).json()["seqs"] == []
    assert (await unpin(client, conversation, 2)).status_code == 200
    assert [event["type"] for event in await log(client, conversation)].count("unpin") == 1


async def test_an_event_is_pinned_by_its_id(client: httpx.AsyncClient) -> None:
    items = [{"role": "user", "content": "one", "id": "mine/1"}, {"role": "user", "content": "two"}]
    conversation = await talk(client, items)
    assert (await pin(client, conversation, event="mine/1")).json()["seqs"] == [1]
    second = (await log(client, conversation))[1]["id"]
    assert (await pin(client, conversation, event=second)).json()["seqs"] == [1, 2]
    for nothing in ("yours", second[:-1] + "9", "\0", ""):
        missing = await pin(client, conversation, event=nothing)
        assert (missing.status_code, missing.json()["error"]["message"]) == (404, "no such event")


async def test_what_had_left_comes_back_with_its_call(client: httpx.AsyncClient) -> None:
    items = [
        {"type": "working_set", "content": {"policy": "fifo", "budget_tokens": 80}},
        {"type": "tool_call", "call_id": "c", "name": "look", "content": {"for": "gulls"}},
        {"type": "tool_result", "call_id": "c", "content": "twelve gulls"},
    ]
    conversation = await talk(client, items)
    await append(client, conversation, *[f"this is message {number}" for number in range(20)])
    assert (await read(client, conversation))["residents"][0]["seq"] > 3
    assert (await pin(client, conversation, seq=3)).status_code == 200
    residents = (await read(client, conversation))["residents"]
    assert [(one["seq"], one["why"], one["unit"]) for one in residents[:2]] == [(2, "pinned", 2), (3, "pinned", 2)]


async def test_pins_have_a_quota(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await choose(client, conversation, budget_tokens=60)
    await append(client, conversation, "The flight leaves at nine.", "x " * 60)
    taken = (await pin(client, conversation, seq=2)).json()["tokens"]
    refused = await pin(client, conversation, seq=3)
    assert refused.status_code == 422, refused.text
    message = refused.json()["error"]["message"]
    assert f"pins may take 30 tokens, half of the budget; {taken} are taken" in message
    assert "raise the budget to" in message
    needed = int(message.rsplit(" ", 1)[1])
    assert (await choose(client, conversation, budget_tokens=needed)).status_code == 200
    assert (await pin(client, conversation, seq=3)).json()["seqs"] == [2, 3]


async def test_a_raw_pin_beyond_the_quota_has_no_effect(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await choose(client, conversation, budget_tokens=60)
    await append(client, conversation, "x " * 60)
    events = [{"type": "pin", "content": {"seq": 2}}, {"type": "pin", "content": {"seq": 99}}]
    raw = await client.post(f"/v1/conversations/{conversation}/events", json={"events": events})
    assert raw.status_code == 201
    assert (await read(client, conversation))["pins"]["seqs"] == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "seq"),
        ({"seq": 1, "event": "x"}, "seq"),
        ({"seq": 0}, "seq"),
        ({"seq": -1}, "seq"),
        ({"seq": 3}, "seq"),
        ({"seq": 2**60}, "seq"),
        ({"seq": "1"}, "seq"),
        ({"seq": None}, "seq"),
        ({"event": 1}, "event"),
        ({"seqs": [1]}, "seqs"),
    ],
)
async def test_a_wrong_pin_is_refused(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "one", "two")
    answer = await pin(client, conversation, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text
    assert len(await log(client, conversation)) == 2


async def test_what_holds_nothing_cannot_be_pinned(client: httpx.AsyncClient) -> None:
    items = [{"role": "user", "content": "one"}, {"type": "run", "run_id": "r", "content": {"state": "started"}}]
    conversation = await talk(client, items)
    [one, _] = await log(client, conversation)
    await client.delete(f"/v1/conversations/{conversation}/events/{one['id']}")
    for seq in (1, 2, 3):
        answer = await pin(client, conversation, seq=seq)
        assert answer.status_code == 422
        assert f"event {seq} cannot be pinned" in answer.json()["error"]["message"]


async def test_no_pin_at_what_is_no_seq(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "one")
    for seq in ("x", "0", "-1", "%D9%A1", "2", "9" * 30):
        assert (await unpin(client, conversation, seq)).status_code == 404, seq


async def test_a_forks_pins_are_its_own(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "one", "two")
    await pin(client, conversation, seq=1)
    fork = (await client.post(f"/v1/conversations/{conversation}/fork", json={"at_seq": 3})).json()["id"]
    assert (await read(client, fork))["pins"]["seqs"] == [1]
    assert (await unpin(client, fork, 1)).json()["seqs"] == []
    assert (await read(client, conversation))["pins"]["seqs"] == [1]


async def test_pins_at_once_stay_within_the_quota(client: httpx.AsyncClient) -> None:
    """Each is checked at the head that it is appended to, so that none of those that were answered has no effect."""
    conversation = await new_conversation(client)
    await choose(client, conversation, budget_tokens=100)
    await append(client, conversation, *[f"this is what message {number} says" for number in range(8)])
    answers = await asyncio.gather(*[pin(client, conversation, seq=seq) for seq in range(2, 10)])
    pinned = [seq for seq, answer in zip(range(2, 10), answers, strict=True) if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert all(answer.status_code in (409, 422) for answer in refused)
    found = (await read(client, conversation))["pins"]
    assert found["seqs"] == pinned
    assert 0 < found["tokens"] <= found["quota_tokens"] == 50


async def test_pins_need_a_key_that_may_append(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "one")
    key = (await client.post("/v1/keys", json={"name": "reader", "scopes": ["read"]})).json()["key"]
    url = f"/v1/conversations/{conversation}"
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=client.base_url, headers=headers) as reader:
        assert (await reader.post(f"{url}/pins", json={"seq": 1})).status_code == 403
        assert (await reader.delete(f"{url}/pins/1")).status_code == 403
        assert (await reader.put(f"{url}/working-set", json={"policy": "lru"})).status_code == 403
        assert (await reader.get(f"{url}/working-set")).status_code == 200
        assert (await reader.post(f"{url}/context", json={})).status_code == 200
        assert (await reader.post(f"{url}/context", json={"used": [1]})).status_code == 403
