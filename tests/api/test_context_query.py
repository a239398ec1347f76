"""Contexts for a question: what left the working set comes back, within the budget, in order, with its reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec
import psycopg
import pytest

from server.context import touches
from server.database.address import EmbeddedAddress
from server.settings import Settings
from server.working_set.eviction import policies
from tests.api.test_access import make_key, make_tenant
from tests.api.test_constraints import chatter, decide
from tests.api.test_context import again, ask, context, written
from tests.api.test_events import append, new_conversation
from tests.api.test_pins import pin
from tests.api.test_working_set import choose, log, read
from tests.conftest import serving

PASSPORT = "The passport lies in the blue drawer of the wardrobe."
QUESTION = "Where does the passport lie?"


async def long_ago(client: httpx.AsyncClient, *texts: str, budget: int = 200, **more: Any) -> str:
    """Make a conversation in which some texts have left the working set."""
    conversation = await new_conversation(client, **more)
    await choose(client, conversation, policy="fifo", budget_tokens=budget)
    await append(client, conversation, *texts)
    await append(client, conversation, *chatter(60))
    return conversation


def contents(found: dict[str, Any]) -> list[str]:
    return [str(one.get("content")) for one in found["messages"]]


def check(found: dict[str, Any]) -> None:
    messages = found["messages"]
    assert found["tokens"] == sum(one["tokens"] for one in messages) <= found["budget_tokens"]
    own = [one["seq"] for one in messages if "conversation_id" not in one and one["type"] != "tool_result"]
    assert own == sorted(set(own))
    assert all(one["reason"] for one in messages)


async def test_what_has_left_comes_back_for_its_question(client: httpx.AsyncClient) -> None:
    conversation = await long_ago(client, PASSPORT)
    assert PASSPORT not in contents(await context(client, conversation))
    found = await context(client, conversation, query=QUESTION)
    check(found)
    [message] = [one for one in found["messages"] if one["content"] == PASSPORT]
    assert message["reason"].startswith("faulted in: bm25 1st")
    assert found["messages"][-1]["reason"] == "the newest user message"
    assert found["type"] in ("default", "fact")
    assert found["stamps"]["share"]
    assert found["stamps"]["search"]["text_builder"]


async def test_what_was_faulted_in_is_touched_behind_the_answer(
    client: httpx.AsyncClient, address: EmbeddedAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = await long_ago(client, PASSPORT)
    held = asyncio.Event()
    record = touches.record

    async def late(*arguments: Any) -> Any:
        await held.wait()
        return await record(*arguments)

    monkeypatch.setattr(touches, "record", late)
    before = await context(client, conversation, query=QUESTION)
    assert PASSPORT in contents(before), "the answer does not wait for the touch"
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM touch").fetchone() == (0,)
        held.set()
        async with asyncio.timeout(10):
            while connection.execute("SELECT count(*) FROM touch WHERE 2 = ANY (seqs)").fetchone() == (0,):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert (await context(client, conversation))["head"] == before["head"], "reading does not grow the log"
    assert 2 in [one["seq"] for one in (await read(client, conversation))["residents"]]


@pytest.mark.parametrize("policy", sorted(policies()))
async def test_within_the_budget_under_every_policy(client: httpx.AsyncClient, policy: str) -> None:
    conversation = await long_ago(client, PASSPORT, "Never call me before nine.", budget=400)
    await choose(client, conversation, policy=policy)
    for budget in (400, 200, 100, 61, 30, 7, 1):
        found = await context(client, conversation, query=QUESTION, budget_tokens=budget)
        check(found)
        if budget >= 100:
            assert PASSPORT in contents(found)


async def test_what_is_short_is_shown_whole(client: httpx.AsyncClient) -> None:
    """A search that finds little leaves its room to the residents."""
    conversation = await new_conversation(client)
    await append(client, conversation, *chatter(20))
    whole = await context(client, conversation)
    assert contents(await context(client, conversation, query="zzz qqq xxx")) == contents(whole)


async def test_constraints_come_when_they_govern_the_question(client: httpx.AsyncClient) -> None:
    texts = [f"Never mention harbour master {name * 4} or lighthouse {name * 5}." for name in "abcdefghijkl"]
    conversation = await long_ago(client, "I'm vegetarian.", *texts)
    assert "I'm vegetarian." not in contents(await context(client, conversation))
    found = await context(client, conversation, query="Suggest a restaurant for tonight.")
    check(found)
    reasons = {one["content"]: one["reason"] for one in found["messages"]}
    assert reasons["I'm vegetarian."].startswith("constraint: ")
    found = await context(client, conversation, query="When does the train leave?")
    reasons = {one["content"]: one["reason"] for one in found["messages"]}
    assert not reasons.get("I'm vegetarian.", "").startswith("constraint: "), "it does not bear on trains"
    await append(client, conversation, "Could you suggest a restaurant for tonight?")
    assert "I'm vegetarian." in contents(await context(client, conversation)), "the newest message asks"
    await decide(client, conversation, seq=2, state="dismissed")
    found = await context(client, conversation)
    assert not any(one["seq"] == 2 and one["reason"].startswith("constraint") for one in found["messages"])


async def test_a_constraint_in_a_long_message_comes_alone(client: httpx.AsyncClient) -> None:
    paste = "The harbour was loud, and the gulls were louder. " * 40
    conversation = await long_ago(client, f"{paste}\nPlease always answer in French.\n{paste}")
    found = await context(client, conversation)
    message = found["messages"][0]
    assert message["content"] == "[…] Please always answer in French. […]"
    assert message["cut"]["characters"] == len("Please always answer in French.")
    assert message["tokens"] < 30
    check(found)


async def test_a_tool_call_comes_with_its_results(client: httpx.AsyncClient) -> None:
    calls = [
        {"type": "tool_call", "call_id": "c1", "name": "look_up", "content": {"city": "Lisbon"}},
        {"type": "tool_result", "call_id": "c1", "content": "The ferry to Cacilhas leaves at half past seven."},
    ]
    conversation = await new_conversation(client)
    answer = await client.post(f"/v1/conversations/{conversation}/events", json={"events": calls})
    assert answer.status_code == 201, answer.text
    await choose(client, conversation, policy="fifo", budget_tokens=200)
    await append(client, conversation, *chatter(60))
    found = await context(client, conversation, query="When does the ferry to Cacilhas leave?")
    check(found)
    kinds = [(one["type"], one["seq"]) for one in found["messages"]][:2]
    assert kinds == [("tool_call", 1), ("tool_result", 2)]


async def test_the_users_other_conversations_come_first_with_their_name(client: httpx.AsyncClient) -> None:
    other = await long_ago(client, PASSPORT, user="ada")
    mine = await new_conversation(client, user="ada")
    stranger = await long_ago(client, "The passport lies in the red box.", user="bob")
    await append(client, mine, "Good morning.")
    found = await context(client, mine, query=QUESTION)
    assert PASSPORT not in contents(found)
    answer = await ask(client, mine, query=QUESTION, scope="user")
    found = answer.json()
    check(found)
    assert "red box" not in answer.text
    [message] = [one for one in found["messages"] if one["content"] == PASSPORT]
    assert (message["conversation_id"], message["seq"]) == (other, 2)
    assert message["occurred_at"]
    assert [one.get("conversation_id") for one in found["messages"]].index(None) > 0
    assert found["messages"][-1]["content"] == "Good morning."
    assert (await again(client, found["snapshot_id"])).content == answer.content
    alone = await new_conversation(client)
    await append(client, alone, "Good morning.")
    assert contents(await context(client, alone, query=QUESTION, scope="user")) == ["Good morning."]
    assert stranger


async def test_a_fork_is_one_conversation_with_what_it_shares(client: httpx.AsyncClient) -> None:
    one = await long_ago(client, PASSPORT, user="ada")
    fork = (await client.post(f"/v1/conversations/{one}/fork", json={"at_seq": 40})).json()["id"]
    await append(client, fork, "And now?")
    for scope in ("conversation", "user"):
        found = await context(client, fork, query=QUESTION, scope=scope)
        check(found)
        [message] = [one for one in found["messages"] if one["content"] == PASSPORT]
        assert "conversation_id" not in message


async def test_a_snapshot_gives_back_what_was_faulted_in(client: httpx.AsyncClient, address: EmbeddedAddress) -> None:
    other = await long_ago(client, PASSPORT, "The other passport is lost.", user="ada")
    mine = await long_ago(client, "My passport is green.", user="ada")
    answers = [
        await ask(client, mine, query=QUESTION, explain=True),
        await ask(client, mine, query=QUESTION, scope="user"),
        await ask(client, mine, query=QUESTION, scope="user", budget_tokens=60),
    ]
    pending = [(await again(client, one.json()["snapshot_id"])).content for one in answers]
    for _, _, record in await written(address, len(answers)):
        for word in ("passport", "lie", "drawer", "harbour"):
            assert word not in record
    assert pending == [one.content for one in answers]
    assert [(await again(client, one.json()["snapshot_id"])).content for one in answers] == pending
    snapshot = answers[1].json()["snapshot_id"]
    [gone] = [one["id"] for one in await log(client, other) if one["content"] == PASSPORT]
    assert (await client.delete(f"/v1/conversations/{other}/events/{gone}")).status_code in (200, 204)
    back = await again(client, snapshot)
    assert b"blue drawer" not in back.content
    erased = [one for one in back.json()["messages"] if one.get("erased")]
    assert [(one["conversation_id"], one["seq"]) for one in erased] == [(other, 2)]
    await client.delete(f"/v1/conversations/{other}")
    back = await again(client, snapshot)
    assert back.status_code == 200
    assert b"The other passport" not in back.content
    assert "My passport is green." in back.text


async def test_what_is_erased_or_deleted_does_not_come_back(client: httpx.AsyncClient) -> None:
    for path in ("events", "items"):
        conversation = await long_ago(client, PASSPORT, PASSPORT.replace("blue", "green"))
        assert PASSPORT in contents(await context(client, conversation, query=QUESTION))
        listed = (await client.get(f"/v1/conversations/{conversation}/{path}?order=asc&limit=3")).json()["data"]
        name = next(one["id"] for one in listed if "blue" in str(one.get("content")))
        answer = await client.delete(f"/v1/conversations/{conversation}/{path}/{name}")
        assert answer.status_code in (200, 204), answer.text
        found = contents(await context(client, conversation, query=QUESTION))
        assert PASSPORT not in found
        assert PASSPORT.replace("blue", "green") in found


async def test_of_the_past_only_the_past_is_found(client: httpx.AsyncClient) -> None:
    conversation = await long_ago(client, PASSPORT)
    head = (await context(client, conversation))["head"]
    await append(client, conversation, "The passport now lies in the red box.", *chatter(30))
    found = await context(client, conversation, query=QUESTION, as_of=head)
    assert PASSPORT in contents(found)
    assert not any("red box" in one for one in contents(found))
    assert any("red box" in one for one in contents(await context(client, conversation, query=QUESTION)))


async def test_pins_stay_and_a_budget_that_they_do_not_fit_in_is_refused(client: httpx.AsyncClient) -> None:
    conversation = await long_ago(client, PASSPORT)
    taken = (await pin(client, conversation, seq=10)).json()["tokens"]
    found = await context(client, conversation, query=QUESTION, budget_tokens=2 * taken)
    check(found)
    assert 10 in [one["seq"] for one in found["messages"]]
    answer = await ask(client, conversation, query=QUESTION, budget_tokens=2 * taken - 1)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "budget_tokens")


async def test_it_sees_what_was_just_appended(client: httpx.AsyncClient) -> None:
    conversation = await long_ago(client, "Good morning.")
    head = (await append(client, conversation, PASSPORT)).json()["head"]
    head = (await append(client, conversation, *chatter(40))).json()["head"]
    found = await context(client, conversation, query=QUESTION, min_seq=head)
    assert (found["head"], PASSPORT in contents(found)) == (head, True)
    answer = await ask(client, conversation, query=QUESTION, min_seq=head + 1)
    assert answer.status_code == 409


async def test_a_type_can_be_forced_and_explained(client: httpx.AsyncClient) -> None:
    conversation = await long_ago(client, PASSPORT, "I'm vegetarian.")
    found = await context(client, conversation, query=QUESTION, type="instruction", explain=True)
    assert found["type"] == "instruction"
    assert found["explain"]["search"]["forced"]
    assert "I'm vegetarian." in contents(found)
    found = await context(client, conversation, query="What did you just say?", explain=True)
    assert found["type"] == "recency"
    assert found["explain"]["search"]["cues"]
    check(found)


async def test_two_servers_give_the_same_context(
    client: httpx.AsyncClient, servers: Callable[[], Awaitable[httpx.AsyncClient]]
) -> None:
    second = await servers()
    conversation = await long_ago(client, PASSPORT, "I'm vegetarian.")
    head = (await context(client, conversation))["head"]
    search = {"query": QUESTION, "conversation_id": conversation, "min_seq": head}
    assert (await client.post("/v1/search", json=search)).status_code == 200  # by then, all of it has vectors
    bodies = []
    for one in (client, second):
        body = (await ask(one, conversation, query=QUESTION, as_of=head - 5)).json()
        del body["snapshot_id"]
        bodies.append(body)
    assert bodies[0] == bodies[1]


async def test_nobody_elses_events_are_found(client: httpx.AsyncClient) -> None:
    conversation = await long_ago(client, PASSPORT, user="ada")
    tenant = await make_tenant(client, "other")
    key = await make_key(client, tenant=tenant["id"], scopes=["admin"], name="other")
    async with httpx.AsyncClient(base_url=client.base_url, headers={"authorization": f"Bearer {key['key']}"}) as other:
        assert (await ask(other, conversation, query=QUESTION)).status_code == 404
        theirs = await new_conversation(other, user="ada")
        await append(other, theirs, "Hello.")
        assert contents(await context(other, theirs, query=QUESTION, scope="user")) == ["Hello."]


@pytest.mark.parametrize("query", ["?", "😀😀", "the of and", "\x01\x02", "x" * 20_000, "Wo ist der Pass?", "日本語"])
async def test_any_question_has_an_answer(client: httpx.AsyncClient, query: str) -> None:
    conversation = await long_ago(client, PASSPORT)
    check(await context(client, conversation, query=query))
    empty = await new_conversation(client)
    assert (await context(client, empty, query=query))["messages"] == []


async def test_where_memory_has_no_room_vectors_choose(
    settings: Settings, address: EmbeddedAddress, admin_key: str
) -> None:
    small = msgspec.structs.replace(settings, search_bytes=4_000)
    headers = {"authorization": f"Bearer {admin_key}"}
    async with serving(small, address) as url, httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        other = await long_ago(client, PASSPORT, user="ada")
        mine = await long_ago(client, "My other passport is green.", user="ada")
        head = 0
        for at in (other, mine):
            head = (await context(client, at))["head"]
            found = await context(client, at, query=QUESTION, min_seq=head)
            check(found)
            assert any("passport" in one for one in contents(found))
        found = await context(client, mine, query=QUESTION, scope="user")
        check(found)
        [message] = [one for one in found["messages"] if one["content"] == PASSPORT]
        assert (message["conversation_id"], message["seq"]) == (other, 2)
        past = await context(client, mine, query=QUESTION, as_of=head - 20)
        assert max(one["seq"] for one in past["messages"]) <= head - 20
