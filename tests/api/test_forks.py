"""Forks: they share the past, never the future, however deep they go."""

from __future__ import annotations

import json
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from server.api import stream
from server.database.address import EmbeddedAddress
from server.database.connections import _HOT_OPTIONS
from server.database.ids import keyed_hash, parse_conversation_id, uuid7
from server.database.round_trip import Statement
from server.database.tenant import Tenant
from server.log import read
from tests.api.test_events import append, new_conversation

DEPTH = 1000


async def fork(client: httpx.AsyncClient, conversation: str, at_seq: int, **more: Any) -> str:
    answer = await client.post(f"/v1/conversations/{conversation}/fork", json={"at_seq": at_seq, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def contents(client: httpx.AsyncClient, conversation: str, query: str = "limit=1000") -> list[Any]:
    answer = await client.get(f"/v1/conversations/{conversation}/events?{query}")
    assert answer.status_code == 200, answer.text
    return [event.get("content") for event in answer.json()["data"]]


async def test_neither_sees_what_the_other_says_later(client: httpx.AsyncClient) -> None:
    parent = await new_conversation(client, user="ada", metadata={"a": 1})
    await append(client, parent, "1", "2", "3")
    early, late = await fork(client, parent, 1), await fork(client, parent, 3, metadata={"b": 2})
    await append(client, parent, "4 of the parent")
    await append(client, early, "2 of the early")
    grandchild = await fork(client, early, 2)
    await append(client, early, "3 of the early")
    await append(client, grandchild, "3 of the grandchild")
    assert await contents(client, parent) == ["1", "2", "3", "4 of the parent"]
    assert await contents(client, early) == ["1", "2 of the early", "3 of the early"]
    assert await contents(client, late) == ["1", "2", "3"]
    assert await contents(client, grandchild) == ["1", "2 of the early", "3 of the grandchild"]
    shown = (await client.get(f"/v1/conversations/{grandchild}")).json()
    assert (shown["forked_from"], shown["fork_seq"], shown["head"]) == (early, 2, 3)
    assert (shown["user"], shown["metadata"]) == ("ada", {"a": 1})
    assert (await client.get(f"/v1/conversations/{late}")).json()["metadata"] == {"b": 2}
    pages = [await contents(client, grandchild, query) for query in ("limit=2", "limit=2&order=desc", "as_of=1")]
    assert pages == [["1", "2 of the early"], ["3 of the grandchild", "2 of the early"], ["1"]]


async def test_a_shared_event_keeps_its_id(client: httpx.AsyncClient) -> None:
    """And an event of after the fork is not found by either of its ids in the fork."""
    parent = await new_conversation(client)
    url = f"/v1/conversations/{parent}/events"
    body = {"events": [{"role": "user", "content": "one", "id": "a"}, {"role": "user", "content": "two"}]}
    first = (await client.post(url, json=body)).json()["events"]
    child = await fork(client, parent, 2)
    later = await client.post(url, json={"events": [{"role": "user", "content": "three", "id": "b"}]})
    assert later.status_code == 201
    for event in first:
        answers = [await client.get(f"/v1/conversations/{one}/events/{event['id']}") for one in (parent, child)]
        assert answers[0].content == answers[1].content
    assert (await client.get(f"/v1/conversations/{child}/events/b")).status_code == 404
    assert (await client.get(f"/v1/conversations/{child}/events/evt_{parent[-32:]}_3")).status_code == 404
    # The caller's id of a shared event is taken in the fork; that of a later one is free.
    again = await client.post(f"/v1/conversations/{child}/events", json={"events": body["events"][:1]})
    assert again.json() == {"events": [first[0]], "head": 2}
    body = {"events": [{"role": "user", "content": "x", "id": "b"}]}
    free = await client.post(f"/v1/conversations/{child}/events", json=body)
    assert free.json() == {"events": [{"id": "b", "seq": 3}], "head": 3}


async def test_forks_of_nothing_and_of_too_much(client: httpx.AsyncClient) -> None:
    parent = await new_conversation(client)
    await append(client, parent, "one")
    empty = await fork(client, parent, 0)
    assert await contents(client, empty) == []
    await append(client, empty, "own")
    assert await contents(client, await fork(client, empty, 1)) == ["own"]
    for wrong, status in ((2, 422), (-1, 422), ("1", 422), (2**60, 422)):
        answer = await client.post(f"/v1/conversations/{parent}/fork", json={"at_seq": wrong})
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, "at_seq")


async def test_a_fork_can_be_followed_across_its_seam(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PAGE", 2)
    parent = await new_conversation(client)
    await append(client, parent, "1", "2", "3")
    child = await fork(client, parent, 3)
    await append(client, parent, "not this")
    await append(client, child, "4")
    url = f"/v1/conversations/{child}/events/stream"
    heard = []
    async with client.stream("GET", url, headers={"last-event-id": "0"}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                heard.append(json.loads(line[6:])["content"])
                if len(heard) == 4:
                    break
    assert heard == ["1", "2", "3", "4"]


def deep(address: EmbeddedAddress, conversation: str) -> str:
    """Write what a thousand forks leave behind, each at the end of the one before and with one event of its own."""
    # Through HTTP this would be two thousand requests; tests/property compares forks of forks made by the server.
    uuids = [conversation[-32:], *(uuid7().hex for _ in range(DEPTH - 1))]
    with psycopg.connect(address.conninfo("admin")) as connection:
        for depth in range(1, DEPTH):
            connection.execute(
                "INSERT INTO conversation (user_key, id, tenant_id, user_id, head, recorded_at, created_at, parent, "
                "fork_seq, lineage, lineage_end) SELECT user_key, %s, tenant_id, user_id, %s, recorded_at, created_at, "
                "%s, %s, %s, %s FROM conversation WHERE id = %s",
                (uuids[depth], depth + 1, uuids[depth - 1], depth, uuids[:depth], [*range(1, depth + 1)], uuids[0]),
            )
        # Two each: the second is what no fork may show.
        connection.execute(
            "INSERT INTO event (user_key, conversation, seq, recorded_at, occurred_at, tenant_id, type, role, content) "
            "SELECT c.user_key, c.id, c.head + n, c.recorded_at, c.recorded_at, c.tenant_id, 'message', 'user', "
            "to_json(CASE n WHEN 0 THEN c.head::text ELSE 'later' END)::text "
            "FROM conversation c, generate_series(0, 1) n WHERE c.id <> %s",
            (uuids[0],),
        )
        connection.execute("UPDATE conversation SET head = head + 1 WHERE id <> %s", (uuids[0],))
    return conversation[:-32] + uuids[-1]


def rows_visited(address: EmbeddedAddress, statement: Statement, values: dict[str, object]) -> int:
    """Return how many rows of events a statement looks at, as the server runs it; fails on a scan of all rows."""
    names = statement._names
    arguments = sql.SQL(", ").join(sql.Literal(values[name]) for name in names)
    with psycopg.connect(address.conninfo("turnstone_runtime")) as connection:
        connection.execute("SELECT set_config('turnstone.tenant', %s, true)", (str(values["tenant"]),))
        for setting in _HOT_OPTIONS.removeprefix("-c ").split(" -c "):
            connection.execute(sql.SQL("SET LOCAL " + setting))
        connection.execute(b"PREPARE hot AS " + statement.text)
        (plan,) = connection.execute(
            sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE hot({})").format(arguments)
        ).fetchone() or ([],)
        connection.execute("DEALLOCATE hot")
    visited = 0
    nodes = [plan[0]["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node.get("Relation Name") == "event":
            assert node["Node Type"] != "Seq Scan"
            removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            visited += round((node["Actual Rows"] + removed) * node["Actual Loops"])
    return visited


async def test_a_thousand_forks_deep(client: httpx.AsyncClient, address: EmbeddedAddress, tenant: Tenant) -> None:
    """A read looks at the rows that it returns, not at the ancestry of events; and forking goes on."""
    first = await new_conversation(client, user="ada")
    await append(client, first, "1")
    deepest = deep(address, first)
    deepest = await fork(client, deepest, DEPTH)
    await append(client, deepest, str(DEPTH + 1))
    assert await contents(client, deepest, "limit=1000") == [str(seq) for seq in range(1, DEPTH + 1)]
    latest = [str(seq) for seq in range(DEPTH + 1, DEPTH - 49, -1)]
    assert await contents(client, deepest, "limit=50&order=desc") == latest
    assert await contents(client, deepest, "limit=50&after_seq=500") == [str(seq) for seq in range(501, 551)]
    assert await contents(client, deepest, "as_of=700&limit=1&order=desc") == ["700"]
    one = f"evt_{first[-32:]}_1"
    assert (await client.get(f"/v1/conversations/{deepest}/events/{one}")).json()["content"] == "1"
    at = parse_conversation_id(deepest)
    assert at is not None
    values: dict[str, object] = {"user_key": at.user_key, "id": str(at.uuid), "tenant": tenant.id}
    whole = values | {"before": 2**62, "until": 2**62}
    for asked in (
        {"after": 0, "limit": 50, "descending": True, "bytes": 8 * 1024 * 1024},
        {"after": 500, "limit": 50, "descending": False, "bytes": 8 * 1024 * 1024},
    ):
        assert rows_visited(address, read._RANGE, whole | asked) == 50
    time = {"time": (await client.get(f"/v1/conversations/{deepest}/events/{one}")).json()["recorded_at"]}
    assert rows_visited(address, read._SEQ_AT, values | time) <= 24  # bisection: twice log2 of a thousand
    assert rows_visited(address, read._ONE_BY_SEQ, values | {"owner": first[-32:], "seq": 1}) == 1
    # An event by the caller's id is looked for in each owner, by that owner's index.
    assert rows_visited(address, read._ONE_BY_CLIENT_KEY, values | {"client_key": "\\x00"}) == 0


async def test_reads_of_a_long_conversation_visit_what_they_return(
    client: httpx.AsyncClient, address: EmbeddedAddress, tenant: Tenant
) -> None:
    """Plans are made while tables are small and kept: they must be right for large ones."""
    conversation = await new_conversation(client)
    for _ in range(5):
        await append(client, conversation, *["x"] * 1000)
    body = {"events": [{"role": "user", "content": "x", "id": "mine"}]}
    assert (await client.post(f"/v1/conversations/{conversation}/events", json=body)).status_code == 201
    at = parse_conversation_id(conversation)
    assert at is not None
    values: dict[str, object] = {"user_key": at.user_key, "id": str(at.uuid), "tenant": tenant.id}
    whole = values | {"before": 2**62, "until": 2**62}
    for asked in (
        {"after": 0, "limit": 50, "descending": True, "bytes": 8 * 1024 * 1024},
        {"after": 2500, "limit": 50, "descending": False, "bytes": 8 * 1024 * 1024},
    ):
        assert rows_visited(address, read._RANGE, whole | asked) == 50
    assert (
        rows_visited(
            address,
            read._RANGE,
            whole | {"before": 2000, "after": 0, "limit": 5, "descending": True, "bytes": 8 * 1024 * 1024},
        )
        == 5
    )
    assert rows_visited(address, read._SEQ_AT, values | {"time": "2020-01-01T00:00:00Z"}) <= 14
    key = "\\x" + keyed_hash(tenant.salt, "client_id", "mine").hex()
    assert rows_visited(address, read._ONE_BY_CLIENT_KEY, values | {"client_key": key}) == 1
    assert rows_visited(address, read._ONE_BY_SEQ, values | {"owner": str(at.uuid), "seq": 2500}) == 1
