"""The ``openai`` package, as it comes from PyPI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.conversations import Conversation, Message
from openai.types.responses import ResponseFunctionToolCallItem, ResponseReasoningItem

ITEMS: list[Any] = [
    {"role": "user", "content": "What is the weather in Lisbon?"},
    {
        "type": "reasoning",
        "id": "rs_68af",
        "summary": [{"type": "summary_text", "text": "Ask the tool."}],
        "encrypted_content": "gAAAA",
    },
    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Lisbon"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "21 °C, clear"},
    {
        "type": "message",
        "id": "msg_68b0",
        "role": "assistant",
        "status": "completed",
        "phase": "final_answer",
        "content": [{"type": "output_text", "text": "21 °C and clear.", "annotations": []}],
    },
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "And this?"},
            {"type": "input_image", "image_url": "https://example.org/sky.png", "detail": "low"},
        ],
    },
    {"type": "compaction", "encrypted_content": "gAAAB"},
]


@pytest.fixture
async def client(server_url: str, admin_key: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server_url}/v1", api_key=admin_key) as opened:
        yield opened


async def test_a_conversation_from_its_creation_to_its_end(client: AsyncOpenAI) -> None:
    made = await client.conversations.create(metadata={"topic": "demo"}, items=ITEMS[:1])
    assert isinstance(made, Conversation)
    assert (made.object, made.metadata, type(made.created_at)) == ("conversation", {"topic": "demo"}, int)
    assert (await client.conversations.retrieve(made.id)).id == made.id
    assert (await client.conversations.update(made.id, metadata={"topic": "other"})).metadata == {"topic": "other"}
    gone = await client.conversations.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "conversation.deleted", True)
    with pytest.raises(openai.NotFoundError) as missing:
        await client.conversations.retrieve(made.id)
    assert (missing.value.status_code, missing.value.type) == (404, "not_found_error")
    assert missing.value.request_id


async def test_items_come_back_as_they_were_sent(client: AsyncOpenAI) -> None:
    conversation = (await client.conversations.create(items=[])).id
    created = await client.conversations.items.create(conversation, items=ITEMS)
    assert (created.object, created.has_more) == ("list", False)
    assert (created.first_id, created.last_id) == (created.data[0].id, created.data[-1].id)
    listed = [item async for item in client.conversations.items.list(conversation, order="asc", limit=3)]
    assert [item.to_dict() for item in listed] == [item.to_dict() for item in created.data]
    for item, sent in zip(listed, ITEMS, strict=True):
        retrieved = await client.conversations.items.retrieve(
            str(item.id),
            conversation_id=conversation,
            include=["reasoning.encrypted_content", "message.output_text.logprobs"],
        )
        shown: dict[str, Any] = retrieved.to_dict()
        assert shown == item.to_dict()
        if isinstance(sent.get("content"), str):
            sent = sent | {"content": [{"type": "input_text", "text": sent["content"]}]}
        assert {name: shown[name] for name in sent} == sent
    question, reasoning, call = listed[:3]
    assert isinstance(question, Message)
    assert (question.role, question.status, question.content[0].type) == ("user", "completed", "input_text")
    assert isinstance(reasoning, ResponseReasoningItem)
    assert (reasoning.id, reasoning.encrypted_content) == ("rs_68af", "gAAAA")
    assert isinstance(call, ResponseFunctionToolCallItem)
    assert (call.arguments, call.id[:3]) == ('{"city": "Lisbon"}', "fc_")


async def test_a_conversation_begins_with_up_to_twenty_items(client: AsyncOpenAI) -> None:
    many: list[Any] = [{"role": "user", "content": str(number)} for number in range(21)]
    made = await client.conversations.create(items=many[:20], metadata={"a": "b"})
    assert made.metadata == {"a": "b"}
    created = await client.conversations.items.create(
        made.id, items=many[:20], include=["message.input_image.image_url", "reasoning.encrypted_content"]
    )
    assert len(created.data) == 20
    assert len((await client.conversations.items.list(made.id, limit=100)).data) == 40
    with pytest.raises(openai.BadRequestError) as refused:
        await client.conversations.create(items=many)
    assert refused.value.param == "items"
    wrong: Any = "no object"
    with pytest.raises(openai.BadRequestError) as refused:
        await client.conversations.update(made.id, metadata=wrong)
    assert refused.value.param == "metadata"


async def test_pages_in_both_directions(client: AsyncOpenAI) -> None:
    conversation = (await client.conversations.create()).id
    for start in range(0, 45, 15):
        items: list[Any] = [{"role": "user", "content": str(n)} for n in range(start, start + 15)]
        await client.conversations.items.create(conversation, items=items)
    for order in ("asc", "desc"):
        pages = client.conversations.items.list(
            conversation, order=order, limit=20, include=["file_search_call.results"]
        )
        texts = [item.content[0].text async for item in pages if isinstance(item, Message)]  # type: ignore[union-attr]
        expected = [str(n) for n in range(45)]
        assert texts == (expected if order == "asc" else expected[::-1])
    first = await client.conversations.items.list(conversation)
    assert (len(first.data), first.has_more) == (20, True)


async def test_a_deleted_item_is_gone_from_the_items_alone(client: AsyncOpenAI) -> None:
    conversation = (await client.conversations.create(items=ITEMS[:1])).id
    created = await client.conversations.items.create(conversation, items=ITEMS[2:5])
    answer = await client.conversations.items.delete(str(created.data[2].id), conversation_id=conversation)
    assert isinstance(answer, Conversation)
    left = [item.type async for item in client.conversations.items.list(conversation, order="asc")]
    assert left == ["message", "function_call", "function_call_output"]
    with pytest.raises(openai.NotFoundError):
        await client.conversations.items.retrieve(str(created.data[2].id), conversation_id=conversation)
    with pytest.raises(openai.NotFoundError):
        await client.conversations.items.delete(str(created.data[2].id), conversation_id=conversation)
    again = await client.conversations.items.create(conversation, items=ITEMS[4:5])
    assert again.data[0].id != created.data[2].id, "what is sent again after its deletion is another item"
    left = [item.type async for item in client.conversations.items.list(conversation, order="asc")]
    assert left[3:] == ["message"]


async def test_errors_are_the_ones_of_the_sdk(client: AsyncOpenAI, server_url: str) -> None:
    conversation = (await client.conversations.create()).id
    many: list[Any] = [{"role": "user", "content": "x"}] * 21
    wrong: list[tuple[list[Any], str]] = [
        (many, "items"),
        ([], "items"),
        ([{"role": "nobody", "content": "x"}], "items[0].role"),
        ([{"type": "message", "role": "user"}], "items[0].content"),
        ([{"type": "function_call", "call_id": "c", "arguments": "{}"}], "items[0].name"),
        ([{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}], "items[0].arguments"),
        ([{"type": "item_reference", "id": "msg_1"}], "items[0].type"),
        ([{"type": "x", "id": ""}], "items[0].id"),
    ]
    for items, param in wrong:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.conversations.items.create(conversation, items=items)
        assert (refused.value.type, refused.value.param) == ("invalid_request_error", param), items
    for query in ({"limit": 101}, {"limit": 0}, {"order": "up"}, {"after": "msg_none"}):
        with pytest.raises(openai.BadRequestError):
            await client.conversations.items.list(conversation, **query)
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="nobody").conversations.create()
    assert [item async for item in client.conversations.items.list(conversation)] == []


async def test_what_must_not_be_retried_is_not(client: AsyncOpenAI) -> None:
    conversation = (await client.conversations.create()).id
    item: dict[str, Any] = {"type": "note", "id": "n1", "text": "one"}
    items: Any = [item]
    await client.conversations.items.create(conversation, items=items)
    items = [item | {"text": "two"}]
    with pytest.raises(openai.ConflictError) as refused:
        await client.conversations.items.create(conversation, items=items)
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"


async def test_the_synchronous_client(server_url: str, admin_key: str) -> None:
    def use() -> None:
        with OpenAI(base_url=f"{server_url}/v1", api_key=admin_key) as client:
            made = client.conversations.create(items=ITEMS[:2], metadata={"a": "b"})
            client.conversations.items.create(made.id, items=ITEMS[2:])
            items = list(client.conversations.items.list(made.id, order="asc", limit=2))
            assert [item.type for item in items[:4]] == [
                "message",
                "reasoning",
                "function_call",
                "function_call_output",
            ]
            assert client.conversations.items.retrieve(str(items[0].id), conversation_id=made.id) == items[0]
            assert client.conversations.items.delete(str(items[-1].id), conversation_id=made.id).id == made.id
            assert len(list(client.conversations.items.list(made.id, limit=100))) == len(ITEMS) - 1
            assert client.conversations.delete(made.id).deleted

    await asyncio.to_thread(use)
