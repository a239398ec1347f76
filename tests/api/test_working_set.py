"""The working set over HTTP: what is resident and why, and the choice of policy and budget."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from server.working_set.choice import MAX_BUDGET, Choice
from server.working_set.eviction import policies
from tests.api.test_events import append, new_conversation

NOBODY = "conv_" + "0" * 48


async def read(client: httpx.AsyncClient, conversation: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(f"/v1/conversations/{conversation}/working-set", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def talk(client: httpx.AsyncClient, events: Sequence[Any]) -> str:
    """Make a conversation of these events, and return its id."""
    conversation = await new_conversation(client)
    answer = await client.post(f"/v1/conversations/{conversation}/events", json={"events": events})
    assert answer.status_code == 201, answer.text
    return conversation


async def choose(client: httpx.AsyncClient, conversation: str, **body: Any) -> httpx.Response:
    return await client.put(f"/v1/conversations/{conversation}/working-set", json=body)


async def log(client: httpx.AsyncClient, conversation: str) -> list[dict[str, Any]]:
    page = (await client.get(f"/v1/conversations/{conversation}/events")).json()
    return list(page["data"])


async def test_an_empty_conversation_has_the_default_policy(client: httpx.AsyncClient) -> None:
    found = await read(client, await new_conversation(client))
    assert found["policy"] == Choice().policy
    assert found["budget_tokens"] == Choice().budget_tokens
    assert found["parameters"]["half_life"] == 2000.0
    assert (found["head"], found["tokens"], found["residents"], found["near"]) == (0, 0, [], [])
    assert found["pins"] == {"head": 0, "seqs": [], "tokens": 0, "quota_tokens": 4000}


async def test_it_says_what_is_resident_and_why(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    assert (await choose(client, conversation, policy="fifo", budget_tokens=40)).status_code == 200
    await append(client, conversation, *[f"this is message {number}" for number in range(8)])
    found = await read(client, conversation)
    assert found["head"] == 9
    assert 0 < found["tokens"] <= 40
    assert found["tokens"] == sum(resident["tokens"] for resident in found["residents"])
    last = found["residents"][-1]
    assert (last["seq"], last["why"], last["type"], last["role"]) == (9, "the newest user message", "message", "user")
    assert last["id"].endswith("_9")
    assert found["residents"][0]["why"] == "kept by fifo"
    gone = [one for one in found["near"] if not one["resident"]]
    assert gone[0]["seqs"] == [found["residents"][0]["seq"] - 1]
    assert gone[0]["why"].startswith("left at head 9")
    assert any(one["why"].startswith("next to leave") for one in found["near"])
    assert (await read(client, conversation, near=0))["near"] == []
    assert len((await read(client, conversation, near=1))["near"]) == 2


async def test_a_choice_is_an_event_and_an_equal_one_is_none(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    changed = await choose(client, conversation, policy="tool_first", parameters={"keep": 1})
    assert (changed.json()["policy"], changed.json()["parameters"]) == (
        "tool_first",
        {"keep": 1, "placeholder_tokens": 16},
    )
    smaller = (await choose(client, conversation, budget_tokens=500)).json()
    assert (smaller["policy"], smaller["parameters"]["keep"], smaller["budget_tokens"]) == ("tool_first", 1, 500)
    for same in ({}, {"budget_tokens": 500}, {"policy": "tool_first"}):
        assert (await choose(client, conversation, **same)).json() == smaller
    assert [event["type"] for event in await log(client, conversation)] == ["working_set"] * 2
    other = (await choose(client, conversation, policy="lru")).json()
    assert (other["parameters"], other["budget_tokens"]) == ({}, 500)


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"policy": "best"}, "policy", "tool_first"),
        ({"policy": None}, "policy", "str"),
        ({"policy": "fifo", "parameters": {"window": 1}}, "parameters", "none"),
        ({"parameters": {"windw": 0.5}}, "parameters", "half_life"),
        ({"parameters": {"window": 2}}, "parameters", "window"),
        ({"parameters": {"window": "0.5"}}, "parameters", "window"),
        ({"parameters": []}, "parameters", "object"),
        ({"budget_tokens": 0}, "budget_tokens", "1 to"),
        ({"budget_tokens": -5}, "budget_tokens", "-5"),
        ({"budget_tokens": MAX_BUDGET + 1}, "budget_tokens", str(MAX_BUDGET)),
        ({"budget_tokens": 10**40}, "budget_tokens", str(MAX_BUDGET)),
        ({"budget_tokens": 1.5}, "budget_tokens", "int"),
        ({"budget_tokens": "100"}, "budget_tokens", "int"),
        ({"budget": 100}, "budget", "unknown"),
    ],
)
async def test_a_choice_of_what_there_is_not_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any], param: str, says: str
) -> None:
    conversation = await new_conversation(client)
    answer = await choose(client, conversation, **body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["param"] == param
    assert says in answer.json()["error"]["message"]
    assert await log(client, conversation) == []


async def test_an_unknown_policy_lists_those_there_are(client: httpx.AsyncClient) -> None:
    answer = await choose(client, await new_conversation(client), policy="best")
    assert answer.json()["error"]["policies"] == sorted(policies())


async def test_a_budget_that_pins_do_not_fit_in_says_what_is_needed(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "Never book me a flight.")
    await client.post(f"/v1/conversations/{conversation}/pins", json={"seq": 1})
    pinned = (await read(client, conversation))["pins"]["tokens"]
    for budget in (0, -1, 2 * pinned - 1):
        refused = await choose(client, conversation, budget_tokens=budget)
        assert refused.status_code == 422
        assert f"at least {2 * pinned}" in refused.json()["error"]["message"]
    assert (await choose(client, conversation, budget_tokens=2 * pinned)).status_code == 200


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ({"policy": "best"}, "events[1].content.policy"),
        ({"budget_tokens": 0}, "events[1].content.budget_tokens"),
        ({"parameters": {"windw": 1}}, "events[1].content.parameters"),
        ({"colour": "red"}, "events[1].content"),
        ("fifo", "events[1].content"),
        (None, "events[1].content"),
    ],
)
async def test_a_working_set_event_is_checked_like_a_choice(
    client: httpx.AsyncClient, content: object, param: str
) -> None:
    conversation = await new_conversation(client)
    event = {"type": "working_set"} | ({} if content is None else {"content": content})
    events = [{"role": "user", "content": "hello"}, event]
    answer = await client.post(f"/v1/conversations/{conversation}/events", json={"events": events})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text
    assert await log(client, conversation) == []


async def test_a_working_set_event_takes_effect(client: httpx.AsyncClient) -> None:
    event = {"type": "working_set", "content": {"policy": "lru", "budget_tokens": 123}}
    conversation = await talk(client, [event])
    found = await read(client, conversation)
    assert (found["policy"], found["budget_tokens"]) == ("lru", 123)


async def test_min_seq_is_honoured_or_refused(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    head = (await append(client, conversation, "one", "two")).json()["head"]
    assert (await read(client, conversation, min_seq=head))["head"] == head
    url = f"/v1/conversations/{conversation}/working-set"
    ahead = await client.get(url, params={"min_seq": head + 1})
    assert (ahead.status_code, ahead.json()["error"]["param"], ahead.json()["error"]["head"]) == (409, "min_seq", head)


@pytest.mark.parametrize(
    "query", ["near=-1", "near=101", "near=x", "min_seq=-1", "min_seq=x", "near=1&near=2", "far=1"]
)
async def test_a_wrong_parameter_is_refused(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/v1/conversations/{await new_conversation(client)}/working-set?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, query.split("=")[0])


async def test_nobodys_conversation_has_no_working_set(client: httpx.AsyncClient) -> None:
    url = f"/v1/conversations/{NOBODY}"
    answers = [
        await client.get(f"{url}/working-set"),
        await client.put(f"{url}/working-set", json={"policy": "lru"}),
        await client.post(f"{url}/pins", json={"seq": 1}),
        await client.delete(f"{url}/pins/1"),
        await client.post(f"{url}/context", json={}),
        await client.post(f"{url}/context", json={"used": [1]}),
        await client.post(f"{url}/context", json={"as_of": 1}),
    ]
    assert [answer.status_code for answer in answers] == [404] * 7


async def test_choices_and_appends_at_once_are_all_kept(client: httpx.AsyncClient) -> None:
    """A choice is checked at a head; when others append, it is checked again."""
    conversation = await new_conversation(client)
    answers = await asyncio.gather(
        *[append(client, conversation, f"message {number}") for number in range(10)],
        *[choose(client, conversation, budget_tokens=1000 + number) for number in range(3)],
    )
    assert {answer.status_code for answer in answers} <= {200, 201}
    events = await log(client, conversation)
    assert [event["type"] for event in events].count("working_set") == 3
    last = [event for event in events if event["type"] == "working_set"][-1]
    assert (await read(client, conversation))["budget_tokens"] == last["content"]["budget_tokens"]


async def test_policies_are_listed(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/policies")).json()["data"]
    assert [policy["name"] for policy in listed] == sorted(policies())
    assert [policy["name"] for policy in listed if policy["default"]] == [Choice().policy]
    importance = next(policy for policy in listed if policy["name"] == "importance")
    half_life = next(one for one in importance["parameters"] if one["name"] == "half_life")
    assert (half_life["type"], half_life["default"], half_life["above"], half_life["maximum"]) == (
        "number",
        2000,
        0,
        1e9,
    )
    assert (await client.get("/v1/policies", headers={"authorization": "Bearer nobody"})).status_code == 401
