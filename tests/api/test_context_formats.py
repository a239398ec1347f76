"""Contexts in the messages of model APIs, over HTTP: valid, traced, within the budget, and given back as they were."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, get_args

import httpx
import pytest

from server.client import AsyncTurnstone, Turnstone
from server.client.calls import Api
from server.context.formats.known import NEWEST, WRITERS, Format
from server.database.address import EmbeddedAddress
from tests import model_apis
from tests.api.test_context import again, ask, context, written
from tests.api.test_context_query import PASSPORT, QUESTION, long_ago
from tests.api.test_events import append, new_conversation
from tests.api.test_working_set import choose, talk

FORMATS = ["openai", "openai-responses", "anthropic"]
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the weather in Lisbon?", "name": "Ada"},
    {"type": "reasoning", "role": "assistant", "content": "Ask the tool."},
    {"type": "tool_call", "call_id": "c", "name": "weather", "content": {"city": "Lisbon"}},
    {"type": "tool_result", "call_id": "c", "content": "21 °C, clear"},
    {"role": "assistant", "content": "21 °C and clear."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "And here?"}, {"type": "image_url", "image_url": {"url": "x"}}],
    },
]


async def formatted(client: httpx.AsyncClient, conversation: str, format_: str, **body: Any) -> dict[str, Any]:
    """Ask for a context, and check what holds for every one."""
    found = await context(client, conversation, format=format_, **body)
    model_apis.check(format_, found["messages"])
    assert len(found["sources"]) == len(found["messages"])
    sources = [source for its in [*found["sources"], found.get("system_sources", [])] for source in its]
    assert all(source["reason"] for source in sources)
    assert found["tokens"] == sum(source["tokens"] for source in sources) <= found["budget_tokens"]
    assert sum(model_apis.tokens(format_, message) for message in found["messages"]) <= found["tokens"]
    assert found["stamps"]["format"] == NEWEST[format_]  # type: ignore[index]
    return found


def test_every_format_has_a_name_and_the_client_knows_it() -> None:
    assert set(NEWEST) == set(get_args(Format))
    assert set(get_args(Api)) == set(get_args(Format)) - {"events"}
    assert {name for name in NEWEST.values() if name} <= set(WRITERS)


async def test_events_are_what_they_were(client: httpx.AsyncClient) -> None:
    conversation = await talk(client, TALK)
    plain, asked = await context(client, conversation), await context(client, conversation, format="events")
    assert plain | {"snapshot_id": ""} == asked | {"snapshot_id": ""}
    assert "format" not in plain["stamps"]
    assert "sources" not in plain
    answer = await ask(client, conversation, format="gemini")
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "format")


@pytest.mark.parametrize("format_", FORMATS)
async def test_a_conversation_in_each_format(client: httpx.AsyncClient, format_: str) -> None:
    conversation = await talk(client, TALK)
    found = await formatted(client, conversation, format_)
    seqs = [source["seq"] for its in found["sources"] for source in its]
    assert [source["seq"] for source in found["left_out"]] == [3]
    if format_ == "anthropic":
        assert (found["system"], [source["seq"] for source in found["system_sources"]]) == ("Be brief.", [1])
        assert seqs == [2, 4, 5, 6, 7]
        assert [message["role"] for message in found["messages"]] == ["user", "assistant"] * 2 + ["user"]
    else:
        assert "system" not in found
        assert seqs == [1, 2, 4, 5, 6, 7]
        assert found["messages"][0]["role"] == "system"


@pytest.mark.parametrize("format_", FORMATS)
async def test_a_snapshot_gives_it_back(
    client: httpx.AsyncClient,
    servers: Callable[[], Awaitable[httpx.AsyncClient]],
    address: EmbeddedAddress,
    format_: str,
) -> None:
    conversation = await talk(client, TALK)
    answers = [
        await ask(client, conversation, format=format_),
        await ask(client, conversation, format=format_, explain=True),
        await ask(client, conversation, format=format_, as_of=5),
        await ask(client, conversation, format=format_, query="What is the weather?"),
    ]
    other = await servers()
    rows = await written(address, len(answers))
    assert all(text not in row[2] for row in rows for text in ("Lisbon", "brief", "clear"))
    await append(client, conversation, "later")
    for answer in answers:
        assert answer.status_code == 200, answer.text
        for reader in (client, other):
            assert (await again(reader, answer.json()["snapshot_id"])).content == answer.content


@pytest.mark.parametrize("format_", FORMATS)
async def test_what_is_erased_since_leaves_it_valid(client: httpx.AsyncClient, format_: str) -> None:
    conversation = await talk(client, TALK)
    answer = await formatted(client, conversation, format_)
    page = (await client.get(f"/v1/conversations/{conversation}/events")).json()["data"]
    gone = []
    for event in (page[4], page[1], page[3], page[0]):
        await client.delete(f"/v1/conversations/{conversation}/events/{event['id']}")
        gone.append(event["seq"])
        found = (await again(client, answer["snapshot_id"])).json()
        model_apis.check(format_, found["messages"])
        assert found["erased"] == sorted(gone)
        assert not {source["seq"] for its in found["sources"] for source in its} & set(gone)
        assert ("Be brief" in str(found)) == (1 not in gone)


@pytest.mark.parametrize("format_", FORMATS)
async def test_a_small_budget_holds(client: httpx.AsyncClient, format_: str) -> None:
    conversation = await new_conversation(client)
    await choose(client, conversation, policy="tool_first", budget_tokens=500, parameters={"keep": 1})
    long = "The harbour was loud, and the gulls were louder. " * 60
    for number in range(8):
        call = {"call_id": "same", "name": "look up"}
        events = [
            {"role": "user", "content": long[: 100 * number]} if number else {"role": "assistant", "content": "Hello."},
            {"type": "tool_call", **call, "content": {"query": long[: 30 * number]}},
            {"type": "tool_result", **call, "content": long[: 400 * number]},
        ]
        await client.post(f"/v1/conversations/{conversation}/events", json={"events": events})
        for budget in (None, 300, 120, 40):
            await formatted(client, conversation, format_, budget_tokens=budget)


@pytest.mark.parametrize("format_", FORMATS)
async def test_a_question_with_what_was_said_elsewhere(client: httpx.AsyncClient, format_: str) -> None:
    elsewhere = await long_ago(client, PASSPORT, user="ada")
    conversation = await talk_of(client, "ada", TALK)
    found = await formatted(client, conversation, format_, query=QUESTION, scope="user", budget_tokens=1500)
    assert PASSPORT in str(found["messages"][0]["content"])
    assert found["sources"][0][0]["conversation_id"] == elsewhere
    assert found["sources"][0][0]["reason"].startswith("faulted in")
    assert found["type"] in ("default", "fact")


async def talk_of(client: httpx.AsyncClient, user: str, events: list[dict[str, Any]]) -> str:
    conversation = await new_conversation(client, user=user)
    answer = await client.post(f"/v1/conversations/{conversation}/events", json={"events": events})
    assert answer.status_code == 201, answer.text
    return conversation


async def test_items_of_the_sdk_come_out_as_chat_messages(client: httpx.AsyncClient) -> None:
    """What came in by OpenAI's Conversations API goes to any model."""
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Look:"}, {"type": "input_image", "file_id": "f"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I look.", "annotations": []}]},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"at": "it"}'},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "a gull"}]},
        {"type": "custom_tool_call", "call_id": "d", "name": "shell", "input": "ls -l"},
        {"type": "custom_tool_call_output", "call_id": "d", "output": "none"},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "I will not."}]},
    ]
    conversation = await new_conversation(client, items=items)
    for format_ in FORMATS:
        found = await formatted(client, conversation, format_)
        assert [source["seq"] for source in found["left_out"]] == [2]
        text = str(found["messages"])
        assert all(one in text for one in ("a gull", "I look.", "I will not.", "ls -l"))


async def test_the_client_asks_for_them(client: httpx.AsyncClient, server_url: str, admin_key: str) -> None:
    conversation = await talk(client, TALK)
    async with AsyncTurnstone(server_url, admin_key) as memory:
        prompt = await memory.prompt(conversation, "anthropic", budget_tokens=500, min_seq=7, explain=True)
        model_apis.check("anthropic", prompt.messages)
        assert (prompt.system, [source.seq for source in prompt.system_sources]) == ("Be brief.", [1])
        assert [[source.seq for source in its] for its in prompt.sources] == [[2], [4], [5], [6], [7]]
        assert ([source.type for source in prompt.left_out], prompt.head) == (["reasoning"], 7)
        assert prompt.tokens <= prompt.budget_tokens == 500
        with pytest.raises(TypeError, match="prompt"):
            await memory.context(conversation, format="openai")

    def use() -> None:
        with Turnstone(server_url, admin_key) as memory:
            prompt = memory.prompt(conversation, "openai", query="What is the weather?", used=[2])
            model_apis.check("openai", prompt.messages)
            assert prompt.type
            items = memory.prompt(conversation, "openai-responses").messages
            model_apis.check("openai-responses", items)

    await asyncio.to_thread(use)
