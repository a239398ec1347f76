"""Import, export and restore: through the commands, over real HTTP, on real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

import server.cli.restoring
import server.cli.uploading
import server.log.transfer.export
import server.log.transfer.salt
from server.access.tenants import bootstrap
from server.cli.transfer import export as export_command
from server.cli.transfer import import_ as import_command
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.settings import Settings
from tests.conftest import serving


class Server:
    """One served, empty database and its key."""

    def __init__(self, url: str, key: str, client: httpx.AsyncClient) -> None:
        self.url = url
        self.key = key
        self.client = client

    async def run(self, command: Any, *arguments: object, status: int = 0) -> Result:
        options = ["--url", self.url, "--key", self.key]
        result = await asyncio.to_thread(CliRunner().invoke, command, [*map(str, arguments), *options])
        assert result.exit_code == status, result.output + repr(result.exception)
        return result

    async def import_(self, *arguments: object, status: int = 0) -> str:
        return (await self.run(import_command, *arguments, status=status)).output

    async def export(self, *arguments: object) -> bytes:
        return (await self.run(export_command, "jsonl", *arguments)).stdout_bytes

    async def conversations(self, **query: str) -> list[dict[str, Any]]:
        answer = await self.client.get("/v1/conversations", params={"limit": "100", "order": "asc", **query})
        return list(answer.json()["data"])

    async def events(self, conversation: str) -> list[dict[str, Any]]:
        answer = await self.client.get(f"/v1/conversations/{conversation}/events?limit=1000")
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])

    async def post(self, path: str, body: object) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await self.client.post(path, content=content)
        assert answer.is_success, answer.text
        return answer.json()


Start = Callable[[], Any]


@pytest.fixture
async def start(settings: Settings, new_database: Callable[[], EmbeddedAddress]) -> AsyncIterator[Start]:
    """Starts servers, each on an empty database of its own."""
    async with AsyncExitStack() as stack:

        async def make() -> Server:
            address = new_database()
            database = Database(address)
            await database.open()
            key = await bootstrap(database)
            await database.close()
            assert key is not None
            url = await stack.enter_async_context(serving(settings, address))
            headers = {"authorization": f"Bearer {key}"}
            client = httpx.AsyncClient(base_url=url, headers=headers, timeout=30)
            return Server(url, key, await stack.enter_async_context(client))

        yield make


@pytest.fixture
async def source(start: Start) -> Server:
    made: Server = await start()
    return made


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """These servers are one process each: waiting as long as a key's row is trusted is enough."""
    monkeypatch.setattr(server.log.transfer.salt, "SETTLE", 0.6)


async def fill(source: Server) -> None:
    """Make a tenant that has one of everything that an export must carry."""
    for user in ("ada", "böb", "Zoë 😀"):
        main = (
            await source.post(
                "/v1/conversations", {"user": user, "origin_id": "o-1", "metadata": {"n": 1, "deep": {"x": [1, None]}}}
            )
        )["id"]
        url = f"/v1/conversations/{main}"
        await source.post(
            f"{url}/events",
            b'{"events":[{"role":"user","content":"\\u0000 and \\ud83d\\ude00","id":"mine","name":"N"},'
            b'{"role":"user","content":[\n{"type" :\t"text","text":"a",\r\n'
            b'"big":123456789012345678901234567890,"f":1E400}]},'
            b'{"role":"assistant","content":"secret","id":"gone","session":"s","run_id":"r","metadata":{"a" : 1.0}}]}',
        )
        await source.post(
            f"{url}/events",
            {
                "events": [
                    {"type": "tool_call", "call_id": "c", "name": "t", "content": {"k": 1.5}, "id": "call"},
                    {"type": "item", "occurred_at": "0001-01-01T00:00:00Z", "metadata": {}},
                    {"type": "pin", "content": {"seq": 2}, "occurred_at": "9999-12-31T23:59:59.999999Z"},
                ]
            },
        )
        await source.post(f"{url}/context", {"used": [2, 3]})
        fork = (await source.post(f"{url}/fork", {"at_seq": 4, "origin_id": "o-2"}))["id"]
        await source.post(f"/v1/conversations/{fork}/events", {"events": [{"role": "user", "content": "in the fork"}]})
        nested = (await source.post(f"/v1/conversations/{fork}/fork", {"at_seq": 5, "metadata": {}}))["id"]
        await source.post(f"/v1/conversations/{nested}/events", {"events": [{"role": "user", "content": "deeper"}]})
        await source.post(f"/v1/conversations/{nested}/fork", {"at_seq": 2})
        await source.post(f"{url}/fork", {"at_seq": 0})
        assert (await source.client.delete(f"{url}/events/gone")).is_success
        assert (await source.client.delete(f"/v1/conversations/{fork}")).is_success  # kept for what `nested` shares
    # A fork whose parent is gone for good: all that it shows is its grandparent's.
    lone = (await source.post("/v1/conversations", {}))["id"]
    await source.post(f"/v1/conversations/{lone}/events", {"events": [{"role": "user", "content": "1"}] * 3})
    between = (await source.post(f"/v1/conversations/{lone}/fork", {"at_seq": 2}))["id"]
    orphan = (await source.post(f"/v1/conversations/{between}/fork", {"at_seq": 2}))["id"]
    await source.post(f"/v1/conversations/{orphan}/events", {"events": [{"role": "user", "content": "2"}]})
    assert (await source.client.delete(f"/v1/conversations/{between}")).is_success
    await source.client.put(f"/v1/conversations/{orphan}/retention", json={"retention_days": 9})
    # A user without conversations, and one who was erased.
    alone = (await source.post("/v1/conversations", {"user": "alone"}))["id"]
    assert (await source.client.delete(f"/v1/conversations/{alone}")).is_success
    await source.post("/v1/conversations", {"user": "erased"})
    assert (await source.client.delete("/v1/users/erased")).is_success


async def test_an_export_restored_into_an_empty_server_exports_to_the_same_bytes(
    source: Server, start: Start, tmp_path: Path
) -> None:
    await fill(source)
    file = tmp_path / "export.jsonl"
    await source.export("--output", file)
    assert file.stat().st_mode & 0o777 == 0o600
    exported = file.read_bytes()
    assert await source.export() == exported
    kinds = [json.loads(line)["kind"] for line in exported.splitlines()]
    assert {"header", "user", "conversation", "event", "touch", "erasure", "end"} == set(kinds)
    assert b'"deleted_at"' in exported
    assert b'"lineage"' in exported
    assert b'"content_text"' in exported
    assert b"secret" not in exported

    target = await start()
    assert "restored, 0 already there" in await target.import_("jsonl", file)
    assert await target.export() == exported
    for conversation in await source.conversations():
        there = await target.client.get(f"/v1/conversations/{conversation['id']}/events")
        here = await source.client.get(f"/v1/conversations/{conversation['id']}/events")
        assert there.content == here.content
    # What the hashes keep: a retry of an event is still known for one, and so is that of an erased one.
    main = next(one for one in await target.conversations(user="ada") if one["origin_id"] == "o-1")
    retry = {
        "role": "assistant",
        "content": "secret",
        "id": "gone",
        "session": "s",
        "run_id": "r",
        "metadata": {"a": 1.0},
    }
    again = await target.post(f"/v1/conversations/{main['id']}/events", {"events": [retry]})
    assert again["events"] == [{"id": "gone", "seq": 3}]
    assert (await target.post("/v1/conversations", {"user": "ada", "origin_id": "o-1"}))["id"] == main["id"]
    assert await target.export() == exported

    assert "0 restored" in await target.import_("jsonl", file)
    assert "0 restored" in await source.import_("jsonl", file)
    assert await target.export() == exported
    assert await source.export() == exported


async def test_an_interrupted_restore_is_taken_up(
    source: Server, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(source)
    long = (await source.post("/v1/conversations", {"user": "ada"}))["id"]
    for _ in range(3):
        await source.post(f"/v1/conversations/{long}/events", {"events": [{"role": "user", "content": "x" * 99}] * 50})
    file = tmp_path / "export.jsonl"
    await source.export("--output", file)
    target = await start()
    monkeypatch.setattr(server.cli.restoring, "CHUNK", 2000)
    left = 0
    original = server.cli.restoring._send

    def failing(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        original(*arguments)

    monkeypatch.setattr(server.cli.restoring, "_send", failing)
    for left in (5, 18, 31):  # noqa: B007 - read by `failing`
        await target.import_("jsonl", file, status=1)
        for conversation in await target.conversations():
            seqs = [event["seq"] for event in await target.events(conversation["id"])]
            assert seqs == list(range(1, conversation["head"] + 1))  # gapless, and no head that is not reached
        assert await target.export() != file.read_bytes()
    left = -1
    await target.import_("jsonl", file)
    assert await target.export() == file.read_bytes()


async def test_what_was_erased_since_the_export_stays_erased(source: Server, tmp_path: Path) -> None:
    await fill(source)
    file = tmp_path / "export.jsonl"
    await source.export("--output", file)
    mains = {one["user"]: one["id"] for one in await source.conversations() if one["origin_id"] == "o-1"}
    assert (await source.client.delete(f"/v1/conversations/{mains['ada']}/events/mine")).is_success
    assert (await source.client.delete(f"/v1/conversations/{mains['böb']}")).is_success
    assert (await source.client.delete("/v1/users/Zo%C3%AB%20%F0%9F%98%80")).is_success
    leaf = next(one for one in await source.conversations(user="ada") if one["forked_from"] and one["head"] == 2)
    assert (await source.client.delete(f"/v1/conversations/{leaf['id']}")).is_success  # its row is gone at once
    after = await source.export()
    await source.import_("jsonl", file)
    assert await source.export() == after


async def test_parts_of_a_tenant(source: Server, start: Start, tmp_path: Path) -> None:
    await fill(source)
    of_user = await source.export("--user", "ada")
    users = [line for line in map(json.loads, of_user.splitlines()) if line["kind"] == "user"]
    assert [user["id"] for user in users] == ["ada"]
    fork = next(one for one in await source.conversations(user="ada") if one["forked_from"] and one["head"] == 6)
    of_one = await source.export("--conversation", fork["id"])
    kept = [line for line in map(json.loads, of_one.splitlines()) if line["kind"] == "conversation"]
    assert len(kept) == 3  # the fork, and the two that it was forked from
    for exported, arguments in ((of_one, ("--conversation", fork["id"])), (of_user, ("--user", "ada"))):
        target = await start()
        file = tmp_path / "part.jsonl"
        file.write_bytes(exported)
        await target.import_("jsonl", file)
        assert await target.export(*arguments) == exported
        assert await target.events(fork["id"]) == await source.events(fork["id"])
    missing = await source.client.get("/v1/export", params={"conversation": "conv_" + "0" * 48})
    assert missing.status_code == 404


async def test_an_export_comes_into_another_tenant_with_new_ids(source: Server, start: Start, tmp_path: Path) -> None:
    await fill(source)
    file = tmp_path / "export.jsonl"
    await source.export("--output", file)
    target = await start()
    await target.post("/v1/conversations", {"user": "somebody"})
    first = await target.import_("jsonl", file)
    assert "made anew" in first
    # Deleted conversations are sent again for their forks, and deleted again; the rest is there.
    assert [one["head"] for one in await target.conversations(user="ada")] == [
        one["head"] for one in await source.conversations(user="ada")
    ]
    before = await target.conversations()
    await target.import_("jsonl", file)
    assert await target.conversations() == before
    for here, there in zip(await source.conversations(user="ada"), await target.conversations(user="ada"), strict=True):
        assert here["id"] != there["id"]
        assert there["origin_id"] == (here["origin_id"] or here["id"])
        shown = [(e["seq"], e.get("content")) for e in await target.events(there["id"]) if e["type"] != "item"]
        assert shown == [
            (e["seq"], e.get("content"))
            for e in await source.events(here["id"])
            if e["type"] not in ("item", "erasure") and "erased_at" not in e
        ]


async def test_deletions_come_into_another_tenant_as_deletions(source: Server, start: Start, tmp_path: Path) -> None:
    """Also in forks, at whose end one stands, and after events that retention removed."""

    async def items(server: Server, conversation: str) -> list[str]:
        answer = await server.client.get(f"/v1/conversations/{conversation}/items", params={"order": "asc"})
        return [item["content"][0]["text"] for item in answer.json()["data"]]

    made = await source.post("/v1/conversations", {"user": "ada", "origin_id": "talk"})
    url = f"/v1/conversations/{made['id']}"
    events = [{"role": "user", "content": text, **more} for text, more in (("a", {}), ("b", {"id": "x/y"}), ("c", {}))]
    appended = await source.post(f"{url}/events", {"events": events})
    for event in (appended["events"][0]["id"].replace("evt", "msg"), "x%2Fy"):
        assert (await source.client.delete(f"{url}/items/{event}")).is_success
    fork = await source.post(f"{url}/fork", {"at_seq": 4, "origin_id": "fork"})
    await source.post(f"/v1/conversations/{fork['id']}/events", {"events": [{"role": "user", "content": "d"}]})
    last = await source.client.get(f"/v1/conversations/{fork['id']}/items", params={"limit": 1})
    await source.client.delete(f"/v1/conversations/{fork['id']}/items/{last.json()['last_id']}")
    file = tmp_path / "export.jsonl"
    target = await start()
    await target.post("/v1/conversations", {"user": "somebody"})
    await source.export("--output", file)
    for new, known in ((7, 0), (0, 7)):
        assert f"{new} new, {known} already there" in await target.import_("jsonl", file)
        [talk, forked] = await target.conversations(user="ada")
        assert await items(target, talk["id"]) == await items(source, made["id"]) == ["c"]
        assert await items(target, forked["id"]) == await items(source, fork["id"]) == ["b", "c"]
        log = await target.events(talk["id"])
        assert [(event["type"], event.get("content")) for event in log[3:]] == [
            ("deletion", {"seq": 1}),
            ("deletion", {"seq": 2}),
        ]


async def test_what_a_deletion_names_moves_with_it(source: Server, start: Start, tmp_path: Path) -> None:
    """Retention removed what came before; and a deletion of what it removed is kept as an item, in its place."""
    file = tmp_path / "export.jsonl"
    conversation = (await source.post("/v1/conversations", {"user": "ada"}))["id"]
    texts = [{"role": "user", "content": text} for text in "abcd"]
    ids = (await source.post(f"/v1/conversations/{conversation}/events", {"events": texts}))["events"]
    for place in (0, 2):
        item = ids[place]["id"].replace("evt", "msg")
        assert (await source.client.delete(f"/v1/conversations/{conversation}/items/{item}")).is_success
    lines = (await source.export()).decode().splitlines()
    without = [line for line in lines if '"seq":1,' not in line and '"seq":2,' not in line]
    assert len(without) == len(lines) - 2
    without = [line.replace('"head":6', '"head":6,"first":3,"floor":2') for line in without]
    file.write_text("\n".join(line.replace('"events":6', '"events":4') for line in without))
    target = await start()
    await target.post("/v1/conversations", {"user": "somebody"})
    assert "4 new" in await target.import_("jsonl", file)
    [made] = await target.conversations(user="ada")
    log = await target.events(made["id"])
    assert [(event["type"], event["content"]) for event in log] == [
        ("message", "c"),
        ("message", "d"),
        ("item", {"seq": 1}),
        ("deletion", {"seq": 1}),
    ]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda lines: lines[:-1], "cut off"),
        (lambda lines: [line for line in lines if '"seq":2,' not in line], "other numbers"),
    ],
)
async def test_a_damaged_file_is_refused_before_anything_is_sent(
    source: Server, start: Start, tmp_path: Path, damage: Callable[[list[str]], list[str]], expected: str
) -> None:
    await fill(source)
    lines = damage((await source.export()).decode().splitlines())
    file = tmp_path / "damaged.jsonl"
    file.write_text("\n".join(lines))
    target = await start()
    assert expected in await target.import_("jsonl", file, status=1)
    assert await target.conversations() == []


async def test_damaged_chunks_are_refused(source: Server, start: Start) -> None:
    await fill(source)
    lines = (await source.export()).decode().splitlines()
    header = json.loads(lines[0])
    conversations = [line for line in lines if '"kind":"conversation"' in line]
    fork = next(line for line in conversations if '"parent"' in line)
    main = json.loads(next(line for line in conversations if '"user":"ada"' in line and '"parent"' not in line))
    events = [line for line in lines if f'"conversation":"{main["id"]}"' in line and '"kind":"event"' in line]
    text = json.dumps(main)
    target = await start()

    async def refused(*chunk: str, status: int = 422) -> str:
        answer = await target.client.post("/v1/import", content="\n".join(chunk).encode())
        assert answer.status_code == status, answer.text
        return str(answer.json()["error"]["message"])

    assert "header" in await refused(text)
    assert "salt" in await refused(json.dumps(header | {"salt": "00"}))
    assert "has a gap: seq 1 is followed by 3" in await refused(lines[0], text, events[0], *events[2:])
    assert "has a gap: its events reach seq 0" in await refused(lines[0], text, *events[1:])
    assert "stands outside it" in await refused(lines[0], events[0])
    touch = next(line for line in lines if f'"conversation":"{main["id"]}"' in line and '"kind":"touch"' in line)
    assert "stands outside it" in await refused(lines[0], touch)
    assert "stands outside it" in await refused(lines[0], text, *events[:2], touch, events[2])
    late = json.dumps(json.loads(touch) | {"seqs": [99]})
    assert "beyond the head of its time" in await refused(lines[0], text, *events, late)
    assert "ends at seq 2, but its head is" in await refused(lines[0], text, *events[:2], lines[-1])
    assert "does not come before it" in await refused(lines[0], fork)
    assert "does not belong to its user" in await refused(lines[0], json.dumps(main | {"user": "eve"}))
    assert "surrogate" in await refused(lines[0], text, events[0].replace("\\u0000", "\\ud800"))
    assert "not of the same user" in await refused(
        lines[0], json.dumps(main | {"parent": "conv_" + "0" * 48, "fork_seq": 1})
    )
    assert "damaged" in await refused(lines[0], json.dumps(main | {"created_at": "2024-02-30T00:00:00.000000Z"}))
    assert "Unicode escape" in await refused(lines[0], text, events[0].replace('"name":"N"', '"name":"\\u0000"'))
    assert await target.conversations() == []
    await target.post("/v1/import", "\n".join([lines[0], text, events[0]]).encode())
    other = events[0].replace('"name":"N"', '"name":"M"')
    assert "another event at seq 1" in await refused(lines[0], text, other, status=409)
    again = await target.client.post("/v1/import", content=json.dumps(header | {"salt": "ab" * 32}).encode())
    assert (again.status_code, again.json()["error"]["code"]) == (409, "tenant_not_empty")


async def test_transfer_needs_the_admin_scope(source: Server) -> None:
    made = await source.post("/v1/keys", {"name": "k", "scopes": ["read", "append", "erase"]})
    headers = {"authorization": f"Bearer {made['key']}"}
    assert (await source.client.get("/v1/export", headers=headers)).status_code == 403
    assert (await source.client.post("/v1/import", content=b"", headers=headers)).status_code == 403


async def test_ids_are_not_shared_by_two_tenants_of_one_server(source: Server, tmp_path: Path) -> None:
    await source.post("/v1/conversations", {"user": "ada"})
    file = tmp_path / "export.jsonl"
    await source.export("--output", file)
    await source.post("/v1/tenants", {"name": "other"})
    key = (await source.post("/v1/keys", {"name": "k", "scopes": ["admin"], "tenant": "other"}))["key"]
    async with httpx.AsyncClient(base_url=source.url, headers={"authorization": f"Bearer {key}"}) as client:
        other = Server(source.url, key, client)
        assert "made anew" in await other.import_("jsonl", file)
        assert [one["user"] for one in await other.conversations()] == ["ada"]
        assert (await other.conversations())[0]["id"] != (await source.conversations())[0]["id"]


async def test_only_so_many_exports_at_once_and_a_stalled_one_gives_its_place_up(
    source: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.log.transfer.export, "AT_ONCE", 1)
    monkeypatch.setattr(server.log.transfer.export, "STALL", 1)
    made = (await source.post("/v1/conversations", {}))["id"]
    for _ in range(12):
        big = {"events": [{"role": "user", "content": "x" * 1_000_000}] * 10}
        await source.post(f"/v1/conversations/{made}/events", big)
    async with source.client.stream("GET", "/v1/export") as stalled:
        assert stalled.status_code == 200
        busy = await source.client.get("/v1/export")
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "10")
        for _ in range(100):
            if (await source.client.get("/v1/export", params={"user": "nobody"})).status_code == 200:
                break
            await asyncio.sleep(0.1)
        else:
            pytest.fail("the stalled export keeps its place")
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in stalled.aiter_bytes():
                pass


LOCOMO = [
    {
        "sample_id": "s-1",
        "conversation": {
            "speaker_a": "Ann",
            "speaker_b": "Ben",
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ann", "dia_id": "D1:1", "text": "I planted a pear tree."},
                {"speaker": "Ben", "dia_id": "D1:2", "text": "Look", "img_url": ["u"], "blip_caption": "a tree"},
            ],
        },
        "qa": [],
    }
]
LONGMEMEVAL = [
    {
        "question_id": "q-1",
        "question": "?",
        "haystack_dates": ["2023/05/20 (Sat) 02:21"],
        "haystack_session_ids": ["h-1"],
        "haystack_sessions": [[{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]],
    }
]


def chatgpt(*, edited: bool) -> list[dict[str, Any]]:
    def node(name: str, parent: str | None, children: list[str], role: str, text: str) -> dict[str, Any]:
        message = {"id": name, "author": {"role": role}, "content": {"content_type": "text", "parts": [text]}}
        return {"id": name, "parent": parent, "children": children, "message": message}

    mapping = {
        "a": node("a", None, ["b"], "user", "question"),
        "b": node("b", "a", ["c", "d"] if edited else ["c"], "assistant", "answer"),
        "c": node("c", "b", [], "user", "more"),
    }
    if edited:
        mapping["d"] = node("d", "b", ["e/f"], "user", "more, edited")
        mapping["e/f"] = node("e/f", "d", ["g", "h"], "assistant", "an id that no path can hold")
        mapping["g"] = node("g", "e/f", [], "user", "one")
        mapping["h"] = node("h", "e/f", [], "user", "two")
    return [{"conversation_id": "chat", "title": "t", "current_node": "h" if edited else "c", "mapping": mapping}]


@pytest.mark.parametrize(
    ("format_", "content", "user"), [("locomo", LOCOMO, "s-1"), ("longmemeval", LONGMEMEVAL, "q-1")]
)
async def test_importing_twice_stores_once(
    source: Server, tmp_path: Path, format_: str, content: object, user: str
) -> None:
    file = tmp_path / "file.json"
    file.write_text(json.dumps(content))
    assert "1 conversations, 2 events (would be imported)" in await source.import_(format_, file, "--dry-run")
    assert await source.conversations() == []
    assert "1 conversations, 2 events (2 new, 0 already there)" in await source.import_(format_, file)
    assert "1 conversations, 2 events (0 new, 2 already there)" in await source.import_(format_, file)
    (made,) = await source.conversations()
    assert (made["user"], made["head"], made["origin_id"]) == (user, 2, f"{format_}:{user}")


async def test_a_later_chatgpt_export_extends_the_earlier_import(source: Server, tmp_path: Path) -> None:
    file = tmp_path / "conversations.json"
    file.write_text(json.dumps(chatgpt(edited=False)))
    assert "3 new, 0 already there" in await source.import_("chatgpt", file, "--user", "me")
    file.write_text(json.dumps(chatgpt(edited=True)))
    assert "4 new, 3 already there" in await source.import_("chatgpt", file, "--user", "me")
    assert "0 new, 7 already there" in await source.import_("chatgpt", file, "--user", "me")
    shown = {one["origin_id"]: one["id"] for one in await source.conversations(user="me")}
    assert list(shown) == ["chatgpt:chat", "chatgpt:chat:d", "chatgpt:chat:h"]
    last = await source.events(shown["chatgpt:chat:h"])
    assert [event["id"] for event in last] == ["a", "b", "d", "e/f", "h"]


async def test_generic_lines_with_labels_that_the_server_would_refuse(source: Server, tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    lines: list[dict[str, Any]] = [
        {"conversation": "x", "user": "u", "role": "user", "content": "plain", "id": "p"},
        {"conversation": "x", "user": "u", "role": "user", "content": "long", "id": "i" * 300, "name": "n" * 300},
        {"conversation": "x", "user": "u", "role": "user", "content": "taken", "id": "evt_1", "session": "\0"},
        {"conversation": "y" * 600, "content": {"a": 1}, "type": "item", "metadata": {"big": "m" * 70_000}},
        {"conversation": "x", "user": "u", "role": "user", "content": "later"},
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    assert "5 new, 0 already there" in await source.import_("jsonl", file)
    assert "0 new, 5 already there" in await source.import_("jsonl", file)
    x, y = await source.conversations()
    assert (x["origin_id"], x["user"], y["origin_id"][:13]) == ("jsonl:x", "u", "jsonl:sha256:")
    plain, long, taken, later = await source.events(x["id"])
    assert (plain["id"], later["id"]) == ("p", "file.jsonl:5")
    assert (long["id"][:7], long["metadata"]) == ("sha256:", {"source_id": "i" * 300, "source_name": "n" * 300})
    assert (taken["session"][:7], taken["metadata"]) == ("sha256:", {"source_id": "evt_1", "source_session": "\0"})
    (item,) = await source.events(y["id"])
    assert item["content"] == [
        {"type": "item", "value": {"a": 1}},
        {"type": "metadata", "metadata": {"big": "m" * 70_000}},
    ]


async def test_an_import_names_what_was_wrong_and_is_taken_up_where_it_stopped(
    source: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.cli.uploading, "MAX_BATCH_EVENTS", 2)
    file = tmp_path / "file.jsonl"
    good = [{"conversation": "x", "role": "user", "content": str(n), "id": f"id-{n}"} for n in range(5)]
    bad = {"conversation": "x", "content": "nobody says this", "id": "bad"}
    file.write_text("\n".join(map(json.dumps, [*good, bad])))
    said = await source.import_("jsonl", file, status=1)
    assert "conversation 'x', event 'bad': events[1].role: a message needs `role`" in said
    assert (await source.conversations())[0]["head"] == 4
    file.write_text("\n".join(map(json.dumps, good)))
    assert "1 new, 4 already there" in await source.import_("jsonl", file)
    file.write_text('{"conversation":"x","role":"user","content":"t","occurred_at":"0001-01-01T00:00:00+02:00"}')
    assert "line 1: 0001-01-01T00:00:00+02:00 lies outside the years" in await source.import_("jsonl", file, status=1)


async def test_an_import_waits_while_the_server_is_busy(
    source: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file.jsonl"
    lines = [{"conversation": str(n), "role": "user", "content": "c", "id": "1"} for n in range(5)]
    file.write_text("\n".join(map(json.dumps, lines)))
    limited = await source.post("/v1/keys", {"name": "k", "scopes": ["append"], "rate_limit": 4})
    slow = Server(source.url, limited["key"], source.client)
    assert "5 new, 0 already there" in await slow.import_("jsonl", file)
