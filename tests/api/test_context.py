"""Contexts over HTTP: what a model should see, within the budget; and what it saw, byte for byte, as often as asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import psycopg
import pytest

from server.context import snapshots
from server.database.address import EmbeddedAddress
from server.database.ids import uuid7
from server.working_set.choice import MAX_BUDGET, Choice
from server.working_set.tokens import TOKENIZER
from tests.api.test_access import make_key, make_tenant
from tests.api.test_events import append, new_conversation
from tests.api.test_pins import pin
from tests.api.test_working_set import choose, log, read, talk

LONG = "The harbour was loud, and the gulls were louder. " * 100


async def ask(client: httpx.AsyncClient, conversation: str, **body: Any) -> httpx.Response:
    return await client.post(f"/v1/conversations/{conversation}/context", json=body)


async def context(client: httpx.AsyncClient, conversation: str, **body: Any) -> dict[str, Any]:
    answer = await ask(client, conversation, **body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def again(client: httpx.AsyncClient, snapshot: str) -> httpx.Response:
    return await client.get(f"/v1/contexts/{snapshot}")


async def written(address: EmbeddedAddress, count: int) -> list[tuple[Any, ...]]:
    """Wait until so many snapshots are in the database, and return their records."""
    async with await psycopg.AsyncConnection.connect(address.conninfo("admin"), autocommit=True) as connection:
        async with asyncio.timeout(10):
            while True:
                rows = await (await connection.execute("SELECT id, head, record FROM snapshot ORDER BY id")).fetchall()
                if len(rows) >= count:
                    return rows
                await asyncio.sleep(0.02)


async def test_a_context_is_the_working_set_in_order(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "My flat is in Lisbon.", "What is the weather like at home?")
    found = await context(client, conversation)
    assert [(one["seq"], one["role"], one["content"]) for one in found["messages"]] == [
        (1, "user", "My flat is in Lisbon."),
        (2, "user", "What is the weather like at home?"),
    ]
    assert [one["reason"] for one in found["messages"]] == ["kept by importance", "the newest user message"]
    assert found["tokens"] == sum(one["tokens"] for one in found["messages"]) <= found["budget_tokens"]
    assert (found["head"], found["budget_tokens"]) == (2, Choice().budget_tokens)
    assert found["stamps"]["policy"] == "importance"
    assert found["stamps"]["tokenizer"] == TOKENIZER
    assert found["stamps"]["parameters"]["half_life"] == 2000.0
    assert "explain" not in found
    assert "erased" not in found


async def test_an_empty_conversation_has_an_empty_context(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    answer = await ask(client, conversation)
    assert (answer.json()["messages"], answer.json()["tokens"], answer.json()["head"]) == ([], 0, 0)
    assert (await again(client, answer.json()["snapshot_id"])).content == answer.content


async def test_each_answer_has_a_snapshot_that_gives_it_back(
    client: httpx.AsyncClient, address: EmbeddedAddress
) -> None:
    items = [
        {"type": "working_set", "content": {"policy": "tool_first", "budget_tokens": 600, "parameters": {"keep": 0}}},
        {"role": "user", "content": [{"type": "text", "text": "Zwölf Boxkämpfer 😀"}], "name": "Ada", "id": "mine"},
        {"type": "tool_call", "call_id": "c", "name": "look", "content": {"for": "gulls", "limit": 12}},
        {"type": "tool_result", "call_id": "c", "content": LONG[:1000]},
        {"role": "assistant", "content": LONG},
        {"role": "user", "content": "And now?", "occurred_at": "2026-01-31T12:00:00+01:00"},
    ]
    conversation = await talk(client, items)
    answers = [
        await ask(client, conversation),
        await ask(client, conversation),
        await ask(client, conversation, budget_tokens=100),
        await ask(client, conversation, explain=True),
        await ask(client, conversation, as_of=4),
        await ask(client, conversation, as_of="2199-01-01T00:00:00Z"),
    ]
    shown = answers[0].json()["messages"]
    assert any(one.get("placeholder") for one in shown)
    assert any(one.get("cut") for one in shown)
    assert len({answer.json()["snapshot_id"] for answer in answers}) == len(answers)
    pending = [(await again(client, answer.json()["snapshot_id"])).content for answer in answers]
    await written(address, len(answers))
    # The log moves on; what was seen does not.
    await append(client, conversation, "later")
    stored = [(await again(client, answer.json()["snapshot_id"])).content for answer in answers]
    assert pending == stored == [answer.content for answer in answers]


async def test_another_server_gives_it_back_at_once(
    client: httpx.AsyncClient, servers: Callable[[], Awaitable[httpx.AsyncClient]]
) -> None:
    other = await servers()
    conversation = await new_conversation(client)
    await append(client, conversation, "hello")
    answer = await ask(client, conversation)
    assert (await again(other, answer.json()["snapshot_id"])).content == answer.content


async def test_snapshots_are_written_before_a_server_stops(
    client: httpx.AsyncClient, address: EmbeddedAddress, settings: Any, admin_key: str
) -> None:
    from tests.conftest import serving

    conversation = await new_conversation(client)
    await append(client, conversation, "hello")
    headers = {"authorization": f"Bearer {admin_key}"}
    async with serving(settings, address) as url, httpx.AsyncClient(base_url=url, headers=headers) as brief:
        answers = await asyncio.gather(*[ask(brief, conversation) for _ in range(20)])
    with psycopg.connect(address.conninfo("admin")) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM snapshot").fetchall()
    assert count == 20
    for answer in answers:
        assert (await again(client, answer.json()["snapshot_id"])).content == answer.content


async def test_a_record_holds_no_text(client: httpx.AsyncClient, address: EmbeddedAddress) -> None:
    items = [
        {"role": "user", "content": "needle one " * 50, "name": "needle two", "id": "needle three"},
        {"type": "tool_call", "call_id": "needle four", "name": "needle five", "content": {"needle six": 1}},
    ]
    conversation = await talk(client, items)
    for body in ({}, {"explain": True}, {"budget_tokens": 30}, {"as_of": 1}, {"used": [1]}):
        await context(client, conversation, **body)
    for _, _, record in await written(address, 5):
        assert "needle" not in record


async def test_what_was_erased_since_has_only_its_place(client: httpx.AsyncClient, address: EmbeddedAddress) -> None:
    items = [{"role": "user", "content": f"secret {number}", "id": f"mine {number}"} for number in range(3)]
    conversation = await talk(client, items)
    answer = await ask(client, conversation)
    await client.delete(f"/v1/conversations/{conversation}/events/mine 1")
    for _ in range(2):
        back = await again(client, answer.json()["snapshot_id"])
        found = back.json()
        assert found["erased"] == [2]
        assert b"secret 1" not in back.content
        assert b"mine 1" not in back.content
        assert found["messages"][1].keys() == {
            "seq",
            "id",
            "type",
            "role",
            "occurred_at",
            "tokens",
            "reason",
            "erased",
        }
        assert [found["messages"][place] for place in (0, 2)] == [answer.json()["messages"][place] for place in (0, 2)]
        assert found["tokens"] == answer.json()["tokens"]
        await written(address, 1)


async def test_what_has_expired_since_has_only_its_place(client: httpx.AsyncClient, address: EmbeddedAddress) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "old secret")
    with psycopg.connect(address.conninfo("admin")) as connection:
        connection.execute("UPDATE event SET recorded_at = recorded_at - interval '2 days'")
    await append(client, conversation, "new")
    answer = await ask(client, conversation)
    await written(address, 1)
    await client.put(f"/v1/conversations/{conversation}/retention", json={"retention_days": 1})
    await client.post("/v1/retention/run")
    found = (await again(client, answer.json()["snapshot_id"])).json()
    assert (found["erased"], found["messages"][0].keys()) == ([1], {"seq", "tokens", "reason", "erased"})
    assert found["messages"][1] == answer.json()["messages"][1]


async def test_nobody_gets_another_tenants_context(client: httpx.AsyncClient, address: EmbeddedAddress) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "hello")
    mine = (await context(client, conversation))["snapshot_id"]
    tenant = await make_tenant(client, "other")
    key = await make_key(client, tenant=tenant["id"], scopes=["admin"], name="other")
    headers = {"authorization": f"Bearer {key['key']}"}
    async with httpx.AsyncClient(base_url=client.base_url, headers=headers) as other:
        assert (await again(other, mine)).status_code == 404
        await written(address, 1)
        assert (await again(other, mine)).status_code == 404
        assert (await ask(other, conversation)).status_code == 404
    assert (await again(client, mine)).status_code == 200


async def test_a_deleted_conversations_contexts_are_gone(client: httpx.AsyncClient, address: EmbeddedAddress) -> None:
    """Those that are written, and those that wait to be."""
    conversation = await new_conversation(client)
    await append(client, conversation, "hello")
    old = (await context(client, conversation))["snapshot_id"]
    await written(address, 1)
    fresh = (await context(client, conversation))["snapshot_id"]
    await client.delete(f"/v1/conversations/{conversation}")
    for _ in range(2):
        for snapshot in (old, fresh):
            assert (await again(client, snapshot)).status_code == 404
        await asyncio.sleep(2 * snapshots.DELAY)  # what waited to be written is written by then, or never
    with psycopg.connect(address.conninfo("admin")) as connection:
        assert connection.execute("SELECT count(*) FROM snapshot").fetchone() == (0,)


async def test_a_forks_context_is_given_back_from_what_it_shares(
    client: httpx.AsyncClient, address: EmbeddedAddress
) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "one", "two", "three")
    fork = (await client.post(f"/v1/conversations/{conversation}/fork", json={"at_seq": 2})).json()["id"]
    await append(client, fork, "another three")
    answer = await ask(client, fork)
    assert [one["content"] for one in answer.json()["messages"]] == ["one", "two", "another three"]
    parents = await ask(client, conversation)
    await written(address, 2)
    assert (await again(client, answer.json()["snapshot_id"])).content == answer.content
    await client.delete(f"/v1/conversations/{conversation}")
    assert (await again(client, parents.json()["snapshot_id"])).status_code == 404
    assert (await again(client, answer.json()["snapshot_id"])).content == answer.content


@pytest.mark.parametrize("name", ["x", "ctx_", "ctx_" + "0" * 47, "ctx_" + "G" * 48, "conv_" + "0" * 48, "%00", "%FF"])
async def test_what_is_no_id_is_no_context(client: httpx.AsyncClient, name: str) -> None:
    answer = await again(client, name)
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "no such context")


async def test_a_young_unknown_id_is_waited_for_once(client: httpx.AsyncClient) -> None:
    young = snapshots.SnapshotId(1, uuid7())
    answer, old = await asyncio.gather(again(client, str(young)), again(client, "ctx_" + "0" * 48))
    assert (answer.status_code, old.status_code) == (404, 404)
    assert answer.elapsed.total_seconds() > 0.5 > old.elapsed.total_seconds()


async def test_what_was_used_comes_back(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await choose(client, conversation, policy="lru", budget_tokens=60)
    await append(client, conversation, *[f"this is message {number}" for number in range(12)])
    before = await context(client, conversation)
    assert before["messages"][0]["seq"] > 2
    after = await context(client, conversation, used=[2])
    assert (after["messages"][0]["seq"], after["messages"][0]["reason"]) == (2, "faulted in")
    assert after["head"] == before["head"], "reading does not grow the log"
    assert (await context(client, conversation))["messages"] == after["messages"]
    assert (await read(client, conversation))["residents"][0]["seq"] == 2


async def test_what_is_not_there_cannot_be_used(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "one", "two")
    for used in ([3], [0], [-1], [1, 3], [2**60], ["1"], list(range(1, 1002)), [1.5], 1):
        answer = await ask(client, conversation, used=used)
        assert answer.status_code == 422, used
        assert answer.json()["error"]["param"].startswith("used"), used
    assert (await ask(client, conversation, used=[])).status_code == 200
    assert (await ask(client, conversation, used=[1, 1, 2])).status_code == 200


async def test_as_of_is_the_context_as_it_was(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await choose(client, conversation, policy="fifo", budget_tokens=60)
    then = {}
    for number in range(10):
        await append(client, conversation, f"this is message {number}")
        then[number + 2] = await context(client, conversation)
    events = await log(client, conversation)
    for head, seen in then.items():
        for moment in (head, events[head - 1]["recorded_at"]):
            found = await context(client, conversation, as_of=moment)
            assert found["messages"] == seen["messages"]
            assert (found["head"], found["tokens"]) == (head, seen["tokens"])
            assert found["as_of"] == moment if isinstance(moment, int) else found["as_of"]
    assert (await context(client, conversation, as_of=0))["messages"] == []
    assert (await context(client, conversation, as_of="2001-01-01T00:00:00Z"))["messages"] == []
    assert (await context(client, conversation, as_of=999))["messages"] == then[11]["messages"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"as_of": "yesterday"}, "as_of"),
        ({"as_of": -1}, "as_of"),
        ({"as_of": 10**30}, "as_of"),
        ({"as_of": 1.5}, "as_of"),
        ({"as_of": "2026-01-01T00:00:00"}, "as_of"),
        ({"as_of": 1, "used": [1]}, "as_of"),
        ({"as_of": 1, "min_seq": 1}, "as_of"),
        ({"budget_tokens": 0}, "budget_tokens"),
        ({"budget_tokens": -1}, "budget_tokens"),
        ({"budget_tokens": MAX_BUDGET + 1}, "budget_tokens"),
        ({"budget_tokens": 10**40}, "budget_tokens"),
        ({"budget_tokens": "100"}, "budget_tokens"),
        ({"min_seq": -1}, "min_seq"),
        ({"min_seq": "1"}, "min_seq"),
        ({"explain": "yes"}, "explain"),
        ({"query": ""}, "query"),
        ({"query": "  "}, "query"),
        ({"query": 1}, "query"),
        ({"query": "weather", "type": "weather"}, "type"),
        ({"query": "weather", "scope": "tenant"}, "scope"),
        ({"query": "weather", "scope": "user", "as_of": 1}, "scope"),
        ({"query": "weather", "budget_tokens": 0}, "budget_tokens"),
        ({"type": "recency"}, "type"),
        ({"scope": "user"}, "scope"),
    ],
)
async def test_a_wrong_question_is_refused(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "hello")
    answer = await ask(client, conversation, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text


async def test_min_seq_beyond_the_head_is_a_conflict(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "hello")
    assert (await context(client, conversation, min_seq=1))["head"] == 1
    for more in ({}, {"used": [1]}):
        answer = await ask(client, conversation, min_seq=2, **more)
        assert (answer.status_code, answer.json()["error"]["head"]) == (409, 1)


async def test_a_smaller_budget_is_kept(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, *[f"this is message {number}" for number in range(20)])
    everything = await context(client, conversation)
    assert len(everything["messages"]) == 20
    for budget in (everything["tokens"], 100, 50, 20, 10, 5, 1):
        found = await context(client, conversation, budget_tokens=budget)
        assert found["tokens"] <= budget == found["budget_tokens"]
    small = await context(client, conversation, budget_tokens=50, explain=True)
    assert small["messages"][-1]["seq"] == 20
    assert any("left at head 20" in one["why"] for one in small["explain"]["near"])
    assert (await read(client, conversation))["budget_tokens"] == Choice().budget_tokens


async def test_a_budget_smaller_than_the_pins_says_what_is_needed(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "Never book me a flight.", "hello there", "And now?")
    taken = (await pin(client, conversation, seq=1)).json()["tokens"]
    for budget in (0, 1, 2 * taken - 1):
        answer = await ask(client, conversation, budget_tokens=budget)
        assert answer.status_code == 422
        assert f"at least {2 * taken}" in answer.json()["error"]["message"]
    found = await context(client, conversation, budget_tokens=2 * taken)
    assert (found["messages"][0]["seq"], found["messages"][0]["reason"]) == (1, "pinned")


async def test_a_single_event_larger_than_the_budget_is_cut(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, LONG)
    found = await context(client, conversation, budget_tokens=200)
    [message] = found["messages"]
    assert message["cut"]["of"] == len(LONG)
    assert message["content"].endswith(f" [… {message['cut']['characters']} of {len(LONG)} characters shown]")
    assert 80 < found["tokens"] <= 100, "no event takes more than half of the budget"


async def test_only_tool_calls(client: httpx.AsyncClient) -> None:
    calls = [
        {"type": "tool_call", "call_id": f"call_{number}", "name": "look", "content": {"n": number}}
        for number in range(3)
    ]
    conversation = await talk(client, calls)
    found = await context(client, conversation, explain=True)
    assert (found["messages"], found["tokens"]) == ([], 0)
    assert [one["seq"] for one in found["explain"]["left_out"]] == [1, 2, 3]
    assert "result" in found["explain"]["left_out"][0]["why"]
    result = {"type": "tool_result", "call_id": "call_1", "content": "done"}
    await client.post(f"/v1/conversations/{conversation}/events", json={"events": [result]})
    found = await context(client, conversation)
    assert [(one["seq"], one["role"]) for one in found["messages"]] == [(2, "assistant"), (4, "tool")]


async def test_everything_erased(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "one", "two")
    await context(client, conversation)
    for event in await log(client, conversation):
        await client.delete(f"/v1/conversations/{conversation}/events/{event['id']}")
    found = await context(client, conversation, explain=True)
    assert (found["messages"], found["tokens"], found["head"]) == ([], 0, 4)


async def test_a_context_shows_what_was_just_appended(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    for number in range(30):
        head = (await append(client, conversation, f"message {number}")).json()["head"]
        found = await context(client, conversation, **({"min_seq": head} if number % 2 else {}))
        assert (found["head"], found["messages"][-1]["content"]) == (head, f"message {number}")


async def test_snapshots_of_several_tenants_are_written(client: httpx.AsyncClient, address: EmbeddedAddress) -> None:
    """One transaction names one tenant, so that a mixed queue takes several."""
    tenant = await make_tenant(client, "other")
    key = await make_key(client, tenant=tenant["id"], scopes=["admin"], name="other")
    headers = {"authorization": f"Bearer {key['key']}"}
    async with httpx.AsyncClient(base_url=client.base_url, headers=headers) as other:
        asked = []
        for one in (client, other, client, other):
            conversation = await new_conversation(one)
            await append(one, conversation, "hello")
            asked.append((one, await ask(one, conversation)))
        await written(address, 4)
        for one, answer in asked:
            assert (await again(one, answer.json()["snapshot_id"])).content == answer.content
