"""Following a conversation by server-sent events: nothing missed, nothing twice, in order, without growing memory."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import httpx
import pytest

from server.api import stream as module
from server.database.address import EmbeddedAddress
from server.log.follow import Follower
from server.log.read import Page, read_range
from server.settings import Settings
from tests.api.test_access import bearer, make_key
from tests.api.test_events import append, new_conversation
from tests.conftest import serving

Start = Callable[[], Awaitable[httpx.AsyncClient]]


class Said(NamedTuple):
    """One server-sent event, or a comment: then ``event`` is empty and ``data`` holds it."""

    id: str
    event: str
    data: str


async def said(lines: AsyncIterator[str]) -> AsyncIterator[Said]:
    fields: dict[str, str] = {}
    async for line in lines:
        if line.startswith(":"):
            yield Said("", "", line[1:].strip())
        elif line:
            name, _, value = line.partition(": ")
            assert name in ("id", "event", "data")
            assert name not in fields
            fields[name] = value
        elif fields:
            yield Said(fields.pop("id", ""), fields.pop("event"), fields.pop("data"))


@asynccontextmanager
async def following(
    client: httpx.AsyncClient, conversation: str, after: int | None = None, *, query: str = "", **headers: str
) -> AsyncIterator[AsyncIterator[Said]]:
    """A stream that has answered."""
    if after is not None:
        headers["last-event-id"] = str(after)
    url = f"/v1/conversations/{conversation}/events/stream{query}"
    async with client.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        heard = said(answer.aiter_lines())
        assert (await anext(heard)).data == "connected"
        yield heard


async def take(heard: AsyncIterator[Said], number: int) -> list[Said]:
    """Return the next events, without comments."""
    events: list[Said] = []
    async with asyncio.timeout(20):
        while len(events) < number:
            event = await anext(heard)
            if event.event:
                events.append(event)
    return events


async def test_what_was_comes_first_and_then_what_comes(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, "one", "two", "three")
    stored = (await client.get(f"/v1/conversations/{conversation}/events")).json()["data"]
    async with following(client, conversation, 1) as heard:
        events = await take(heard, 2)
        assert [event.id for event in events] == ["2", "3"]
        assert [json.loads(event.data) for event in events] == stored[1:]
        assert {event.event for event in events} == {"message"}
        await append(client, conversation, "four")
        assert json.loads((await take(heard, 1))[0].data)["content"] == "four"
    async with following(client, conversation) as heard:  # by default, from now on
        await append(client, conversation, "five")
        assert [event.id for event in await take(heard, 1)] == ["5"]
    async with following(client, conversation, 4, query="?after_seq=0") as heard:
        assert [event.id for event in await take(heard, 1)] == ["5"], "Last-Event-ID wins over the query"
    for wrong in ("-1", "x", "1.5", "9" * 40, ""):
        answer = await client.get(f"/v1/conversations/{conversation}/events/stream", headers={"last-event-id": wrong})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "Last-Event-ID")


async def test_readers_miss_nothing_while_sixteen_writers_append(servers: Start) -> None:
    """Three readers on two servers, one of which goes away and comes back all the time."""
    pair = [await servers(), await servers()]
    conversation = await new_conversation(pair[0])
    writers, each = 16, 12
    total = writers * each

    async def write(writer: int) -> None:
        for number in range(each):
            answer = await append(pair[(writer + number) % 2], conversation, f"{writer}:{number}")
            assert answer.status_code == 201, answer.text

    async def read(server: int, stay: int) -> list[Said]:
        """Follow to the end, but leave after ``stay`` events and come back."""
        events: list[Said] = []
        while len(events) < total:
            client = pair[(server + len(events)) % 2]
            async with following(client, conversation, len(events)) as heard:
                events += await take(heard, min(stay, total - len(events)))
        return events

    readers = [asyncio.create_task(read(server, stay)) for server, stay in ((0, total), (1, total), (0, 7))]
    await asyncio.gather(*map(write, range(writers)))
    for events in await asyncio.gather(*readers):
        assert [event.id for event in events] == [str(seq) for seq in range(1, total + 1)]
        texts = [json.loads(event.data)["content"] for event in events]
        assert len(set(texts)) == total
        for writer in range(writers):
            assert [text for text in texts if text.startswith(f"{writer}:")] == [
                f"{writer}:{number}" for number in range(each)
            ]


async def test_erasure_and_deletion_are_seen(servers: Start) -> None:
    """Also on the other server."""
    pair = [await servers(), await servers()]
    conversation = await new_conversation(pair[0])
    first = (await append(pair[0], conversation, "one")).json()["events"][0]["id"]
    async with following(pair[1], conversation, 0) as heard:
        assert json.loads((await take(heard, 1))[0].data)["content"] == "one"
        await pair[0].delete(f"/v1/conversations/{conversation}/events/{first}")
        (erasure,) = await take(heard, 1)
        assert (erasure.id, erasure.event) == ("2", "erasure")
        assert json.loads(erasure.data)["content"] == {"seq": 1}
        async with following(pair[1], conversation, 0) as late:
            tombstone = json.loads((await take(late, 1))[0].data)
            assert tombstone["erased_at"]
            assert "content" not in tombstone
        await pair[0].delete(f"/v1/conversations/{conversation}")
        (end,) = await take(heard, 1)
        assert end == Said("", "deleted", "{}")
        with pytest.raises(StopAsyncIteration):
            await anext(heard)
    answer = await pair[1].get(f"/v1/conversations/{conversation}/events/stream")
    assert answer.status_code == 404


async def test_a_silent_stream_is_kept_alive(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 0.5)
    conversation = await new_conversation(client)
    async with following(client, conversation) as heard, asyncio.timeout(5):
        assert await anext(heard) == await anext(heard) == Said("", "", "")


async def test_a_revoked_key_reads_no_further(client: httpx.AsyncClient) -> None:
    """A stream that was opened with a key ends within a second of the key's end."""
    conversation = await new_conversation(client)
    key = await make_key(client, scopes=["read"], rate_limit=1)
    async with following(client, conversation, 0, **bearer(key["key"])) as heard:
        await append(client, conversation, "before")
        assert (await take(heard, 1))[0].id == "1"
        assert (await client.delete(f"/v1/keys/{key['id']}")).status_code == 200
        with pytest.raises(StopAsyncIteration):
            async with asyncio.timeout(1):
                await anext(heard)


async def test_a_reader_that_never_reads_holds_one_page(
    client: httpx.AsyncClient, server_url: str, admin_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sockets' buffers fill, and then nothing more is read from the database for it, whatever is appended."""
    conversation = await new_conversation(client)
    pages: list[int] = []

    async def counted(*given: Any, **more: Any) -> Page:
        page = await read_range(*given, **more)
        pages.append(len(page.events))
        return page

    monkeypatch.setattr(module, "read_range", counted)
    monkeypatch.setattr(module, "PAGE", 10)
    text = "x" * 200_000
    for _ in range(3):
        assert (await append(client, conversation, *[text] * 50)).status_code == 201
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        host, port = server_url.removeprefix("http://").split(":")
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, (host, int(port)))
        path = f"/v1/conversations/{conversation}/events/stream"
        request = f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {admin_key}\r\nlast-event-id: 0\r\n\r\n"
        await loop.sock_sendall(deaf, request.encode())
        await settled(pages)
        before = len(pages)
        assert 1 <= before <= 8, "more was read than sockets hold"  # 2 MB each; loopback buffers hold a few
        for _ in range(5):
            await append(client, conversation, text)
        await settled(pages)
        assert len(pages) == before
    async with following(client, conversation, 0) as heard:  # the others are served meanwhile
        assert len(await take(heard, 155)) == 155


async def settled(pages: list[int]) -> None:
    """Wait until no page has been read for a while."""
    seen = -1
    while seen != len(pages):
        seen = len(pages)
        await asyncio.sleep(0.4)


async def test_a_reader_that_left_is_forgotten(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    subscribed: set[int] = set()
    subscribe, unsubscribe = Follower.subscribe, Follower.unsubscribe

    def subscribing(self: Follower, at: Any) -> asyncio.Event:
        event = subscribe(self, at)
        subscribed.add(id(event))
        return event

    def unsubscribing(self: Follower, at: Any, event: asyncio.Event) -> None:
        unsubscribe(self, at, event)
        subscribed.discard(id(event))

    monkeypatch.setattr(Follower, "subscribe", subscribing)
    monkeypatch.setattr(Follower, "unsubscribe", unsubscribing)
    conversation = await new_conversation(client)
    for _ in range(5):
        async with following(client, conversation):
            assert subscribed
    async with asyncio.timeout(5):
        while subscribed:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)


async def test_a_stop_ends_the_stream(settings: Settings, address: EmbeddedAddress, admin_key: str) -> None:
    """A server that stops waits for no reader: the stream ends in order, so that the client comes back elsewhere."""
    headers = {"authorization": f"Bearer {admin_key}"}
    server = serving(settings, address)
    url = await server.__aenter__()
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        conversation = await new_conversation(client)
        async with following(client, conversation) as heard:
            stopping = asyncio.create_task(server.__aexit__(None, None, None))
            with suppress(StopAsyncIteration):
                async with asyncio.timeout(3):
                    event = await anext(heard)
                    pytest.fail(f"the stream went on: {event}")
    async with asyncio.timeout(5):
        await stopping
