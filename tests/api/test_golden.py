"""Golden sets over HTTP and by command: what is found, what is left out, who approves, what erasure takes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from server.cli import main
from server.database.address import EmbeddedAddress
from tests.api.test_access import admin_of, make_tenant
from tests.api.test_events import new_conversation
from tests.versions import rows

TEXTS = ("I moved to Lisbon.", "My sister plays the cello.", "The sofa is green.", "The gym opens at seven.")


async def chat(client: httpx.AsyncClient, origin: str | None = None, user: str = "ada", **headers: Any) -> str:
    items = [{"role": "user", "content": text, "id": f"D1:{number}"} for number, text in enumerate(TEXTS, 1)]
    body = {"user": user, "items": items} | ({} if origin is None else {"origin_id": origin})
    made = await client.post("/v1/conversations", json=body, **headers)
    assert made.status_code == 200, made.text
    return str(made.json()["id"])


def question(conversation: str, *evidence: str, name: str = "q1", **more: Any) -> dict[str, Any]:
    return {"id": name, "conversation": conversation, "question": "Where?", "evidence": list(evidence), **more}


async def add(client: httpx.AsyncClient, *questions: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"name": "ours", "owner": "ida", "questions": list(questions)} | more
    answer = await client.post("/v1/golden", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def whole(client: httpx.AsyncClient, name: str = "ours") -> list[dict[str, Any]]:
    answer = await client.get(f"/v1/golden/{name}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def test_evidence_is_found_by_any_id(client: httpx.AsyncClient) -> None:
    at = await chat(client, "locomo:chat-1")
    events = (await client.get(f"/v1/conversations/{at}/events")).json()["data"]
    own = f"evt_{at[-32:]}_2"
    made = await add(
        client,
        question("chat-1", "D1:1", "D1:3", "D1:1", name="by origin"),
        question("locomo:chat-1", "D1:4", name="by whole origin"),
        question(at, own, "nowhere", name="by id", language="german", category="temporal"),
        question("chat-2", "D1:1", name="no chat"),
        question(at, "D9:9", f"evt_{at[-32:]}_99", name="no event"),
        question(at, "D1:1", name="blank") | {"question": " "},
    )
    assert (made["questions"], made["version"], made["approved_by"], made["unusable"]) == (3, 1, None, 3)
    assert {one["id"]: one["why"].split(":")[0] for one in made["left_out"]} == {
        "no chat": "its conversation 'chat-2'",
        "no event": "none of its evidence is in its conversation",
        "blank": "it asks nothing",
    }
    found = {one["id"]: one for one in await whole(client)}
    assert list(found) == ["by origin", "by whole origin", "by id"]
    assert found["by origin"]["evidence"] == [f"evt_{at[-32:]}_1", f"evt_{at[-32:]}_3"]
    assert {one["conversation"] for one in found.values()} == {at}
    assert (found["by id"]["evidence"], found["by id"]["language"]) == ([own], "german")
    assert events[1]["id"] == "D1:2"


async def test_an_origin_that_two_conversations_have_names_neither(client: httpx.AsyncClient) -> None:
    await chat(client, "locomo:chat-1", "ada")
    await chat(client, "locomo:chat-1", "bob")
    made = await add(client, question("chat-1", "D1:1"))
    assert "several conversations" in made["left_out"][0]["why"]
    exact = await chat(client, "chat-1", "cleo")
    made = await add(client, question("chat-1", "D1:1"))
    assert (made["version"], made["left_out"]) == (2, [])
    assert (await whole(client))[0]["conversation"] == exact


async def test_a_fork_shows_evidence_of_its_past_and_none_beyond_it(client: httpx.AsyncClient) -> None:
    at = await chat(client)
    fork = (await client.post(f"/v1/conversations/{at}/fork", json={"at_seq": 2})).json()["id"]
    made = await add(client, question(fork, "D1:1", "D1:4"), question(fork, "D1:3", name="q2"))
    assert [one["id"] for one in made["left_out"]] == ["q2"]
    assert (await whole(client))[0]["evidence"] == [f"evt_{at[-32:]}_1"]
    # Erased in the trunk, it is gone from the fork, and so is the question.
    assert (await client.delete(f"/v1/conversations/{at}/events/D1:1")).status_code == 200
    assert await whole(client) == []


async def test_a_change_makes_a_new_version_that_nobody_approved(client: httpx.AsyncClient) -> None:
    at = await chat(client)
    await add(client, question(at, "D1:1"))
    approved = await client.post("/v1/golden/ours/approve", json={"version": 1})
    assert approved.status_code == 200
    assert approved.json()["approved_by"].startswith("key_")
    again = await add(client, question(at, f"evt_{at[-32:]}_1"), owner="tom")  # the same event by its other id
    assert (again["version"], again["owner"]) == (1, "tom")
    assert again["approved_by"] == approved.json()["approved_by"]
    changed = await add(client, question(at, "D1:2"))
    assert (changed["version"], changed["approved_by"], changed["approved_at"]) == (2, None, None)
    stale = await client.post("/v1/golden/ours/approve", json={"version": 1})
    assert (stale.status_code, stale.json()["error"]["param"]) == (409, "version")
    listed = (await client.get("/v1/golden")).json()["data"]
    assert [(one["name"], one["version"], one["questions"]) for one in listed] == [("ours", 2, 1)]
    assert (await client.delete("/v1/golden/ours")).json() == {"name": "ours", "deleted": True}
    for answer in (
        await client.delete("/v1/golden/ours"),
        await client.get("/v1/golden/ours"),
        await client.post("/v1/golden/ours/approve", json={"version": 2}),
    ):
        assert answer.status_code == 404


async def test_a_set_without_questions_is_not_approved(client: httpx.AsyncClient) -> None:
    await add(client, question("nowhere", "D1:1"))
    assert (await client.post("/v1/golden/ours/approve", json={"version": 1})).status_code == 409


async def test_erasure_takes_the_questions_along(client: httpx.AsyncClient, address: EmbeddedAddress) -> None:
    first, second, third = await chat(client), await chat(client, user="bob"), await chat(client, user="cleo")
    await add(
        client,
        question(first, "D1:1", "D1:2", name="event"),
        question(first, "D1:3", name="left"),
        question(second, "D1:1", name="conversation"),
        question(third, "D1:1", name="user"),
    )
    await client.delete(f"/v1/conversations/{first}/events/D1:2")
    await client.delete(f"/v1/conversations/{second}")
    await client.delete("/v1/users/cleo")
    assert [one["id"] for one in await whole(client)] == ["left"]
    assert rows(address, "SELECT id FROM golden_question") == [("left",)]


async def test_a_set_is_of_one_tenant_and_an_operators_affair(client: httpx.AsyncClient) -> None:
    headers = await admin_of(client, "other")
    theirs = await chat(client, headers=headers)
    made = await add(client, question(theirs, "D1:1"), tenant="other")
    assert made["questions"] == 1
    assert (await client.get("/v1/golden")).json()["data"] == []
    listed = await client.get("/v1/golden", params={"tenant": made["tenant"]})
    assert [one["name"] for one in listed.json()["data"]] == ["ours"]
    # Another tenant's conversation is not found.
    assert (await add(client, question(theirs, "D1:1")))["questions"] == 0
    for answer in (
        await client.get("/v1/golden", headers=headers),
        await client.post("/v1/golden", headers=headers, json={"name": "a", "owner": "b", "questions": []}),
        await client.delete("/v1/golden/ours", headers=headers),
    ):
        assert answer.status_code == 403
    missing = await client.get("/v1/golden", params={"tenant": "nobody"})
    assert missing.status_code == 404
    await make_tenant(client, "empty")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "has space"}, "name"),
        ({"owner": ""}, "owner"),
        ({"owner": "a\0"}, "owner"),
        ({"questions": [question("c", "e"), question("c", "e")]}, "questions[1].id"),
        ({"questions": [question("c")]}, "questions[0].evidence"),
        ({"questions": [question("c", "e\0")]}, "questions[0]"),
        ({"more": 1}, "more"),
    ],
)
async def test_a_wrong_field_is_named(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    answer = await client.post("/v1/golden", json={"name": "ours", "owner": "ida", "questions": []} | body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["param"].startswith(param)


async def test_two_operators_at_once_make_one_set(client: httpx.AsyncClient) -> None:
    at = await chat(client)
    made = await asyncio.gather(*(add(client, question(at, f"D1:{number % 3 + 1}")) for number in range(12)))
    assert max(one["version"] for one in made) == (await client.get("/v1/golden/ours")).json()["version"]
    assert len(await whole(client)) == 1


def locomo(path: Path) -> Path:
    turns = [{"speaker": "Ida", "dia_id": f"D1:{number}", "text": text} for number, text in enumerate(TEXTS, 1)]
    conversation = {
        "speaker_a": "Ida",
        "speaker_b": "Tom",
        "session_1_date_time": "1:56 pm on 8 May, 2023",
        "session_1": turns,
    }
    asked = [
        {"question": "Where to?", "answer": "Lisbon", "evidence": ["D1:1"], "category": 4},
        {"question": "Who?", "answer": "nobody", "evidence": ["D7:7"], "category": 1},
    ]
    path.write_text(json.dumps([{"sample_id": "chat-1", "conversation": conversation, "qa": asked}]))
    return path


async def test_the_command_line_loads_what_it_imported(
    client: httpx.AsyncClient, server_url: str, admin_key: str, tmp_path: Path
) -> None:
    environment = {"TURNSTONE_URL": server_url, "TURNSTONE_KEY": admin_key, "TURNSTONE_DATA_DIR": str(tmp_path)}

    async def run(*arguments: str) -> Result:
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments, env=environment)
        assert result.exit_code == 0, result.output
        return result

    file = locomo(tmp_path / "chats.json")
    await run("import", "locomo", str(file))
    added = await run("golden", "add", str(file), "--owner", "ida")
    assert "left out chat-1:1: no evidence is named that its conversation has" in added.output
    assert "next: turnstone golden approve chats --version 1" in added.output
    approved = json.loads((await run("golden", "approve", "chats", "--version", "1", "--json")).stdout)
    assert approved["approved_by"].startswith("key_")
    shown = json.loads((await run("golden", "show", "chats", "--json")).stdout)
    assert (shown["question"], shown["category"]) == ("Where to?", "single-hop")
    lines = tmp_path / "more.jsonl"
    lines.write_text(json.dumps({"conversation": "chat-1", "question": "What colour?", "evidence": ["D1:3"]}) + "\n")
    more = json.loads((await run("golden", "add", str(lines), "--owner", "ida", "--name", "chats", "--json")).stdout)
    assert (more["version"], more["approved_by"], more["questions"]) == (2, None, 1)
    assert "chats" in (await run("golden", "list")).stdout
    await run("golden", "remove", "chats", "--yes")
    assert (await client.get("/v1/golden")).json()["data"] == []
    assert await new_conversation(client)


async def test_a_file_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_text('{"conversation": "a"}\n')
    arguments = ["golden", "add", str(file), "--owner", "ida"]
    result = await asyncio.to_thread(CliRunner().invoke, main, arguments, env={"TURNSTONE_DATA_DIR": str(tmp_path)})
    assert result.exit_code == 1
    assert "line 1" in result.output
