"""``OpenAIConversationsSession`` of the ``openai-agents`` package, as it comes from PyPI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents.memory import OpenAIConversationsSession, Session
from openai import AsyncOpenAI


@pytest.fixture
async def client(server_url: str, admin_key: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server_url}/v1", api_key=admin_key) as opened:
        yield opened


def texts(items: list[Any]) -> list[str]:
    return [item["content"][0]["text"] for item in items]


async def test_a_session_keeps_its_protocol(client: AsyncOpenAI) -> None:
    session = OpenAIConversationsSession(openai_client=client)
    assert await session.get_items() == []
    assert isinstance(session, Session)
    written: list[Any] = [{"role": "user" if n % 2 else "assistant", "content": f"turn {n}"} for n in range(33)]
    await session.add_items(written)
    expected = [f"turn {n}" for n in range(33)]
    assert texts(await session.get_items()) == expected
    for limit in (1, 5, 25, 33, 50):
        assert texts(await session.get_items(limit)) == expected[-limit:], limit
    assert await session.get_items(0) == []
    for n in (32, 31, 30):
        popped: Any = await session.pop_item()
        assert popped["content"][0]["text"] == f"turn {n}"
    assert texts(await session.get_items()) == expected[:30]
    corrected: Any = [{"role": "assistant", "content": "another turn 30"}]
    await session.add_items(corrected)
    assert texts(await session.get_items(2)) == ["turn 29", "another turn 30"]


async def test_a_session_is_read_elsewhere_by_its_id(client: AsyncOpenAI) -> None:
    session = OpenAIConversationsSession(openai_client=client)
    items: Any = [
        {"role": "user", "content": "Add 2 and 3."},
        {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}", "id": "__fake_id__"},
        {"type": "function_call_output", "call_id": "c", "output": "5"},
        {"id": "__fake_id__", "type": "message", "role": "assistant", "status": "completed", "content": []},
    ]
    await session.add_items(items)
    other = OpenAIConversationsSession(conversation_id=session.session_id, openai_client=client)
    read: list[Any] = await other.get_items()
    assert [item["type"] for item in read] == ["message", "function_call", "function_call_output", "message"]
    assert len({item["id"] for item in read}) == 4
    await other.add_items(read)  # a copy: the ids name the items that they were given to
    assert len(await session.get_items()) == 8


async def test_a_cleared_session_begins_anew(client: AsyncOpenAI) -> None:
    session = OpenAIConversationsSession(openai_client=client)
    items: Any = [{"role": "user", "content": "hi"}]
    await session.add_items(items)
    first = session.session_id
    await session.clear_session()
    assert await session.get_items() == []
    assert session.session_id != first
    assert await session.pop_item() is None
