"""Serving by version: every answer is one version's, whole, whatever is flipped meanwhile, on every server."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.ids import user_key
from server.database.tenant import Tenant
from server.embeddings import versions as registry
from server.embeddings.lifecycle.routing import place
from server.search.asked import Asked
from tests.versions import Models, add_version, asked, embedded, lab, route, said, telling, told

USERS = tuple(f"user {number}" for number in range(12))
EACH = 20
WHOLE = 10_000
FOLLOWED = 1.0  # seconds within which every server follows a flip

Start = Callable[[], Awaitable[httpx.AsyncClient]]


class Versions(NamedTuple):
    old: int
    new: int

    def named(self, number: int) -> str:
        return "old" if number == self.old else "new"


class Seen(NamedTuple):
    """One answer: whose, when it was asked and answered, by which version."""

    user: str
    asked: float
    answered: float
    version: str


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    """Models of this test."""
    with telling(monkeypatch) as made:
        made.add("old")
        made.add("new")
        yield made


@pytest.fixture
async def versions(database: Database, address: EmbeddedAddress, tenant: Tenant, models: Models) -> Versions:
    """Two versions, of which the old one serves; each user's conversation tells of things of its own."""
    for number, user in enumerate(USERS):
        await said(database, tenant, user, [told(thing) for thing in range(number * EACH, (number + 1) * EACH)])
    made = Versions(add_version(address, "old", "active"), add_version(address, "new"))
    route(address, active=made.old, candidate=made.new, written=list(made), units={made.old: {}, made.new: {}})
    return made


async def search(client: httpx.AsyncClient, user: str, thing: int, versions: Versions) -> Seen:
    """Ask for a thing of a user; whoever answers, it is found, by one version's vectors, index and weights."""
    began = time.monotonic()
    answer = await client.post("/v1/search", json={"query": asked(thing), "user": user, "k": 3})
    ended = time.monotonic()
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert "degraded" not in found, found
    name = found["stamps"]["embedding"].split()[0]
    number = versions.old if name == "old" else versions.new
    assert found["stamps"]["plan"] == found["plan"]["version"] == f"plan/{number}", found["stamps"]
    assert found["data"][0]["seq"] == thing % EACH + 1, found
    return Seen(user, began, ended, name)


async def ready(client: httpx.AsyncClient, versions: Versions, name: str = "old") -> None:
    """Wait until a server that has just started answers by vectors; every model is open by then."""
    deadline = time.monotonic() + 20
    while True:
        answer = (await client.post("/v1/search", json={"query": asked(0), "user": USERS[0], "k": 3})).json()
        if "degraded" not in answer and (answer["stamps"]["embedding"] or "").startswith(name):
            return
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.05)


async def test_flips_under_searches_on_two_servers(
    client: httpx.AsyncClient, servers: Start, address: EmbeddedAddress, tenant: Tenant, versions: Versions
) -> None:
    clients = [client, await servers()]
    await embedded(address, *versions)
    for one in clients:
        await ready(one, versions)
    seen: list[Seen] = []
    stopped = asyncio.Event()

    async def ask(at: httpx.AsyncClient, number: int) -> None:
        while not stopped.is_set():
            number = (number + 7) % (len(USERS) * EACH)
            seen.append(await search(at, USERS[number // EACH], number, versions))

    tasks = [asyncio.create_task(ask(at, number)) for at in clients for number in range(0, 200, 50)]
    both = list(versions)
    old, new = versions
    flips: list[dict[str, Any]] = [
        {"ramp": WHOLE // 3},
        {"ramp": WHOLE},
        {"ramp": 0},
        {"ramp": WHOLE // 2},
        {"active": new, "candidate": None, "ramp": 0},  # cutover
        {"active": old, "candidate": None, "written": both},  # rollback
    ]
    flipped: list[tuple[float, dict[str, str]]] = []
    try:
        for columns in flips:
            await asyncio.to_thread(route, address, **columns)
            flipped.append((time.monotonic(), await who_reads_what(address, tenant, versions)))
            await asyncio.sleep(FOLLOWED + 0.3)
    finally:
        stopped.set()
        await asyncio.gather(*tasks)
    for number, (at, expected) in enumerate(flipped):
        until = flipped[number + 1][0] if number + 1 < len(flipped) else time.monotonic()
        after = [one for one in seen if one.asked > at + FOLLOWED and one.answered < until]
        assert len(after) > 10, "there is something to see between two flips"
        wrong = [one for one in after if one.version != expected[one.user]]
        assert wrong == [], (flips[number], wrong[:3])
    assert Counter(one.version for one in seen).keys() == {"old", "new"}
    halves = [Counter(expected.values()) for _, expected in flipped]
    assert halves[1] == {"new": 12}
    assert set(halves[3]) == {"old", "new"}


async def who_reads_what(address: EmbeddedAddress, tenant: Tenant, versions: Versions) -> dict[str, str]:
    """Return which version the routing gives each user, by the rule of the ramp alone."""
    database = Database(address)
    await database.open()
    try:
        routing = (await registry.read(database)).routing
    finally:
        await database.close()
    assert routing is not None
    keys = {user: user_key(tenant.salt, "user", user) for user in USERS}
    ramped = {user for user, key in keys.items() if routing.candidate and place(routing, key) < routing.ramp}
    return {user: "new" if user in ramped else versions.named(routing.active) for user in USERS}


async def test_a_user_stays_where_it_is_in_every_door(
    client: httpx.AsyncClient, servers: Start, address: EmbeddedAddress, tenant: Tenant, versions: Versions
) -> None:
    other = await servers()
    await embedded(address, *versions)
    route(address, ramp=WHOLE // 2)
    expected = await who_reads_what(address, tenant, versions)
    assert set(expected.values()) == {"old", "new"}
    for at in (client, other):
        await ready(at, versions, expected[USERS[0]])
        for number, user in enumerate(USERS):
            assert (await search(at, user, number * EACH + 3, versions)).version == expected[user]
            listed = (await at.get("/v1/conversations", params={"user": user})).json()["data"]
            conversation = listed[0]["id"]
            body = {"query": asked(number * EACH), "conversation_id": conversation}
            alone = (await at.post("/v1/search", json=body)).json()
            assert alone["stamps"]["embedding"].split()[0] == expected[user]
            body = {"query": asked(number * EACH), "scope": "user"}
            context = (await at.post(f"/v1/conversations/{conversation}/context", json=body)).json()
            assert context["stamps"]["search"]["embedding"].split()[0] == expected[user]
        # Who searches across users is answered by the version that holds everybody.
        wide = (await at.post("/v1/search", json={"query": asked(5), "scope": "tenant"})).json()
        assert wide["stamps"]["embedding"].split()[0] == "old"
        assert wide["data"][0]["seq"] == 6


async def test_a_search_ends_under_the_epoch_that_it_began_under(
    database: Database, address: EmbeddedAddress, tenant: Tenant, models: Models, versions: Versions
) -> None:
    async with lab(database) as made:
        await embedded(address, *versions)
        route(address, ramp=WHOLE)
        await made.follow()
        gate = models.by_name["new"].gate
        gate.clear()
        models.by_name["new"].waits.clear()
        question = Asked(query=asked(4), k=3, user=USERS[0])
        begun = asyncio.create_task(made.searcher.search(tenant, question))
        assert await asyncio.to_thread(models.by_name["new"].waits.wait, 20)
        route(address, candidate=None, ramp=0, written=[versions.old], units={versions.old: {}})
        await made.follow()
        assert [version.name for version in made.embedder.registered.written] == ["old"]
        now = await made.searcher.search(tenant, question)
        assert (now.stamps.embedding or "").startswith("old ")
        assert not begun.done()
        gate.set()
        then = await begun
        assert (then.stamps.embedding or "").startswith("new ")
        assert then.stamps.plan == f"plan/{versions.new}"
        assert then.data[0].seq == now.data[0].seq == 5


async def test_min_seq_waits_for_the_vectors_of_the_version_that_answers(
    client: httpx.AsyncClient, address: EmbeddedAddress, versions: Versions
) -> None:
    await embedded(address, *versions)
    route(address, ramp=WHOLE)
    await ready(client, versions, "new")
    listed = (await client.get("/v1/conversations", params={"user": USERS[1]})).json()["data"]
    conversation = listed[0]["id"]
    body = {"events": [{"role": "user", "content": told(200)}]}
    head = (await client.post(f"/v1/conversations/{conversation}/events", json=body)).json()["head"]
    question = {"query": asked(200), "conversation_id": conversation, "min_seq": head, "k": 1}
    found = (await client.post("/v1/search", json=question)).json()
    assert (found["data"][0]["seq"], found["stamps"]["embedding"].split()[0]) == (head, "new")
    assert found["data"][0]["why"]["dense"] > 0
