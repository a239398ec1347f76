"""What is asked badly: a defined answer, never a 500, never another user's event."""

from __future__ import annotations

from itertools import product
from typing import Any

import httpx

from tests.api.test_search import STORY, ask, seqs, story

QUESTIONS = (
    "x",
    "?",
    "z" * 100_000,
    "word " * 20_000,
    "🦄🔥",
    "🎻",
    "the of and to in",
    "what did you do",
    "\x00\x01\x02\xff\x7f",
    "￿\u202e\u200b",
    "a" * 99_999 + "😀",
    "'; DROP TABLE event; --",
    "((((((((((((((((((((",
    '"' * 500,
    "%s %(x)s {0} \\ud83d",
    "2026-13-45 99:99 31 February",
    "before before before before",
    "１２３４５ ٱلْعَرَبِيَّة",
)


async def test_any_question_gets_an_answer(client: httpx.AsyncClient) -> None:
    conversation = await story(client, "ada")
    await story(client, "bob", "Bob wrote this 🎻.")
    for question, scope in product(QUESTIONS, ({"user": "ada"}, {"conversation_id": conversation})):
        answer = await ask(client, question, k=1000, explain=True, **scope)
        assert {one["event"]["content"] for one in answer["data"]} <= set(STORY)
        assert answer == answer | {"data": sorted(answer["data"], key=lambda one: -(one["score"] or 1e9))}


REFUSED: tuple[tuple[dict[str, Any], int, str | None], ...] = (
    ({"query": ""}, 422, "query"),
    ({"query": " \n\t "}, 422, "query"),
    ({"query": "x" * 100_001}, 422, "query"),
    ({"query": 7}, 422, "query"),
    ({"query": None}, 422, "query"),
    ({"k": 0}, 422, "k"),
    ({"k": 10_000}, 422, "k"),
    ({"k": "3"}, 422, "k"),
    ({"type": "nonsense"}, 422, "type"),
    ({"unknown": 1}, 422, None),
    ({"user": ""}, 422, "user"),
    ({"user": "a\0b"}, 422, "user"),
    ({"user": None}, 422, "user"),
    ({"scope": "tenant"}, 422, "scope"),
    ({"scope": "world"}, 422, "scope"),
    ({"min_seq": 1}, 422, "min_seq"),
    ({"filters": {"roles": ["nobody"]}}, 422, "filters.roles[0]"),
    ({"filters": {"types": ["nonsense"]}}, 422, "filters.types[0]"),
    ({"filters": {"occurred_after": "2026-01-01T00:00:00"}}, 422, "filters.occurred_after"),
    ({"filters": {"sessions": ["x"] * 101}}, 422, "filters.sessions"),
    ({"filters": {"colour": "red"}}, 422, None),
    ({"filters": {"metadata": []}}, 422, "filters.metadata"),
    ({"why_not": [{"conversation_id": "x", "seq": 1}] * 21}, 422, "why_not"),
    ({"why_not": [{"conversation_id": "x", "seq": 0}]}, 422, "why_not[0].seq"),
    ({"user": None, "conversation_id": "conv_" + "0" * 48}, 404, None),
    ({"user": None, "conversation_id": "nonsense"}, 404, "conversation_id"),
)


async def test_bad_input_is_refused(client: httpx.AsyncClient) -> None:
    await story(client, "ada")
    for change, status, param in REFUSED:
        answer = await client.post("/v1/search", json={"query": "x", "user": "ada"} | change)
        assert answer.status_code == status, (change, answer.text)
        if param is not None:
            assert answer.json()["error"]["param"] == param, change


async def test_an_unknown_type_names_those_there_are(client: httpx.AsyncClient) -> None:
    await story(client, "ada")
    error = (await client.post("/v1/search", json={"query": "x", "user": "ada", "type": "x"})).json()["error"]
    assert {"default", "temporal", "recency"} <= set(error["types"])


async def test_nothing_to_find(client: httpx.AsyncClient) -> None:
    assert (await ask(client, "anything", user="nobody"))["data"] == []
    empty = (await client.post("/v1/conversations", json={"user": "ada"})).json()["id"]
    for scope in ({"user": "ada"}, {"conversation_id": empty}):
        answer = await ask(client, "what did you just say?", k=1000, explain=True, min_seq=None, **scope)
        assert answer["data"] == []
    await client.post(
        f"/v1/conversations/{empty}/events",
        json={"events": [{"type": "run", "run_id": "r", "content": {"state": "started"}}]},
    )
    assert seqs(await ask(client, "started", user="ada")) == []
    await story(client, "ada")
    assert seqs(await ask(client, "gym", user="ada", filters={"sessions": ["none such"]})) == []


async def test_bodies_that_are_no_search(client: httpx.AsyncClient) -> None:
    for body in (b"", b"[]", b"{", b'{"query":"\\ud800","user":"ada"}', b'{"query":"x"}', b"null"):
        answer = await client.post("/v1/search", content=body)
        assert answer.status_code in (400, 422), body
        assert answer.json()["error"]["message"]


async def test_scopes_of_keys(client: httpx.AsyncClient) -> None:
    await story(client, "ada")
    for scopes, body, status in (
        (["append"], {"user": "ada"}, 403),
        (["read"], {"user": "ada"}, 200),
        (["read"], {"scope": "tenant"}, 403),
    ):
        key = (await client.post("/v1/keys", json={"name": "k", "scopes": scopes})).json()["key"]
        answer = await client.post(
            "/v1/search", json={"query": "gym", **body}, headers={"authorization": f"Bearer {key}"}
        )
        assert answer.status_code == status, answer.text
