"""Shadow reads: both versions answer, what is served is the one's alone, and what is kept goes with what it names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest

from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.ids import ConversationId, uuid7
from server.database.tenant import Tenant
from server.embeddings.lifecycle.routing import Routing
from server.embeddings.migration import comparisons
from server.embeddings.migration.comparisons import Comparison
from server.log import erase
from server.log.append import Appender
from server.log.events import NewEvent
from server.retrieval.index import Index
from server.retrieval.turns import Entry
from server.search import shadow as shadowing
from server.search.asked import Asked
from server.search.shadow import QUEUE, Shadow
from tests.versions import Lab, Models, add_version, asked, embedded, lab, route, rows, said, telling, told

ALL = 10_000  # basis points


class Two(NamedTuple):
    """A lab in which ``old`` serves and ``new`` is the candidate."""

    lab: Lab
    models: Models
    old: int
    new: int
    at: ConversationId


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    """Models of this test."""
    with telling(monkeypatch) as made:
        yield made


@pytest.fixture
async def two(database: Database, address: EmbeddedAddress, tenant: Tenant, models: Models) -> AsyncIterator[Two]:
    """Two versions with all vectors of a user's conversation, and every search shadowed."""
    models.add("old")
    models.add("new")
    at = await said(database, tenant, "ada", [told(thing) for thing in range(40)])
    old, new = add_version(address, "old", "active"), add_version(address, "new")
    route(address, active=old, candidate=new, written=[old, new], shadow=ALL, units={old: {}, new: {}})
    async with lab(database) as made:
        await embedded(address, old, new)
        await made.follow()
        yield Two(made, models, old, new, at)


def question(thing: int, at: ConversationId | None = None, **more: Any) -> Asked:
    user = "ada" if at is None else None
    return Asked(query=asked(thing), k=10, user=user, conversation=at, **more)


async def kept(two: Two) -> list[Comparison]:
    await two.lab.shadow.idle()
    found = await comparisons.read(two.lab.database, two.old, two.new)
    return [row for of_tenant in found.values() for row in of_tenant]


async def test_both_answers_are_kept_and_the_old_one_is_served(two: Two, tenant: Tenant) -> None:
    found = await two.lab.searcher.find(tenant, question(7))
    assert (found.reply.stamps.embedding or "").startswith("old ")
    assert found.reply.stamps.plan == f"plan/{two.old}"
    assert found.reply.data[0].seq == 8
    (row,) = await kept(two)
    name = f"{two.at}:8"
    assert (row.old_dense[0], row.new_dense[0], row.old_final[0], row.new_final[0]) == (name,) * 4
    assert (row.old_version, row.new_version, row.conversation, row.error) == (two.old, two.new, None, None)
    assert row.user_key == two.at.user_key
    assert {"all", "type=default", "tenant=default", "language=english", "length=1-64"} == set(row.segments)
    assert row.question is None
    assert row.old_ms > 0
    assert row.new_ms > 0
    assert two.lab.shadow.answered == 1


async def test_the_question_is_kept_only_where_that_is_allowed(two: Two, database: Database, tenant: Tenant) -> None:
    shadow = Shadow(database, keep_text=True)
    two.lab.searcher._shadow = two.lab.shadow = shadow
    await two.lab.searcher.find(tenant, question(3, two.at))
    (row,) = await kept(two)
    assert (row.question, row.conversation) == (asked(3), two.at.uuid)


async def test_whom_the_ramp_has_is_answered_by_the_candidate_and_shadowed_by_the_old_version(
    two: Two, address: EmbeddedAddress, tenant: Tenant
) -> None:
    route(address, ramp=ALL)
    await two.lab.follow()
    found = await two.lab.searcher.find(tenant, question(7))
    assert (found.reply.stamps.embedding or "").startswith("new ")
    assert found.reply.stamps.plan == f"plan/{two.new}"
    (row,) = await kept(two)
    assert (row.old_version, row.new_version) == (two.old, two.new)
    assert row.new_final == tuple(f"{two.at}:{one.seq}" for one in found.reply.data)


@pytest.mark.parametrize("share", [0, 1, 500, 3_333, ALL])
def test_the_share_is_exact(database: Database, share: int) -> None:
    routing = Routing(epoch=1, active=1, candidate=2, salt=b"", written=(1, 2), units=(), shadow=share)
    shadow = Shadow(database)
    sampled = [shadow.samples(routing) for _ in range(ALL)]
    assert sum(sampled) == share
    if share == 500:  # spread evenly: not the first of each hundred
        assert all(3 <= sum(sampled[start : start + 100]) <= 7 for start in range(0, ALL, 100))
    assert not any(shadow.samples(msgspec.structs.replace(routing, paused=True)) for _ in range(100))


async def test_nothing_is_shadowed_without_a_share(two: Two, address: EmbeddedAddress, tenant: Tenant) -> None:
    route(address, shadow=0)
    await two.lab.follow()
    for thing in range(5):
        await two.lab.searcher.find(tenant, question(thing))
    assert two.lab.shadow._task is None
    assert await kept(two) == []


async def test_a_candidate_that_fails_changes_nothing_and_is_counted(two: Two, tenant: Tenant) -> None:
    before = (await two.lab.searcher.find(tenant, question(5))).reply
    await two.lab.shadow.idle()
    two.models.by_name["new"].down = True
    after = (await two.lab.searcher.find(tenant, question(5))).reply
    assert msgspec.json.encode(after) == msgspec.json.encode(before)
    good, failed = await kept(two)
    assert (good.error, failed.error) == (None, "ProviderUnavailable")
    assert failed.new_final == ()
    assert (two.lab.shadow.answered, two.lab.shadow.errors) == (1, 1)
    counted = comparisons.shadowing([good, failed])
    assert counted is not None
    assert (counted.answered, counted.errors) == (1, 1)


async def test_a_candidate_that_hangs_keeps_nobody_waiting_and_the_queue_is_bounded(two: Two, tenant: Tenant) -> None:
    gate = two.models.by_name["new"].gate
    gate.clear()
    try:
        async with asyncio.timeout(20):
            for number in range(QUEUE + 10):
                found = await two.lab.searcher.find(tenant, question(number % 40))
                assert found.reply.data[0].seq == number % 40 + 1
    finally:
        gate.set()
    # One is being worked at, and so many wait.
    assert two.lab.shadow.dropped == 10 - 1
    found_rows = await kept(two)
    assert len(found_rows) == QUEUE + 1
    await two.lab.searcher.find(tenant, question(1))
    counted = comparisons.shadowing(await kept(two))
    assert counted is not None
    assert counted.dropped == 9


async def test_the_candidate_sees_what_the_served_answer_saw(
    two: Two, address: EmbeddedAddress, tenant: Tenant
) -> None:
    first = await two.lab.searcher.find(tenant, question(2, two.at))
    await two.lab.shadow.idle()
    later = asyncio.Event()

    async def hold() -> None:
        await later.wait()

    two.lab.shadow._task = asyncio.create_task(hold())
    served = await two.lab.searcher.find(tenant, question(2, two.at))
    # Before the candidate is asked, copies of the answer are told.
    copy = NewEvent(role="user", content=msgspec.Raw(msgspec.json.encode(told(2))))
    appended = await Appender(two.lab.database).append(tenant, two.at, [copy] * 3)
    two.lab.embedder.hint(tenant, two.at)
    await embedded(address, two.old, two.new)
    later.set()
    await two.lab.shadow._work()
    before, after = await kept(two)
    assert served.reply.data[0].seq == first.reply.data[0].seq == 3
    assert (after.new_final, after.new_dense) == (before.new_final, before.new_dense)
    now = await two.lab.searcher.find(tenant, question(2, two.at))
    assert appended.head in {one.seq for one in now.reply.data}


async def test_a_search_of_all_users_is_not_shadowed(two: Two, tenant: Tenant) -> None:
    reply = await two.lab.searcher.search(tenant, Asked(query=asked(4), k=5))
    assert (reply.stamps.embedding or "").startswith("old ")
    assert await kept(two) == []


async def test_what_is_erased_takes_the_comparisons_that_name_it_along(
    two: Two, address: EmbeddedAddress, tenant: Tenant
) -> None:
    for thing in (1, 30):
        await two.lab.searcher.find(tenant, question(thing, two.at))
    ranked = [set(row.old_final + row.new_final + row.old_dense + row.new_dense) for row in await kept(two)]
    only_first = next(iter(ranked[0] - ranked[1]))
    await erase.erase_event(two.lab.database, tenant, two.at, int(only_first.rpartition(":")[2]), actor="test")
    (left,) = await kept(two)
    assert only_first not in (*left.old_final, *left.new_final)
    # One that was under way while the event was erased is not kept either.
    late = msgspec.structs.replace(left, id=uuid7(), old_final=(only_first,))
    assert not await comparisons.store(two.lab.database, tenant, late)
    assert await comparisons.store(two.lab.database, tenant, msgspec.structs.replace(left, id=uuid7()))
    await erase.erase_conversation(two.lab.database, tenant, two.at, actor="test")
    assert rows(address, "SELECT count(*) FROM embedding_comparison") == [(0,)]
    assert not await comparisons.store(two.lab.database, tenant, msgspec.structs.replace(left, id=uuid7()))


async def test_the_newest_are_kept(two: Two, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparisons, "MOST", 20)
    monkeypatch.setattr(comparisons, "_THIN_EVERY", 10)
    await two.lab.searcher.find(tenant, question(1))
    (one,) = await kept(two)
    for _ in range(60):
        await comparisons.store(two.lab.database, tenant, msgspec.structs.replace(one, id=uuid7()))
    left = (await comparisons.read(two.lab.database, two.old, two.new, newest=1_000))[tenant.name]
    assert 20 <= len(left) <= 31
    assert one.id not in {row.id for row in left}
    await comparisons.forget(two.lab.database)
    assert await kept(two) == []


async def test_a_candidate_whose_model_fails_leaves_its_users_to_the_active_version(
    two: Two, address: EmbeddedAddress, tenant: Tenant
) -> None:
    route(address, ramp=ALL, shadow=0)
    await two.lab.follow()
    two.models.by_name["new"].down = True
    before = shadowing.INSTEAD._value.get()
    reply = await two.lab.searcher.search(tenant, question(6))
    assert (reply.stamps.embedding or "").startswith("old ")
    assert reply.stamps.plan == f"plan/{two.old}"
    assert reply.degraded is None
    assert reply.data[0].seq == 7
    assert shadowing.INSTEAD._value.get() == before + 1


async def test_the_index_of_a_second_version_begins_as_that_of_the_first(
    two: Two, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside vectors both hold the same, so the log is not read again; what is erased leaves both."""
    await two.lab.searcher.answer(tenant, question(1), two.lab.serving(two.old))
    added: list[int] = []
    add = Index.add

    def counted(self: Index, entries: Sequence[Entry], *rest: Any) -> None:
        added.append(len(entries))
        add(self, entries, *rest)

    monkeypatch.setattr(Index, "add", counted)
    await Appender(two.lab.database).append(tenant, two.at, [NewEvent(role="user", content=msgspec.Raw(b'"more"'))])
    found = await two.lab.searcher.answer(tenant, question(1), two.lab.serving(two.new))
    assert found.reply.data[0].seq == 2
    assert added == [1]
    await two.lab.searcher.answer(tenant, question(1), two.lab.serving(two.old))
    assert added == [1, 1]
    await erase.erase_event(two.lab.database, tenant, two.at, 2, actor="test")
    for version in (two.new, two.old):
        after = await two.lab.searcher.answer(tenant, question(1), two.lab.serving(version))
        assert 2 not in {one.seq for one in after.reply.data}
    assert sum(added) == 2
