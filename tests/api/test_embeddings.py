"""The migration of embeddings over REST: in order, on record, followed by every server, and taken back whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import httpx
import msgspec
import psycopg
import pytest

from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.embeddings import versions
from server.embeddings.lifecycle import commands
from server.embeddings.migration import control
from server.settings import Settings
from tests.api.test_access import admin_of, make_key
from tests.api.test_events import append
from tests.api.test_search import ask, ask_with_vectors, story
from tests.conftest import serving
from tests.operator_steps import BAD, CHEAP, Operator

WAIT = 0.3  # seconds, where the answer of a command waits for what will not come

Servers = Callable[[], Awaitable[httpx.AsyncClient]]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_DROPPING", WAIT)


@pytest.fixture
async def operator(client: httpx.AsyncClient, database: Database) -> Operator:
    return Operator(client, database)


def run(address: EmbeddedAddress, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else []


def relations(address: EmbeddedAddress) -> set[str]:
    found = run(address, r"SELECT tablename::text FROM pg_tables WHERE tablename ~ '^embedding_v\d+$'")
    return {name for (name,) in found}


@asynccontextmanager
async def another_server(
    address: EmbeddedAddress, *, release: str | None = None, epoch: int = 2**40
) -> AsyncIterator[None]:
    """A server that is alive, but none of ours."""
    run(
        address,
        "INSERT INTO server (id, hostname, pid, release, routing_epoch, lease_until) SELECT gen_random_uuid(), "
        "'elsewhere', 7, coalesce(%s, (SELECT max(release) FROM server)), %s, now() + interval '1 minute'",
        release,
        epoch,
    )
    try:
        yield
    finally:
        run(address, "DELETE FROM server WHERE hostname = 'elsewhere'")


async def test_a_version_is_added_by_what_its_model_answers(operator: Operator, address: EmbeddedAddress) -> None:
    before = await operator.epoch()
    done = await operator.add()
    assert (done["record"]["action"], done["record"]["version"], done["routing"]["epoch"]) == ("add", "new", before + 1)
    assert await operator.states() == {"wordllama-256": "active", "new": "draft"}
    listed = (await operator.client.get("/v1/embeddings/versions")).json()["data"]
    assert listed[0]["fingerprint"] == listed[1]["fingerprint"], "the same model, but another prefix"
    assert (listed[1]["query_prefix"], listed[1]["dimensions"]) == ("question: ", 256)
    assert relations(address) == {"embedding_v1"}, "nothing else changes"

    async def code(**body: Any) -> tuple[int, str | None, str | None]:
        answer = await operator.client.post("/v1/embeddings/versions", json=CHEAP | body)
        error = answer.json()["error"]
        return answer.status_code, error["code"], error["param"]

    assert await code(name="new", query_prefix="other: ") == (409, "name_taken", None)
    assert await code(name="newer") == (409, "same_space", None)
    assert await code(name="newer", model="nowhere") == (422, "invalid_input", "model")
    assert await code(name="newer", provider="nobody") == (422, "invalid_input", None)
    assert await code(name="newer", options={"key": "secret"}) == (422, "invalid_input", "options")
    assert await code(name="Newer!") == (422, "invalid_input", "name")
    assert await operator.states() == {"wordllama-256": "active", "new": "draft"}


async def test_only_operators_migrate(client: httpx.AsyncClient) -> None:
    theirs = await admin_of(client, "other")
    reader = {"authorization": f"Bearer {(await make_key(client, name='r', scopes=['read']))['key']}"}
    for headers in (theirs, reader):
        for method, path in (
            ("GET", "/v1/embeddings/versions"),
            ("POST", "/v1/embeddings/versions"),
            ("GET", "/v1/embeddings/migration"),
            ("GET", "/v1/embeddings/migration/history"),
            *(("POST", f"/v1/embeddings/migration/{step}") for step in ("plan", "start", "rollback", "compare")),
        ):
            answer = await client.request(method, path, headers=headers, json={})
            assert answer.status_code == 403, (method, path, answer.text)


async def test_steps_come_in_order(operator: Operator, address: EmbeddedAddress) -> None:
    assert (await operator.refused("backfill"))["code"] == "no_migration"
    assert (await operator.refused("rollback"))["code"] == "nothing_to_roll_back"
    assert (await operator.refused("start", name="nobody"))["code"] == "no_such_version"
    await operator.add()
    assert (await operator.refused("compare"))["code"] == "no_migration"
    done = await operator.step("start", name="new")
    assert done["routing"]["written"] == ["wordllama-256", "new"]
    assert done["behind"] == []
    assert relations(address) == {"embedding_v1", "embedding_v2"}
    assert (await operator.refused("verify"))["code"] == "wrong_state"
    assert (await operator.refused("shadow", percent=10))["code"] == "wrong_state"
    status = await operator.status()
    steps = {step["command"]: step for step in status["steps"]}
    assert (steps["backfill"]["allowed"], steps["rollback"]["allowed"]) == (True, True)
    assert (steps["cutover"]["allowed"], steps["cutover"]["code"]) == (False, "wrong_state")
    assert status["running"]["state"] == "writing"
    await operator.step("backfill")
    assert (await operator.step("pause", reason="the sale"))["routing"]["paused"] is True
    assert (await operator.refused("verify"))["code"] == "paused"
    await operator.step("resume")
    await operator.backfilled()
    await operator.step("verify")
    assert (await operator.refused("ramp", percent=5))["code"] == "wrong_state"
    await operator.step("shadow", percent=0.5)
    assert (await operator.status())["routing"]["shadow"] == 0.5
    assert (await operator.refused("ramp", percent=5))["code"] == "not_compared"
    await operator.compared(BAD)
    error = await operator.refused("ramp", percent=5)
    assert (error["code"], error["gates"][-1]["name"]) == ("gates_failed", "recall")
    assert "it finds less" in error["message"]
    assert (await operator.refused("cutover", force="they insist"))["code"] == "wrong_state"
    await operator.step("ramp", percent=5, force="they insist")
    last = (await operator.history())[-1]
    assert (last["forced"], last["done"]) == ("they insist", True)
    await operator.step("rollback", reason="they do not")


async def test_two_operators_at_once_do_not_undo_each_other(
    operator: Operator, servers: Servers, database: Database
) -> None:
    """They press at one moment, on two servers: the row lets one of them through, and tells the other why."""
    other = Operator(await servers(), database)
    await operator.add("one")
    await operator.add("two", query_prefix="ask: ")
    await operator.followed()
    seen = await operator.epoch()
    answers = await asyncio.gather(
        *(who.post("start", name=name, epoch=seen) for who, name in ((operator, "one"), (other, "two")) for _ in "ab")
    )
    codes = sorted(answer.json()["error"]["code"] if answer.is_error else "started" for answer in answers)
    assert codes == ["stale_epoch"] * 3 + ["started"]
    running = [name for name, state in (await operator.states()).items() if state == "writing"]
    assert len(running) == 1
    # Who does not say what they saw is judged by what is there.
    answers = await asyncio.gather(*(who.post("start", name="one") for who in (operator, other)))
    assert {answer.json()["error"]["code"] for answer in answers} == {"migration_running"}
    answers = await asyncio.gather(*(who.post("rollback") for who in (operator, other, operator, other)))
    codes = sorted(answer.json()["error"]["code"] if answer.is_error else "back" for answer in answers)
    assert codes == ["back", *["nothing_to_roll_back"] * 3]
    actions = [line["action"] for line in await operator.history()]
    assert actions == ["add", "add", "start", "rollback"], "each change stands once in the history"
    epochs = [line["epoch"] for line in await operator.history()]
    assert epochs == sorted(set(epochs))


async def test_every_server_follows_a_flip_within_a_second(
    operator: Operator, servers: Servers, database: Database
) -> None:
    other = Operator(await servers(), database)
    conversation = await story(operator.client)
    await operator.to("compared")
    for who in (operator, other):
        await ask_with_vectors(who.client, "ready?", conversation)
    await operator.step("ramp", percent=0.01)

    async def served_by(name: str, since: float) -> float:
        """Return how many seconds after a flip both servers answer by a version, and never by a third way."""
        while True:
            stamps = [(await ask(who.client, "Where is the gym?", user="ada"))["stamps"] for who in (operator, other)]
            assert all(stamp["embedding"] is not None for stamp in stamps), "a search was answered without vectors"
            found = [stamp["embedding"].split()[0] for stamp in stamps]
            if found == [name] * 2:
                return time.monotonic() - since
            assert set(found) <= {"new", "wordllama-256"}
            await asyncio.sleep(0.01)

    for action, name in (("cutover", "new"), ("rollback", "wordllama-256")):
        began = time.monotonic()
        flip = asyncio.create_task(operator.step(action))
        assert await served_by(name, began) < 1.0
        done = await flip
        assert done["behind"] == []
        assert time.monotonic() - began < 2.0


async def test_a_rollback_leaves_no_trace(operator: Operator, address: EmbeddedAddress, database: Database) -> None:
    conversation = await story(operator.client)
    before, routing = await operator.status(), (await versions.read(database)).routing
    assert routing is not None
    answered = await ask_with_vectors(operator.client, "Who is a musician?", conversation)
    await operator.to("holding")
    assert (await operator.status())["active"]["name"] == "new"
    await append(operator.client, conversation, "My brother tunes pianos for a living.")
    during = await ask_with_vectors(operator.client, "Who is a musician?", conversation)
    assert during["stamps"]["embedding"].startswith("new ")
    await operator.step("rollback", reason="enough")
    after = await operator.status()
    assert after["routing"] | {"epoch": 0} == before["routing"] | {"epoch": 0}
    assert after["active"]["state"] == "active"
    restored = (await versions.read(database)).routing
    assert restored == msgspec.structs.replace(routing, epoch=after["routing"]["epoch"]), "weights and salt included"
    assert await operator.states() == {"wordllama-256": "active", "new": "draft"}
    again = await ask_with_vectors(operator.client, "Who is a musician?", conversation, k=10)
    assert again["stamps"] == answered["stamps"]
    vectors = run(address, "SELECT count(*) FROM embedding_v1")
    assert vectors == [(5,)], "the old version was written all the time"
    # A draft that was given up can be tried again, with the vectors that it has, or dropped.
    await operator.step("start", name="new")
    await operator.step("rollback")
    assert (await operator.refused("contract", name="new", confirm="old"))["code"] == "name_not_typed"
    done = await operator.step("contract", name="new", confirm="new")
    assert (done["dropped"], relations(address)) == (True, {"embedding_v1"})
    assert run(address, "SELECT count(*) FROM embedding_progress WHERE version = 2") == [(0,)]


async def test_a_server_of_another_release_stops_what_it_may_not_know(
    operator: Operator, address: EmbeddedAddress
) -> None:
    await operator.add()
    async with another_server(address, release="0.0.1"):
        error = await operator.refused("start", name="new")
        assert error["code"] == "mixed_releases"
        assert "elsewhere:7 (0.0.1)" in error["message"]
    await operator.step("start", name="new")
    async with another_server(address, release="0.0.1"):
        assert (await operator.refused("backfill"))["code"] == "mixed_releases"
        await operator.step("rollback")
    await operator.step("start", name="new")
    async with another_server(address, epoch=0):
        error = await operator.refused("backfill")
        assert (error["code"], "elsewhere:7 (epoch 0)" in error["message"]) == ("servers_behind", True)
        answer = await operator.step("rollback")
        assert answer["behind"] == ["elsewhere:7"], "a rollback waits for nobody, and says who has not followed"


async def test_the_history_says_who_when_and_on_what(operator: Operator, database: Database) -> None:
    began = datetime.now().astimezone()
    await operator.to("holding")
    keys = (await operator.client.get("/v1/keys")).json()["data"]
    admin = next(key for key in keys if "admin" in key["scopes"])
    lines = await operator.history()
    assert [line["action"] for line in lines] == [
        *("add", "start", "backfill", "verify", "shadow", "compare", "ramp", "cutover")
    ]
    assert {line["who"] for line in lines if line["action"] not in ("verify", "compare")} == {
        f"{admin['name']} ({admin['id']})"
    }
    assert [line["epoch"] for line in lines] == sorted(line["epoch"] for line in lines)
    assert all(began < datetime.fromisoformat(line["at"]) for line in lines)
    assert [gate["name"] for gate in lines[-1]["gates"]] == ["coverage", "coverage"], "what a cutover rested on"
    await operator.give(commands.Estimate(name="new", figures={"texts": 12.0, "rate": float("nan")}))
    (newest,) = await operator.history(newest=1, version="new")
    assert newest["figures"] == {"texts": 12.0}
    assert await operator.history(version="wordllama-256") == []


async def test_a_refusal_for_figures_is_on_record(operator: Operator) -> None:
    await operator.to("shadowing")
    await operator.compared(BAD)
    await operator.refused("ramp", percent=5)
    last = (await operator.history())[-1]
    assert (last["action"], last["done"], last["gates"][-1]["outcome"]) == ("ramp", False, "fail")


async def test_the_old_version_is_kept_for_the_grace_period(operator: Operator) -> None:
    await operator.to("holding")
    error = await operator.refused("contract", name="wordllama-256", confirm="wordllama-256")
    assert error["code"] == "grace_period"
    assert (await operator.status())["routing"]["written"] == ["wordllama-256", "new"]


async def test_a_drop_that_was_interrupted_is_finished(
    settings: Settings, address: EmbeddedAddress, operator: Operator, servers: Servers, database: Database
) -> None:
    """The old version is dropped once every live server follows; whoever is there later does it."""
    await operator.to("holding")
    run(address, "UPDATE embedding_version SET state_since = now() - interval '73 hours'")
    conversation = await story(operator.client)
    await ask_with_vectors(operator.client, "ready?", conversation)
    async with another_server(address, epoch=await operator.epoch()):
        done = await operator.step("contract", name="wordllama-256", confirm="wordllama-256")
        assert (done["dropped"], done["behind"]) == (False, ["elsewhere:7"])
        assert relations(address) == {"embedding_v1", "embedding_v2"}, "a server may be writing it still"
        assert await operator.states() == {"wordllama-256": "dropped", "new": "active"}
        # It is no more written here, and everything else goes on.
        await append(operator.client, conversation, "One more.")
        await ask_with_vectors(operator.client, "ready?", conversation)
    deadline = time.monotonic() + 10
    while relations(address) != {"embedding_v2"}:
        assert time.monotonic() < deadline, "the relation was not dropped once nobody was behind"
        await asyncio.sleep(0.05)
    assert run(address, "SELECT count(*) FROM embedding_progress WHERE version = 1") == [(0,)]
    await ask_with_vectors(operator.client, "ready?", conversation)
    client = await servers()
    found = await ask_with_vectors(client, "Who is a musician?", conversation)
    assert found["stamps"]["embedding"].startswith("new ")
    assert (await client.delete(f"/v1/conversations/{conversation}")).status_code == 200
    await Operator(client, database).add("third", query_prefix="third: ")


QUESTIONS = 110


async def test_the_whole_way(settings: Settings, address: EmbeddedAddress, admin_key: str, database: Database) -> None:
    """From `add` to `contract`, measured and judged, while searches go on; back once, and over again."""
    settings = msgspec.structs.replace(settings, migration_grace_hours=0)
    headers = {"authorization": f"Bearer {admin_key}"}
    async with (
        serving(settings, address) as url,
        httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client,
    ):
        operator = Operator(client, database)
        words = [f"{a}{b}" for a in "bdfgklmnpr" for b in ("anter", "elbow", "ilden", "orvath", "umpin", "ysalt",
                 "arvel", "endor", "istra", "ovalk", "unnel", "yrrod")]  # fmt: skip
        conversations = []
        for number in range(3):
            texts = [f"The {word} stands in room {place}." for place, word in enumerate(words) if place % 3 == number]
            conversations.append(await story(client, f"user {number}", *texts))
        questions = [
            {
                "id": f"q{place}",
                "conversation": conversations[place % 3],
                "question": f"Where is the {word}?",
                "evidence": [await event_id(client, conversations[place % 3], place // 3 + 1)],
            }
            for place, word in enumerate(words[:QUESTIONS])
        ]
        failures: list[str] = []
        searching = asyncio.create_task(search_on(client, failures))
        await client.post("/v1/golden", json={"name": "rooms", "owner": "ida", "questions": questions})
        await operator.add()
        planned = await operator.step("plan", name="new")
        assert planned["record"]["figures"]["texts"] == len(words)
        await operator.step("start", name="new")
        await operator.step("backfill")
        await operator.backfilled()
        done = await operator.step("verify")
        assert {gate["outcome"] for gate in done["record"]["gates"]} == {"pass"}, done["record"]["gates"]
        await operator.step("shadow", percent=100)
        answer = await operator.step("compare")
        assert answer["passed"] is False, "nobody has approved the golden set"
        assert (await operator.refused("ramp", percent=10))["code"] == "gates_failed"
        await client.post("/v1/golden/rooms/approve", json={"version": 1})
        await asyncio.sleep(0.5)
        answer = await operator.step("compare")
        assert answer["passed"], answer["record"]["gates"]
        assert answer["report"]["asked"] == QUESTIONS
        gone = await client.delete(f"/v1/conversations/{conversations[0]}/events/{questions[0]['evidence'][0]}")
        assert gone.status_code == 200
        for version in ("embedding_v1", "embedding_v2"):
            assert run(address, f"SELECT count(*) FROM {version}") == [(len(words) - 1,)], version
        await operator.step("ramp", percent=50)
        served = {(await ask(client, "room", user=f"user {n}"))["stamps"]["embedding"].split()[0] for n in range(3)}
        assert served <= {"new", "wordllama-256"}
        await operator.step("cutover")
        await operator.step("rollback", reason="only to try it")
        assert (await operator.status())["active"]["name"] == "wordllama-256"
        await operator.step("start", name="new")
        await operator.step("backfill")
        await operator.backfilled()
        await operator.step("verify", sample=120)
        await operator.step("shadow", percent=100)
        await asyncio.sleep(0.5)
        answer = await operator.step("compare")
        assert answer["passed"], answer["record"]["gates"]
        await operator.step("ramp", percent=100)
        await operator.step("cutover")
        done = await operator.step("contract", name="wordllama-256", confirm="wordllama-256")
        assert (done["dropped"], relations(address)) == (True, {"embedding_v2"})
        assert await operator.states() == {"wordllama-256": "dropped", "new": "active"}
        searching.cancel()
        await asyncio.gather(searching, return_exceptions=True)
        assert failures == []
        actions = [line["action"] for line in await operator.history(version="new")]
        assert actions.count("cutover") == 2


async def event_id(client: httpx.AsyncClient, conversation: str, seq: int) -> str:
    found = await client.get(f"/v1/conversations/{conversation}/events?after_seq={seq - 1}&limit=1")
    return str(found.json()["data"][0]["id"])


async def search_on(client: httpx.AsyncClient, failures: list[str]) -> None:
    """Search without end; an answer that fails, is empty, or is made without vectors is a failure."""
    number = 0
    warm = False
    while True:
        number += 1
        body = {"query": f"Which one stands in room {number % 30}?", "user": f"user {number % 3}"}
        answer = await client.post("/v1/search", json=body)
        if answer.status_code != 200 or not answer.json()["data"]:
            failures.append(answer.text)
        elif "degraded" in answer.json():
            if warm:
                failures.append(answer.text)
        else:
            warm = True
        await asyncio.sleep(0.02)
