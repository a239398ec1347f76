"""The stored fold: the same residents in this process, after a restart, on another server, from any checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.context import checkpoints, folding, hot, reading
from server.context.hot import Hot, WorkingSets
from server.context.keeper import Keeper
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.tenant import Tenant
from server.log import erase
from server.log.append import Appender
from server.log.heads import Heads
from server.log.stored import StoredEvent
from server.working_set import checkpoint
from server.working_set.fold import Fold
from tests.database.stories import Story, plainly

LIMIT = 50_000_000


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as opened:
        yield opened


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make everything that comes in pieces come in small ones, so that a short story meets every seam."""
    monkeypatch.setattr(checkpoints, "EVERY_EVENTS", 5)
    monkeypatch.setattr(checkpoints, "PLACES", 2)
    monkeypatch.setattr(checkpoints, "MAX_GAP", 16)
    monkeypatch.setattr(folding, "PAGE", 7)
    monkeypatch.setattr(folding, "STRIDE", 3)
    monkeypatch.setattr(folding, "TOUCH_PAGE", 2)
    monkeypatch.setattr(reading, "TOUCH_PAGE", 2)
    monkeypatch.setattr(hot, "MAX_PENDING", 12)
    monkeypatch.setattr(hot, "NOW_EVENTS", 6)
    monkeypatch.setattr(hot, "_AHEAD", 20)
    monkeypatch.setattr(erase, "FORGOTTEN_EVERYWHERE", 0.0)


def same(found: Hot, fold: Fold, events: dict[int, StoredEvent]) -> None:
    assert found.fold.head == fold.head
    assert checkpoint.dump(found.fold) == checkpoint.dump(fold)
    for unit in fold.kept.residents:
        for part in unit.parts:
            assert found.events[part.seq] == events[part.seq]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.usefixtures("small")
async def test_every_way_to_a_fold_leads_to_the_same(
    seed: int, address: EmbeddedAddress, database: Database, tenant: Tenant, executor: ThreadPoolExecutor
) -> None:
    heads = Heads(database)
    # Two servers, of which each hears of its own appends only, and one that is started anew for every look.
    servers = [WorkingSets(database, heads, executor, LIMIT) for _ in range(2)]
    appenders = [Appender(database, on_append=[server.on_append]) for server in servers]
    story = Story(seed, address, database, tenant, appenders)
    await story.begin()
    for step in range(70):
        one = await story.go_on()
        fold, events = await plainly(database, tenant, one)
        restarted = WorkingSets(database, heads, executor, LIMIT)
        looking = [server for server in servers if story.random.random() < 0.5]
        for server in [*looking, restarted]:
            same(await server.get(tenant, one.id), fold, events)
        if step % 5 == 0 and fold.head:
            until = story.random.randint(0, fold.head - 1)
            then, events = await plainly(database, tenant, one, until)
            same(await restarted.as_of(tenant, one.id, until), then, events)
        if step % 9 == 0:
            await Keeper(database, executor).keep(tenant, one.id)
        if step % 4:  # checkpoints are written behind the reads, and may be late
            for server in [*servers, restarted]:
                await server.writer.drain()
    for server in servers:
        await server.drain()
