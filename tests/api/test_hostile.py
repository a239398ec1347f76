"""Requests that no well-meaning client sends: each gets an answer in the 400s, and never another's data."""

from __future__ import annotations

import asyncio
import json
import re
from urllib.parse import quote, urlsplit

import httpx
import pytest

LIMIT = 16 * 1024 * 1024
BODY = b'{"events":[{"role":"user","content":"hello"}]}'


class Wire:
    """A bare connection to the server, for what HTTP clients refuse to send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self.reader = reader
        self.writer = writer
        self.key = key

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def begin(self, line: str, *headers: bytes, authorized: bool = True) -> None:
        """Send the head of a request."""
        key = (b"Authorization: Bearer " + self.key.encode(),) if authorized else ()
        await self.send(b"\r\n".join([line.encode("latin-1") + b" HTTP/1.1", b"Host: x", *key, *headers, b"", b""]))

    async def status(self) -> int:
        """Return the status of the next answer, its head read."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        return int(head.split(b" ", 2)[1])


@pytest.fixture
async def conversation(client: httpx.AsyncClient) -> str:
    return str((await client.post("/v1/conversations", json={})).json()["id"])


@pytest.fixture
async def events(conversation: str) -> str:
    return f"/v1/conversations/{conversation}/events"


async def connect(client: httpx.AsyncClient) -> Wire:
    parts = urlsplit(str(client.base_url))
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    return Wire(reader, writer, client.headers["authorization"].removeprefix("Bearer "))


async def test_a_declared_body_over_the_limit_is_refused_before_it_is_sent(
    client: httpx.AsyncClient, events: str
) -> None:
    wire = await connect(client)
    await wire.begin(f"POST {events}", b"Content-Length: %d" % (LIMIT + 1))
    assert await wire.status() == 413
    wire.writer.close()


async def test_a_chunked_body_over_the_limit_is_refused_before_it_ends(client: httpx.AsyncClient, events: str) -> None:
    wire = await connect(client)
    await wire.begin(f"POST {events}", b"Transfer-Encoding: chunked")
    piece = b"%x\r\n" % 2**20 + b" " * 2**20 + b"\r\n"
    for _ in range(LIMIT // 2**20 + 1):  # and no chunk that ends it
        await wire.send(piece)
    assert await wire.status() == 413
    wire.writer.close()


@pytest.mark.parametrize("head", [b"Content-Length: %d" % (LIMIT + 1), b"Transfer-Encoding: chunked"])
async def test_a_stranger_is_refused_before_the_body_is_read(
    client: httpx.AsyncClient, events: str, head: bytes
) -> None:
    wire = await connect(client)
    await wire.begin(f"POST {events}", head, authorized=False)
    assert await wire.status() == 401
    wire.writer.close()


async def test_expect_100_continue(client: httpx.AsyncClient, events: str) -> None:
    wire = await connect(client)
    await wire.begin(f"POST {events}", b"Expect: 100-continue", b"Content-Length: %d" % len(BODY))
    assert await wire.status() == 100
    await wire.send(BODY)
    assert await wire.status() == 201
    wire.writer.close()
    wire = await connect(client)
    await wire.begin(f"POST {events}", b"Expect: 100-continue", b"Content-Length: %d" % (LIMIT + 1))
    assert await wire.status() == 413
    wire.writer.close()


async def test_a_content_length_that_is_none(client: httpx.AsyncClient, events: str) -> None:
    for length in (b"-1", b"abc", b"9" * 30, b"1, 1", b"0x10", b"+5"):
        wire = await connect(client)
        await wire.begin(f"POST {events}", b"Content-Length: " + length)
        assert await wire.status() == 400
        wire.writer.close()


async def test_two_lengths_are_no_way_to_smuggle_a_request(client: httpx.AsyncClient, events: str) -> None:
    wire = await connect(client)
    await wire.begin(f"POST {events}", b"Content-Length: 5", b"Transfer-Encoding: chunked")
    assert await wire.status() == 400
    wire.writer.close()


async def test_a_client_that_leaves_in_the_middle_stores_nothing_and_is_no_server_error(
    client: httpx.AsyncClient, events: str
) -> None:
    before = await append_counts(client)
    wire = await connect(client)
    await wire.begin(f"POST {events}", b"Content-Length: %d" % (len(BODY) + 1))
    await wire.send(BODY)
    wire.writer.close()
    await wire.writer.wait_closed()
    async with asyncio.timeout(10):
        while (after := await append_counts(client)) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert {status for status in after if after[status] != before.get(status)} == {"4xx"}
    assert (await client.get(events)).json()["head"] == 0


async def append_counts(client: httpx.AsyncClient) -> dict[str, str]:
    """Return how many appends were answered with which kind of status, in this process."""
    metrics = (await client.get("/metrics")).text
    return dict(re.findall(r'seconds_count{method="POST",route="[^"]*/events",status="(...)"} (\S+)', metrics))


async def test_an_authorization_of_odd_bytes(client: httpx.AsyncClient, events: str) -> None:
    for value in (b"\xff\xfe", b"Bearer", b"Bearer \xff", b"Bearer " + b"a" * 10_000, b"Basic eDp5"):
        answer = await client.get(events, headers=[(b"authorization", value)])
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_an_idempotency_key_of_odd_bytes_works(client: httpx.AsyncClient, events: str) -> None:
    for key in (b"\xff\xfe", b"\xc3\xa9", b"a\tb", b"';--", b"k" * 256):
        answers = [await client.post(events, content=BODY, headers=[(b"idempotency-key", key)]) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].content == answers[1].content
        other = await client.post(events, content=BODY + b" ", headers=[(b"idempotency-key", key)])
        assert other.status_code == 422


async def test_an_idempotency_key_that_is_none(client: httpx.AsyncClient, events: str) -> None:
    for key in (b"", b"k" * 257):
        answer = await client.post(events, content=BODY, headers=[(b"idempotency-key", key)])
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "Idempotency-Key")


ODD_NAMES = ["%00", "%ff", "%ed%a0%80", "%", "%zz", "a" * 8000, "..%2f..", "%2f", "%F0%9F%98%80", "a;b", "*"]


async def test_odd_names_in_a_path_are_not_found(client: httpx.AsyncClient, events: str) -> None:
    for name in ODD_NAMES:
        for place in ("/v1/conversations", events, "/v1/keys", "/v1/tenants", "/docs"):
            wire = await connect(client)
            await wire.begin(f"GET {place}/{name}")
            assert await wire.status() == 404, place
            wire.writer.close()
        for place in ("/v1/conversations", events, "/v1/users", "/v1/keys", "/v1/tenants"):
            wire = await connect(client)
            await wire.begin(f"DELETE {place}/{name}")
            assert await wire.status() == 404, place
            wire.writer.close()


async def test_a_slash_in_a_users_name_erases_that_user_alone(client: httpx.AsyncClient) -> None:
    names = ["ada", "ada/", "ada//b", "ada/b", "/", "..", "a%2Fb", "é %", "?#"]
    for name in names:
        await client.post("/v1/conversations", json={"user": name})
    left = set(names)
    for name in names[1:]:
        # httpx would take the dots away; a client that means them encodes them.
        answer = await client.delete(f"/v1/users/{quote(name, safe='').replace('.', '%2E')}")
        assert (answer.status_code, answer.json()["id"]) == (200, name)
        left.discard(name)
        assert {user["id"] for user in (await client.get("/v1/users")).json()["data"]} == left
    assert (await client.delete("/v1/users/ada/b")).status_code == 404


async def test_a_slash_in_an_events_id_means_that_event_alone(client: httpx.AsyncClient, events: str) -> None:
    names = ["e", "e/", "e/f", "/", "e%2F", "é"]
    body = {"events": [{"id": name, "role": "user", "content": name} for name in names]}
    assert (await client.post(events, json=body)).status_code == 201
    for name in names:
        answer = await client.get(f"{events}/{quote(name, safe='')}")
        assert (answer.status_code, answer.json()["content"]) == (200, name)
    erased = (await client.delete(events + "/e%2F")).json()
    assert (erased["seq"], "content" in erased) == (2, False)
    assert (await client.get(f"{events}/e")).json()["content"] == "e"


ODD_QUERIES = ["limit", "limit=", "limit=1&limit=2", "limit=x", "limit=%00", "order=%00", "after=%00", "=", "a=1"]
ODD_QUERIES += ["limit=" + "9" * 30, "&".join(f"a{number}=1" for number in range(3000))]


async def test_odd_queries_are_refused(client: httpx.AsyncClient, events: str) -> None:
    for query in ODD_QUERIES:
        for path in ("/v1/conversations", "/v1/users", "/v1/erasures", "/v1/keys", "/v1/tenants", events):
            answer = await client.get(f"{path}?{query}")
            assert answer.status_code == 422, (path, answer.text)
            assert answer.json()["error"]["param"] is not None


async def test_other_methods_are_refused(client: httpx.AsyncClient, events: str) -> None:
    for method in ("HEAD", "PUT", "PATCH", "TRACE", "PROPFIND"):
        for path in ("/v1/conversations", events, "/healthz", "/docs"):
            answer = await client.request(method, path)
            assert answer.status_code == 405, path
            assert "GET" in answer.headers["allow"]


MEDIA_TYPES = [b"", b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data", b"application/msgpack"]
MEDIA_TYPES += [
    b"multipart/form-data; boundary=x",
    b"\xff\xff",
    b"application/json;",
    b"application/json; charset=utf-16",
]


async def test_the_body_is_json_whatever_it_is_called(client: httpx.AsyncClient, events: str) -> None:
    for media_type in MEDIA_TYPES:
        answer = await client.post(events, content=BODY, headers=[(b"content-type", media_type)])
        assert answer.status_code == 201, answer.text


async def test_a_missing_field_is_named(client: httpx.AsyncClient, events: str) -> None:
    for body, param in (({}, "events"), ({"events": [], "x": 1}, "x")):
        answer = await client.post(events, content=json.dumps(body))
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
