"""Appending to the log and reading it over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest


async def new_conversation(client: httpx.AsyncClient, **body: Any) -> str:
    answer = await client.post("/v1/conversations", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def append(client: httpx.AsyncClient, conversation: str, *texts: str, **more: Any) -> httpx.Response:
    events = [{"role": "user", "content": text} for text in texts]
    return await client.post(f"/v1/conversations/{conversation}/events", json={"events": events, **more})


async def test_seqs_are_gapless_and_answers_name_the_head(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    first = (await append(client, conversation, "one", "two")).json()
    second = (await append(client, conversation, "three")).json()
    assert [event["seq"] for event in first["events"]] == [1, 2]
    assert second["head"] == 3
    page = (await client.get(f"/v1/conversations/{conversation}/events")).json()
    assert [(event["seq"], event["content"]) for event in page["data"]] == [(1, "one"), (2, "two"), (3, "three")]
    assert page["head"] == 3
    assert page["has_more"] is False


@pytest.mark.parametrize(
    "content",
    [
        '"plain"',
        '"\\u0000 nul, \\ud83d\\ude00 escaped and 😀 raw"',
        '[{"type":"text","text":"hi","z":1,"a":{"unknown":[true,null,-0.0,1E400]}}]',
        '[{"big":9223372036854775807,"bigger":123456789012345678901234567890,"float":0.1000000000000000055}]',
        '""',
        "[]",
    ],
)
async def test_content_comes_back_verbatim(client: httpx.AsyncClient, content: str) -> None:
    conversation = await new_conversation(client)
    body = f'{{"events":[{{"role":"user","content":{content}}}]}}'
    answer = await client.post(f"/v1/conversations/{conversation}/events", content=body.encode())
    assert answer.status_code == 201, answer.text
    page = await client.get(f"/v1/conversations/{conversation}/events")
    assert f'"content":{content}'.encode() in page.content


async def test_ranges_both_ways(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    await append(client, conversation, *[str(number) for number in range(1, 11)])

    async def seqs(query: str) -> tuple[list[int], bool]:
        page = (await client.get(f"/v1/conversations/{conversation}/events?{query}")).json()
        return [event["seq"] for event in page["data"]], page["has_more"]

    assert await seqs("limit=3") == ([1, 2, 3], True)
    assert await seqs("limit=3&order=desc") == ([10, 9, 8], True)
    assert await seqs("after_seq=7") == ([8, 9, 10], False)
    assert await seqs("after_seq=7&before_seq=9") == ([8], False)
    assert await seqs("before_seq=3&order=desc&limit=1") == ([2], True)
    assert await seqs("as_of=4&order=desc&limit=2") == ([4, 3], True)
    assert await seqs("after_seq=10") == ([], False)
    assert await seqs("as_of=0") == ([], False)


async def test_as_of_a_time(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    for text in ("one", "two", "three"):
        await append(client, conversation, text)
    url = f"/v1/conversations/{conversation}/events"
    events = (await client.get(url)).json()["data"]
    for index, event in enumerate(events):
        page = (await client.get(url, params={"as_of": event["recorded_at"]})).json()
        assert len(page["data"]) == index + 1
    assert (await client.get(url, params={"as_of": "2001-01-01T00:00:00Z"})).json()["data"] == []


async def test_expected_head(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    assert (await append(client, conversation, "one", expected_head=0)).status_code == 201
    stale = await append(client, conversation, "two", expected_head=0)
    assert stale.status_code == 409
    assert stale.json()["error"]["code"] == "stale_head"
    assert stale.json()["error"]["head"] == 1


async def test_an_idempotency_key_gives_the_first_answer_again(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    url = f"/v1/conversations/{conversation}/events"
    body = b'{"events":[{"role":"user","content":"once"}]}'
    first = await client.post(url, content=body, headers={"idempotency-key": "k"})
    await append(client, conversation, "between")
    again = await client.post(url, content=body, headers={"idempotency-key": "k"})
    assert (again.status_code, again.content) == (first.status_code, first.content)
    other = await client.post(url, content=body.replace(b"once", b"twice"), headers={"idempotency-key": "k"})
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")
    assert (await client.get(url)).json()["head"] == 2


async def test_the_callers_id_gives_the_original(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    url = f"/v1/conversations/{conversation}/events"
    event = {"role": "user", "content": [{"a": 1, "b": 2}], "id": "mine"}
    first = (await client.post(url, json={"events": [event]})).json()
    reordered = {"content": [{"b": 2, "a": 1}], "id": "mine", "role": "user"}
    again = (await client.post(url, json={"events": [reordered, {"role": "user", "content": "new"}]})).json()
    assert again["events"][0] == first["events"][0] == {"id": "mine", "seq": 1}
    assert again["head"] == 2
    other = await client.post(url, json={"events": [event | {"content": "other"}]})
    assert (other.status_code, other.json()["error"]["param"]) == (409, "events[0].id")
    assert (await client.get(f"{url}/mine")).json()["seq"] == 1


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"\xff", 400, None),
        (b'{"events":[{"role":"user","content":NaN}]}', 400, None),
        (b'{"events":[{"role":"user","content":"\\ud800"}]}', 422, None),
        (b'{"events":[{"role":"user","content":"\\udc00\\ud800"}]}', 422, None),
        (b'{"events":[{"role":"user","content":' + b"[" * 5000 + b"]" * 5000 + b"}]}", 422, None),
        (b'{"events":[]}', 422, "events"),
        (b'{"events":[{"role":"user"}]}', 422, "events[0].content"),
        (b'{"events":[{"content":"x"}]}', 422, "events[0].role"),
        (b'{"events":[{"role":"user","content":"x","extra":1}]}', 422, "events[0]"),
        (b'{"events":[{"role":"user","content":7}]}', 422, "events[0].content"),
        (b'{"events":[{"role":"user","content":["x"]}]}', 422, "events[0].content"),
        (b'{"events":[{"role":"user","content":"x"},{"role":"nobody","content":"x"}]}', 422, "events[1].role"),
        (b'{"events":[{"type":"tool_call","content":{}}]}', 422, "events[0].call_id"),
        (b'{"events":[{"type":"erasure","content":{}}]}', 422, "events[0].type"),
        (
            b'{"events":[{"role":"user","content":"x","occurred_at":"2026-01-01T00:00:00"}]}',
            422,
            "events[0].occurred_at",
        ),
        (b'{"events":[{"role":"user","content":"x","name":"\\u0000"}]}', 422, "events[0].name"),
        (b'{"events":[{"role":"user","content":"x"}],"expected_head":"1"}', 422, "expected_head"),
    ],
)
async def test_bad_input_is_refused_and_changes_nothing(
    client: httpx.AsyncClient, body: bytes, status: int, param: str | None
) -> None:
    conversation = await new_conversation(client)
    url = f"/v1/conversations/{conversation}/events"
    answer = await client.post(url, content=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param
    assert answer.headers["x-request-id"]
    assert (await client.get(url)).json()["head"] == 0


async def test_too_large(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    event = await append(client, conversation, "x" * (1024 * 1024))
    assert (event.status_code, event.json()["error"]["code"]) == (413, "too_large")
    request = await append(client, conversation, *["x" * 1_000_000] * 17)
    assert (request.status_code, request.json()["error"]["code"]) == (413, "too_large")


async def test_a_page_is_bounded_in_bytes(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client)
    for _ in range(2):
        assert (await append(client, conversation, *["x" * 1_000_000] * 6)).status_code == 201
    url = f"/v1/conversations/{conversation}/events"
    page = (await client.get(url)).json()
    assert [event["seq"] for event in page["data"]] == list(range(1, 10))
    assert page["has_more"] is True
    rest = (await client.get(url, params={"after_seq": 9})).json()
    assert ([event["seq"] for event in rest["data"]], rest["has_more"]) == ([10, 11, 12], False)
    latest = (await client.get(url, params={"order": "desc"})).json()
    assert ([event["seq"] for event in latest["data"]], latest["has_more"]) == (list(range(12, 3, -1)), True)
