"""Search over HTTP: what is found, by whom, and how fresh."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import psycopg
import pytest

from server.database.address import EmbeddedAddress
from server.settings import Settings
from tests.api.test_access import admin_of
from tests.api.test_events import append, new_conversation
from tests.conftest import serving

STORY = (
    "I moved to Lisbon in the spring, right next to the river.",
    "My sister Greta plays the cello in an orchestra.",
    "We ordered a green sofa, the order number is ORD-4471.",
    "The climbing gym in the old harbour opens at seven.",
)


async def ask(client: httpx.AsyncClient, query: str, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/search", json={"query": query, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def ask_with_vectors(client: httpx.AsyncClient, query: str, conversation: str, **body: Any) -> dict[str, Any]:
    """Search when both legs know the whole conversation; a server that has just started opens its model first."""
    head = (await client.get(f"/v1/conversations/{conversation}/events?limit=1")).json()["head"]
    until = time.monotonic() + 10
    while True:
        answer = await ask(client, query, conversation_id=conversation, min_seq=head, **body)
        if "degraded" not in answer:
            return answer
        assert time.monotonic() < until, answer
        await asyncio.sleep(0.05)


def seqs(answer: dict[str, Any]) -> list[int]:
    return [one["seq"] for one in answer["data"]]


async def story(client: httpx.AsyncClient, user: str | None = "ada", *texts: str, **more: Any) -> str:
    conversation = await new_conversation(client, **({} if user is None else {"user": user}))
    assert (await append(client, conversation, *(texts or STORY), **more)).status_code == 201
    return conversation


async def test_it_finds_by_words_and_says_why(client: httpx.AsyncClient) -> None:
    conversation = await story(client)
    answer = await ask(client, "Which climbing gym is it?", user="ada", k=2)
    first = answer["data"][0]
    assert (first["conversation_id"], first["seq"]) == (conversation, 4)
    assert first["event"]["content"] == STORY[3]
    assert first["score"] == pytest.approx(sum(first["why"].values()), abs=0.01)
    assert first["why"]["coverage_turn"] > 0
    assert len(answer["data"]) == 2
    assert answer["stamps"]["search"] == "exact"


async def test_it_finds_by_meaning_what_shares_no_word(client: httpx.AsyncClient) -> None:
    conversation = await story(client, None, *STORY, "The dentist pulled out two teeth yesterday.")
    answer = await ask_with_vectors(client, "Who is a musician?", conversation)
    assert answer["data"][0]["seq"] == 2
    assert answer["data"][0]["why"]["dense"] > 0
    assert answer["stamps"]["embedding"].startswith("wordllama-256 ")


async def test_an_acknowledged_event_is_found_at_once(client: httpx.AsyncClient) -> None:
    conversation = await story(client)
    for number in range(5):
        head = (await append(client, conversation, f"The password of door {number} is swordfish{number}.")).json()[
            "head"
        ]
        assert (await ask(client, f"swordfish{number}", user="ada"))["data"][0]["seq"] == head
        with_vectors = await ask_with_vectors(client, f"swordfish{number}", conversation)
        assert with_vectors["data"][0]["seq"] == head
        assert with_vectors["data"][0]["why"]["dense"] > 0


async def test_two_servers_see_each_others_writes_and_erasures(
    client: httpx.AsyncClient, servers: Callable[[], Awaitable[httpx.AsyncClient]]
) -> None:
    other = await servers()
    conversation = await story(client)
    assert 3 in seqs(await ask(other, "green sofa", user="ada"))
    head = (await append(client, conversation, "The sofa was blue after all.")).json()["head"]
    assert head in seqs(await ask(other, "blue sofa", user="ada"))
    for event in (await client.get(f"/v1/conversations/{conversation}/events")).json()["data"]:
        if "sofa" in event["content"]:
            erased = await client.delete(f"/v1/conversations/{conversation}/events/{event['id']}")
            assert erased.status_code == 200
    for server in (client, other):
        answer = await ask(server, "sofa", user="ada", explain=True)
        assert not {3, head} & set(seqs(answer))
        assert answer["explain"]["words"] == [{"word": "sofa", "events": 0}]
    assert (await client.delete(f"/v1/conversations/{conversation}")).status_code == 200
    for server in (client, other):
        assert (await ask(server, "Lisbon", user="ada"))["data"] == []
        gone = await server.post("/v1/search", json={"query": "Lisbon", "conversation_id": conversation})
        assert gone.status_code == 404


async def test_nobody_finds_what_is_anothers(client: httpx.AsyncClient) -> None:
    await story(client, "ada", "The secret word is xylophone.")
    alone = await story(client, None, "The secret word is zeppelin.")
    await story(client, "bob", "Nothing is secret here.")
    for query in ("secret word xylophone", "zeppelin"):
        answer = await ask(client, query, user="bob", k=1000, explain=True)
        assert [one["event"]["content"] for one in answer["data"]] in ([], ["Nothing is secret here."])
        assert all(word["events"] == 0 for word in answer["explain"]["words"] if word["word"] != "secret")
    assert (await ask(client, "xylophone", user="nobody"))["data"] == []
    only = await ask(client, "xylophone", conversation_id=alone)
    assert [one["event"]["content"] for one in only["data"]] in ([], ["The secret word is zeppelin."])
    headers = await admin_of(client, "other")
    for body in ({"user": "ada"}, {"conversation_id": alone}):
        theirs = await client.post("/v1/search", json={"query": "secret", **body}, headers=headers)
        assert theirs.status_code == 404 or theirs.json()["data"] == []


async def test_a_fork_shows_the_shared_past_and_its_own_only(client: httpx.AsyncClient) -> None:
    conversation = await story(client)
    fork = (await client.post(f"/v1/conversations/{conversation}/fork", json={"at_seq": 2})).json()["id"]
    await append(client, fork, "In this branch I moved to Porto.")
    await append(client, conversation, "In the trunk I moved to Faro.")
    assert set(seqs(await ask(client, "moved orchestra sofa gym", conversation_id=fork, k=50))) == {1, 2, 3}
    found = await ask(client, "moved to Porto", conversation_id=fork, k=50)
    assert found["data"][0]["event"]["content"] == "In this branch I moved to Porto."
    assert {one["conversation_id"] for one in found["data"]} == {fork}
    trunk = await ask(client, "moved to Porto or Faro", conversation_id=conversation, k=50)
    assert all("Porto" not in one["event"]["content"] for one in trunk["data"])
    # The user sees both, each event once.
    contents = [one["event"]["content"] for one in (await ask(client, "moved", user="ada", k=50))["data"]]
    assert len(contents) == len(set(contents))
    assert {"In this branch I moved to Porto.", "In the trunk I moved to Faro."} <= set(contents)
    # What a deleted trunk shares with its fork stays, under the fork's name.
    await client.delete(f"/v1/conversations/{conversation}")
    left = await ask(client, "moved to Lisbon", user="ada", k=50)
    assert {one["conversation_id"] for one in left["data"]} == {fork}
    assert set(seqs(left)) <= {1, 2, 3}


async def test_a_fork_of_a_conversation_that_stands_alone(client: httpx.AsyncClient) -> None:
    conversation = await story(client, None)
    fork = (await client.post(f"/v1/conversations/{conversation}/fork", json={"at_seq": 4})).json()["id"]
    assert seqs(await ask(client, "climbing gym", conversation_id=fork, k=1)) == [4]


async def test_filters(client: httpx.AsyncClient) -> None:
    conversation = await new_conversation(client, user="ada")
    events = [
        {"role": "user", "content": "tea is fine", "occurred_at": "2026-01-01T10:00:00Z", "session": "one"},
        {"role": "assistant", "content": "tea it is", "occurred_at": "2026-01-02T10:00:00Z", "metadata": {"a": 1}},
        {"role": "user", "content": "more tea", "occurred_at": "2026-01-03T10:00:00Z", "metadata": {"a": 1, "b": [{}]}},
        {"type": "tool_call", "call_id": "c", "name": "kettle", "content": {"drink": "tea"}},
    ]
    await client.post(f"/v1/conversations/{conversation}/events", json={"events": events})
    other = await story(client, "ada", "tea elsewhere")
    somebody = await story(client, "bob", "tea of somebody else")

    async def found(**filters: Any) -> set[tuple[str, int]]:
        answer = await ask(client, "tea", user="ada", k=50, filters=filters)
        return {(one["conversation_id"], one["seq"]) for one in answer["data"]}

    assert await found() == {(conversation, seq) for seq in (1, 2, 3, 4)} | {(other, 1)}
    assert await found(roles=["assistant"]) == {(conversation, 2)}
    assert await found(types=["tool_call"]) == {(conversation, 4)}
    between = {"occurred_after": "2026-01-02T10:00:00Z", "occurred_before": "2026-01-03T10:00:00+00:00"}
    assert await found(**between) == {(conversation, 2)}
    assert await found(sessions=["one"]) == {(conversation, 1)}
    assert await found(metadata={"a": 1}) == {(conversation, 2), (conversation, 3)}
    assert await found(metadata={"a": 1, "b": [{}]}) == {(conversation, 3)}
    assert await found(metadata={"a": "1"}) == set()
    assert await found(conversations=[other]) == {(other, 1)}
    assert await found(conversations=[somebody, "conv_x"]) == set()
    assert await found(conversations=[]) == set()
    assert await found(roles=[]) == set()
    assert await found(roles=["user"], conversations=[conversation], sessions=["one", "two"]) == {(conversation, 1)}


async def test_a_deleted_item_is_not_found(client: httpx.AsyncClient) -> None:
    conversation = await story(client)
    items = (await client.get(f"/v1/conversations/{conversation}/items")).json()["data"]
    sofa = next(item["id"] for item in items if "sofa" in str(item["content"]))
    assert 3 in seqs(await ask(client, "green sofa", user="ada"))
    assert (await client.delete(f"/v1/conversations/{conversation}/items/{sofa}")).status_code == 200
    assert 3 not in seqs(await ask(client, "green sofa", user="ada"))
    assert 3 not in seqs(await ask(client, "green sofa", conversation_id=conversation))


async def test_min_seq(client: httpx.AsyncClient) -> None:
    conversation = await story(client)
    answer = await client.post("/v1/search", json={"query": "x", "conversation_id": conversation, "min_seq": 5})
    assert (answer.status_code, answer.json()["error"]["param"]) == (409, "min_seq")
    assert answer.json()["error"]["head"] == 4
    fork = (await client.post(f"/v1/conversations/{conversation}/fork", json={"at_seq": 3})).json()["id"]
    await append(client, fork, "And here the fork goes on about clarinets.")
    assert (await ask_with_vectors(client, "music", fork))["stamps"]["embedding"]


async def test_without_its_model_a_search_goes_by_words_and_says_so(
    settings: Settings, address: EmbeddedAddress, admin_key: str
) -> None:
    with psycopg.connect(address.conninfo("admin")) as connection:
        connection.execute("UPDATE embedding_version SET model = 'no such model'")
    headers = {"authorization": f"Bearer {admin_key}"}
    async with (
        serving(settings, address) as url,
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client,
    ):
        conversation = await story(client)
        answer = await ask(client, "climbing gym", conversation_id=conversation, min_seq=4)
        assert answer["data"][0]["seq"] == 4
        assert answer["degraded"]["without"] == "vectors"
        assert answer["stamps"]["embedding"] is None
        assert (await ask(client, "quaternions", conversation_id=conversation))["data"] == []


async def test_languages(client: httpx.AsyncClient) -> None:
    texts = ("我们下周二在上海见面。", "Ich habe gestern neue Vorhänge gekauft.", "В субботу мы идём в театр.")
    await story(client, "ada", *texts, *STORY)
    for query, seq in (("上海", 1), ("Vorhang", 2), ("театре", 3)):
        assert (await ask(client, query, user="ada"))["data"][0]["seq"] == seq


async def test_a_kept_index_is_asked_for_nothing_but_its_state(client: httpx.AsyncClient) -> None:
    conversation = await story(client)
    await ask_with_vectors(client, "ready", conversation)
    answers = [await ask(client, "Which climbing gym is it?", user="ada") for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    figures = (await client.get("/metrics")).text
    assert 'turnstone_cache_hits_total{cache="search"}' in figures
    assert float(next(line.split()[-1] for line in figures.splitlines() if 'bytes{cache="search"}' in line)) > 0


@pytest.mark.parametrize("inline", [0.0, 1.0], ids=["embedded in a thread", "embedded on the loop"])
async def test_many_searches_and_appends_at_once(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, inline: float
) -> None:
    monkeypatch.setattr("server.search.search._INLINE", inline)
    conversation = await story(client)

    async def write(number: int) -> None:
        head = (await append(client, conversation, f"Note number{number} is about walnuts.")).json()["head"]
        assert head in seqs(await ask(client, f"number{number}", user="ada", k=3))

    await asyncio.gather(*(write(number) for number in range(40)))
    found = await ask(client, "walnuts", user="ada", k=1000)
    walnuts = [one["seq"] for one in found["data"] if "walnuts" in one["event"]["content"]]
    assert sorted(walnuts) == list(range(5, 45))
