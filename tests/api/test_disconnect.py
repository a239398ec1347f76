"""Clients that go away in the middle: all of a request is stored, or none of it, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import random
import socket

import httpx
import pytest

from tests.api.test_concurrency import everything
from tests.api.test_events import append, new_conversation

EACH = 20  # events in one append


def request(conversation: str, key: str, number: int) -> tuple[bytes, bytes]:
    """Return the head and the body of an append, as bytes on the wire."""
    events = [{"role": "user", "content": f"{number}:{part} " + "x" * 500} for part in range(EACH)]
    body = json.dumps({"events": events}).encode()
    head = (
        f"POST /v1/conversations/{conversation}/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\nidempotency-key: {number}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body


async def send_and_leave(url: str, data: bytes, *, reset: bool, wait: float) -> None:
    """Send bytes and close the connection, politely or by a reset."""
    host, port = url.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, (host, int(port)))
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await loop.sock_sendall(connection, data)
        if wait:
            await asyncio.sleep(wait)


def parts(events: list[dict[str, str]]) -> dict[int, int]:
    """Return how many events there are of each request."""
    found: dict[int, int] = {}
    for event in events:
        number = int(event["content"].split(":")[0])
        found[number] = found.get(number, 0) + 1
    return found


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_leaves_stores_all_or_nothing(
    client: httpx.AsyncClient, server_url: str, admin_key: str, reset: bool
) -> None:
    conversation = await new_conversation(client)
    random_ = random.Random(1)
    whole, half = [], []
    leaving = []
    for number in range(60):
        head, body = request(conversation, admin_key, number)
        if number % 3:
            whole.append(number)
            data = head + body
        else:
            half.append(number)
            data = head + body[: random_.randrange(len(body))]
        leaving.append(send_and_leave(server_url, data, reset=reset, wait=random_.choice((0, 0, 0.001, 0.01))))
    for start in range(0, len(leaving), 6):  # the living among them
        answers = await asyncio.gather(*leaving[start : start + 6], append(client, conversation, f"{1000 + start}:0"))
        assert answers[-1] is not None
        assert answers[-1].status_code == 201
    # The whole ones may still be on their way; each is sent again, and must then be there once.
    for number in whole[::2]:
        _, body = request(conversation, admin_key, number)
        url = f"/v1/conversations/{conversation}/events"
        again = await client.post(url, content=body, headers={"idempotency-key": str(number)})
        assert again.status_code == 201, again.text
    stored = parts(await everything(client, conversation))
    assert {stored.get(number, 0) for number in half} == {0}, "half a request was stored"
    assert {stored[number] for number in whole[::2]} == {EACH}
    assert {stored.get(number, 0) for number in whole[1::2]} <= {0, EACH}
    assert all(stored[1000 + start] == 1 for start in range(0, 60, 6))


async def test_a_creation_that_is_left_is_whole(client: httpx.AsyncClient, server_url: str, admin_key: str) -> None:
    """A conversation with first events exists with all of them or not at all, at whatever moment one looks."""
    body = json.dumps({"items": [{"role": "user", "content": str(part)} for part in range(EACH)]}).encode()
    head = (
        f"POST /v1/conversations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {admin_key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    heads: set[int] = set()
    looking = True

    async def look() -> None:
        while looking:
            page = (await client.get("/v1/conversations?limit=100")).json()["data"]
            heads.update(one["head"] for one in page)

    watch = asyncio.create_task(look())
    for number in range(20):
        await send_and_leave(server_url, head.encode() + body, reset=number % 2 == 0, wait=0.001 * (number % 4))
    await asyncio.sleep(0.2)
    looking = False
    await watch
    assert heads <= {EACH}


async def test_readers_that_leave_cost_nothing(client: httpx.AsyncClient, server_url: str, admin_key: str) -> None:
    """More of them than there are connections to the database; afterwards everybody is served."""
    conversation = await new_conversation(client)
    await append(client, conversation, *["x" * 10_000] * 100)
    path = f"/v1/conversations/{conversation}/events?limit=1000"
    head = f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {admin_key}\r\n\r\n".encode()
    await asyncio.gather(
        *(send_and_leave(server_url, head, reset=number % 2 == 0, wait=0.002 * (number % 5)) for number in range(60))
    )
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*(client.get(path) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {200}
