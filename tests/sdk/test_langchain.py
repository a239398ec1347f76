"""LangChain's chat history, through the adapter among the examples."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from openai import OpenAI

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield __import__("langchain_history").TurnstoneHistory
    del sys.modules["langchain_history"]


async def test_a_chat_history_with_tool_calls(adapter: Any, server_url: str, admin_key: str) -> None:
    messages = [
        SystemMessage("Be brief."),
        HumanMessage("What is the weather in Lisbon?"),
        AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Lisbon"}, "id": "call_1"}]),
        ToolMessage("21 °C, clear", tool_call_id="call_1"),
        AIMessage("21 °C and clear."),
    ]

    def use() -> None:
        with OpenAI(base_url=f"{server_url}/v1", api_key=admin_key) as client:
            history = adapter(client, client.conversations.create().id)
            history.add_messages(messages)
            assert history.messages == messages
            history.add_user_message("Thank you.")
            assert adapter(client, history.conversation).messages[-1] == HumanMessage("Thank you.")
            history.clear()
            assert history.messages == []

    await asyncio.to_thread(use)
