"""Retries of the SDK through a network that loses answers: nothing is stored twice, nothing is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from openai import AsyncOpenAI

from tests.api.test_access import make_key


async def message(reader: asyncio.StreamReader) -> bytes:
    """Read one whole request or response that states its length; empty at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:-2])
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


@asynccontextmanager
async def losing(url: str, every: int) -> AsyncIterator[tuple[str, Callable[[], int]]]:
    """Pass requests on to a server, and lose every so-many-th answer to a POST after the server has given it."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    answers = lost = 0

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answers, lost
        up_reader, up_writer = await asyncio.open_connection(host, port)
        try:
            while request := await message(reader):
                up_writer.write(request)
                answer = await message(up_reader)
                if request.startswith(b"POST"):
                    answers += 1
                    if answers % every == 0:
                        lost += 1
                        return
                writer.write(answer)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            up_writer.close()
            writer.close()

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", lambda: lost


async def texts(client: AsyncOpenAI, conversation: str) -> list[str]:
    items: Any = client.conversations.items.list(conversation, order="asc", limit=100)
    return [item.content[0].text async for item in items]


async def test_ten_clients_lose_every_fifth_answer(client: httpx.AsyncClient, server_url: str, admin_key: str) -> None:
    """Each item is stored once, in its client's order, also where many clients send the same text."""
    async with (
        losing(server_url, 5) as (url, lost),
        AsyncOpenAI(base_url=f"{server_url}/v1", api_key=admin_key) as direct,
    ):
        shared = (await direct.conversations.create()).id

        async def talk(number: int, key: str) -> None:
            async with AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=8) as sdk:
                for turn in range(8):
                    own: Any = [{"role": "user", "content": f"{number}.{turn}"}]
                    await sdk.conversations.items.create(shared, items=own)
                    same: Any = [{"role": "user", "content": "ok"}]
                    await sdk.conversations.items.create(shared, items=same)

        keys = [admin_key] * 5 + [
            (await make_key(client, name=f"client {n}", scopes=["read", "append"]))["key"] for n in range(5)
        ]
        await asyncio.gather(*(talk(number, key) for number, key in enumerate(keys)))
        assert lost() > 20
        stored = await texts(direct, shared)
    counts = Counter(stored)
    assert counts.pop("ok") == 80
    assert set(counts.values()) == {1}
    for number in range(10):
        assert [text for text in stored if text.startswith(f"{number}.")] == [f"{number}.{turn}" for turn in range(8)]


async def test_a_retry_is_recognised_by_another_server(
    servers: Callable[[], Awaitable[httpx.AsyncClient]], admin_key: str
) -> None:
    one, other = await servers(), await servers()
    conversation = (await one.post("/v1/conversations", json={})).json()["id"]
    path, body = f"/v1/conversations/{conversation}/items", {"items": [{"role": "user", "content": "hello"}]}
    key = await make_key(one, name="another", scopes=["read", "append"])

    async def send(client: httpx.AsyncClient, attempt: int | None, **headers: str) -> str:
        if attempt is not None:
            headers["x-stainless-retry-count"] = str(attempt)
        answer = await client.post(path, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["last_id"].rpartition("_")[2])

    assert await send(one, 0) == "1"
    assert await send(other, 1) == "1"
    assert await send(one, 2) == "1"
    assert await send(one, 2) == "2", "each commit absorbs one chain of retries"
    assert await send(other, 1) == "3", "those that are stored have answered retries as high already"
    assert await send(one, 0) == "4", "a first attempt is always a new request"
    assert await send(one, None) == "5", "who does not say is no retry"
    assert await send(other, 1, authorization=f"Bearer {key['key']}") == "6", "another key is another client"
    with_key = {"idempotency-key": "k"}
    assert await send(one, 0, **with_key) == "7"
    assert await send(other, 1, **with_key) == "7", "an Idempotency-Key decides alone"


async def test_equal_retries_at_once_are_one(servers: Callable[[], Awaitable[httpx.AsyncClient]]) -> None:
    one, other = await servers(), await servers()
    for named in ({}, {"id": "mine"}):
        conversation = (await one.post("/v1/conversations", json={})).json()["id"]
        path = f"/v1/conversations/{conversation}/items"
        body = {"items": [{"role": "user", "content": "hello", **named}, {"role": "user", "content": "again"}]}
        first = await one.post(path, json=body, headers={"x-stainless-retry-count": "0"})
        answers = await asyncio.gather(
            *(
                client.post(path, json=body, headers={"x-stainless-retry-count": str(attempt)})
                for client in (one, other)
                for attempt in (1,)
            )
        )
        absorbed = [answer.json() == first.json() for answer in answers]
        assert sum(absorbed) == 1, "of two chains of retries, one commit absorbs one"
        head = (await one.get(f"/v1/conversations/{conversation}")).json()["head"]
        assert head == (3 if named else 4)
