"""EXPLAIN of a search: what it says over HTTP, and how the command shows it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httpx

from tests.api.test_events import append
from tests.api.test_search import STORY, ask, ask_with_vectors, seqs, story


async def explained(client: httpx.AsyncClient, query: str, conversation: str, **body: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await ask_with_vectors(client, query, conversation, explain=True, **body))["explain"]
    return found


async def test_stages_words_and_times(client: httpx.AsyncClient) -> None:
    conversation = await story(client, None)
    shown = await explained(client, "Which climbing gym opens at seven?", conversation)
    assert {"word": "climbing", "events": 1} in shown["words"]
    stages = {stage["name"]: stage for stage in shown["stages"]}
    assert {"lexical", "dense", "coverage"} <= set(stages)
    best = stages["lexical"]["best"][0]
    assert (best["conversation_id"], best["seq"]) == (conversation, 4)
    assert {"catch_up", "classify", "embed", "lexical", "dense", "fusion", "read"} <= set(shown["seconds"])
    assert (shown["searched"], shown["ranked"]) == (4, 4)


async def test_why_not(client: httpx.AsyncClient) -> None:
    conversation = await story(client, "ada", *STORY, "x")
    other = await story(client, "bob")
    run = {"type": "run", "run_id": "r", "content": {"state": "started"}}
    await client.post(f"/v1/conversations/{conversation}/events", json={"events": [run]})
    erased = (await append(client, conversation, "gone soon")).json()["events"][0]
    await client.delete(f"/v1/conversations/{conversation}/events/{erased['id']}")
    asked = [(conversation, seq) for seq in (4, 1, 6, 7, 99)] + [(other, 1), ("conv_" + "0" * 48, 1)]
    why_not = [{"conversation_id": one, "seq": seq} for one, seq in asked]
    shown = await explained(client, "Which climbing gym is it?", conversation, k=1, why_not=why_not)
    missed = shown["why_not"]
    reasons = ["answered", "ranked", "not_indexed", "not_indexed", "outside", "outside", "outside"]
    assert [one["reason"] for one in missed] == reasons
    assert missed[0]["because"] == "It is answer 1."
    ranked = missed[1]
    assert ranked["score"] < ranked["cutoff"]
    assert f"k of {ranked['k_needed']} would bring it" in ranked["because"]
    answer = await ask_with_vectors(client, "Which climbing gym is it?", conversation, k=ranked["k_needed"])
    assert seqs(answer)[-1] == 1
    only = {"roles": ["assistant"]}
    filtered = await explained(client, "gym", conversation, filters=only, why_not=why_not[:1])
    assert filtered["why_not"][0]["reason"] in ("filtered", "not_pooled")
    # What is another's is told from what does not exist by nobody.
    assert missed[5]["because"] == missed[6]["because"]


async def test_types_and_what_they_change(client: httpx.AsyncClient) -> None:
    conversation = await story(client, None, *STORY, "My order number is ORD-9000 now.")
    answer = await ask(client, "What is ORD-4471?", conversation_id=conversation, explain=True)
    assert answer["type"] == "verbatim"
    assert answer["data"][0]["seq"] == 3
    assert answer["data"][0]["why"]["phrase"] > 0
    assert any("ORD-4471" in change for change in answer["plan"]["changes"])
    recent = await ask(client, "What did I just say?", conversation_id=conversation, k=2, explain=True)
    assert (recent["type"], seqs(recent)) == ("recency", [5, 4])
    assert recent["explain"]["cues"][0]["cue"] == "just said"
    state = await ask(client, "What is my current order number?", conversation_id=conversation, k=5)
    assert state["type"] == "state"
    assert state["data"][0]["seq"] == 5
    forced = await ask(client, "order number", conversation_id=conversation, type="overview", k=3, explain=True)
    assert forced["explain"]["forced"]
    assert seqs(forced) == sorted(seqs(forced))


async def test_a_named_time_is_preferred(client: httpx.AsyncClient) -> None:
    conversation = (await client.post("/v1/conversations", json={"user": "ada"})).json()["id"]
    days = ("2026-03-02", "2026-03-09", "2026-03-16", "2026-03-23")
    events = [{"role": "user", "content": "We had tea.", "occurred_at": f"{day}T10:00:00Z"} for day in days]
    await client.post(f"/v1/conversations/{conversation}/events", json={"events": events})
    for question, seq in (("What did we drink last week?", 3), ("What did we have on 9 March 2026?", 2)):
        answer = await ask(client, question, user="ada")
        assert answer["type"] == "temporal"
        assert answer["data"][0]["seq"] == seq, question


async def test_the_command_shows_a_tree(client: httpx.AsyncClient) -> None:
    conversation = await story(client, "ada")
    command = [sys.executable, "-m", "server.cli", "explain", "Which climbing gym is it?"]
    key = client.headers["authorization"].removeprefix("Bearer ")
    command += ["--url", str(client.base_url), "--key", key]

    async def run(*options: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *command, *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        return await process.wait(), (await process.stdout.read()).decode() if process.stdout else ""

    status, shown = await run("--conversation", conversation, "--why-not", "1", "-k", "2")
    assert status == 0, shown
    for part in ("type default", "plan hybrid", "1. #4", STORY[3][:40], "why not #1", "milliseconds"):
        assert part in shown
    assert max(map(len, shown.splitlines())) <= 80
    status, shown = await run("--user", "ada")
    assert (status, conversation in shown) == (0, True)
    status, shown = await run()
    assert (status, "--user" in shown) == (2, True)
