"""Our own thin client, in both kinds, and through a network that loses answers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import httpx
import pytest

from server.client import AsyncTurnstone, Refused, Turnstone
from tests.sdk.test_retries import losing

SAID = ["I moved to Lisbon in spring.", "My dog is called Pixel.", "I prefer trains to planes."]


async def test_a_conversation_with_the_client(server_url: str, admin_key: str) -> None:
    async with AsyncTurnstone(server_url, admin_key) as memory:
        made = await memory.create_conversation(user="ada", metadata={"a": 1})
        assert (made.user, made.metadata, made.head) == ("ada", {"a": 1}, 0)
        appended = await memory.append(made.id, [{"role": "user", "content": text} for text in SAID])
        assert ([event.seq for event in appended.events], appended.head) == ([1, 2, 3], 3)
        page = await memory.events(made.id, order="desc", limit=2)
        assert ([event.content for event in page.data], page.has_more) == (SAID[:0:-1], True)
        context = await memory.context(made.id, budget_tokens=500, min_seq=3, used=[1])
        assert [message.content for message in context.messages] == SAID
        assert context.tokens <= context.budget_tokens == 500
        answers = await memory.search("What is my dog called?", user="ada", k=1)
        assert [(found.seq, found.event.content) for found in answers.data] == [(2, SAID[1])]
        with pytest.raises(Refused) as refused:
            await memory.append(made.id, [{"role": "user", "content": "x"}], expected_head=2)
        assert (refused.value.status, refused.value.code, refused.value.error["head"]) == (409, "stale_head", 3)
        with pytest.raises(Refused) as refused:
            await memory.append(made.id, [{"role": "nobody", "content": "x"}])
        assert (refused.value.status, refused.value.param) == (422, "events[0].role")


async def test_the_synchronous_client(server_url: str, admin_key: str) -> None:
    def use() -> None:
        with Turnstone(server_url, admin_key) as memory:
            made = memory.create_conversation(origin_id="old").id
            assert memory.create_conversation(origin_id="old").id == made
            memory.append(made, [{"role": "user", "content": text, "id": text[:6]} for text in SAID])
            followed = memory.stream(made, after_seq=1)
            assert [next(followed).content for _ in range(2)] == SAID[1:]
            memory.append(made, [{"type": "item", "content": {"any": [1]}}])
            assert next(followed).content == {"any": [1]}
            assert memory.events(made, after_seq=3).data[0].type == "item"
            assert [message.seq for message in memory.context(made).messages][:3] == [1, 2, 3]
            assert memory.search("What is my dog called?", conversation_id=made, k=3).data

    await asyncio.to_thread(use)


async def test_a_stream_goes_on_where_it_broke(server_url: str, admin_key: str, client: httpx.AsyncClient) -> None:
    async with AsyncTurnstone(server_url, admin_key) as memory:
        made = (await memory.create_conversation()).id
        await memory.append(made, [{"role": "user", "content": text} for text in SAID])
        seen: list[Any] = []
        async for event in memory.stream(made):
            seen.append(event.seq)
            if event.seq == 3:
                await client.delete(f"/v1/conversations/{made}")  # the stream says so, and ends
        assert seen == [1, 2, 3]


async def test_lost_answers_double_nothing(server_url: str, admin_key: str) -> None:
    async with losing(server_url, 3) as (url, lost), AsyncTurnstone(url, admin_key) as memory:
        made = (await memory.create_conversation()).id
        for number in range(12):
            await memory.append(made, [{"role": "user", "content": str(number)}])
        assert lost() >= 4
        page = await memory.events(made)
        assert [event.content for event in page.data] == [str(number) for number in range(12)]


async def test_no_server_is_an_error_of_the_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.client.calls.RETRIES", 1)
    async with AsyncTurnstone("http://127.0.0.1:1", "none") as memory:
        with pytest.raises(httpx.TransportError):
            await memory.create_conversation()


def test_the_client_brings_nothing_of_the_server_along() -> None:
    heavy = "('litestar', 'sqlalchemy', 'psycopg', 'numpy')"
    found = f"import sys, server.client; print([name for name in sys.modules if name.startswith({heavy})])"
    done = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
