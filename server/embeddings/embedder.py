"""The embedder of one process: follows the routing, and keeps a lane for each version that is written."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple
from uuid import UUID

from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId
from server.database.round_trip import Statement, round_trip
from server.database.tenant import Tenant
from server.embeddings import versions
from server.embeddings.lane import Lane
from server.embeddings.migration.dropping import drop_relations
from server.embeddings.model import Model
from server.embeddings.reporting import Reporter, Said
from server.embeddings.versions import Registered, Version
from server.errors import DatabaseUnavailable, EmbeddingError, ProviderUnavailable
from server.log.append import Committed

logger = logging.getLogger(__name__)

_LOOK: Final = 1.0  # seconds: within which a server learns of a migration, or that another server has ended
_LOOK_MIGRATING: Final = 0.4  # seconds: a flip is followed within a second
_LINGER: Final = 10.0  # seconds that a version that is written no more still answers those who had chosen it
_SWEEP: Final = 3600.0  # seconds: the longest that an event waits whose hint was lost
_STATE: Final = Statement("""
SELECT (SELECT epoch FROM embedding_routing), ARRAY(SELECT id::text FROM server WHERE lease_until > now()),
    own.routing_epoch, own.reading,
    EXISTS (SELECT FROM embedding_version v
            WHERE v.state = 'dropped' AND to_regclass('embedding_v' || v.id) IS NOT NULL)
FROM (VALUES (1)) one LEFT JOIN server own ON own.id = %(identity)s::uuid
""")


class Embedder:
    """Gives every text-bearing event its vectors, soon after its append and off its path."""

    def __init__(
        self, database: Database, *, identity: UUID | None = None, key: str | None = None, writes: bool = True
    ) -> None:
        self._database = database
        self._identity = identity
        self._reporter = Reporter(database, identity)
        self._key = key
        self._writes = writes
        self._lanes: dict[int, _Running] = {}
        self._ended: dict[int, _Running] = {}
        self._registered = Registered({}, None)
        self._ready = asyncio.Event()
        self._alive: frozenset[str] = frozenset()
        self._swept = time.monotonic()
        self._looking = asyncio.Lock()
        self._reading: Counter[int] = Counter()
        self._dropping: asyncio.Task[object] | None = None

    @property
    def registered(self) -> Registered:
        """The versions and the routing that this process follows."""
        return self._registered

    async def ready(self) -> None:
        """Return once the routing is known; the models may still be loading."""
        await self._ready.wait()

    def active(self) -> tuple[Version, Model]:
        """Return the version that serves reads, with its model. Raises ProviderUnavailable or ModelRefused."""
        version = self._registered.active
        if version is None:
            raise ProviderUnavailable("no embedding version is known yet", retry_after=1)
        return version, self.model(version.id)

    def model(self, version: int) -> Model:
        """Return the model of a version that is written. Raises ProviderUnavailable or ModelRefused."""
        return self._lane(version).model

    @contextmanager
    def reading(self, epoch: int) -> Iterator[None]:
        """Count a request as of the epoch that it chose its version at, to its end: no relation is dropped under it."""
        self._reading[epoch] += 1
        try:
            yield
        finally:
            self._reading[epoch] -= 1
            if not self._reading[epoch]:
                del self._reading[epoch]

    def on_append(self, committed: Committed) -> None:
        """Learn of events that have just been stored."""
        self.hint(committed.tenant, committed.conversation, committed.head - committed.base, committed.base)

    def hint(self, tenant: Tenant, conversation: ConversationId, events: int = 1, base: int = 0) -> None:
        """Say that a conversation has about so many new events after ``base``; a hint that is lost only costs time."""
        for lane, *_ in self._lanes.values():
            lane.hint(tenant, conversation, events, base)

    def sweep(self) -> None:
        """Look through all conversations soon: something was written of which nobody knows what."""
        for lane, *_ in self._lanes.values():
            lane.want_sweep()

    async def ensure(
        self,
        tenant: Tenant,
        wanted: Mapping[ConversationId, int],
        *,
        version: int | None = None,
        timeout: float = 5.0,  # noqa: ASYNC109
    ) -> None:
        """Return once the own events of each conversation up to a seq have vectors of a version, the active by default.

        What is missing is embedded ahead of everything else. ``wanted`` names owners: for a fork, its ancestors too,
        each up to what is shared. Raises ProviderUnavailable or ModelRefused when that cannot be: then the caller
        answers without vectors, and says so.
        """
        if version is None and self._registered.routing is not None:
            version = self._registered.routing.active
        if version is None:
            raise ProviderUnavailable("no embedding version is known yet", retry_after=1)
        await self._lane(version).ensure(tenant, wanted, timeout=timeout)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                except DatabaseUnavailable as error:
                    logger.debug("the routing cannot be looked at: %s", error)
                except Exception:
                    logger.exception("the embedding versions cannot be followed")
                await asyncio.sleep(_LOOK_MIGRATING if self._registered.migrating else _LOOK)
        finally:
            tasks: list[asyncio.Task[object]] = [one.task for one in (*self._lanes.values(), *self._ended.values())]
            if self._dropping is not None:
                tasks.append(self._dropping)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def look(self) -> None:
        """Follow what has changed, and say so. Raises DatabaseUnavailable."""
        async with self._looking:
            async with hot_connection(self._database) as connection:
                ((epoch, alive, *own, dropped),) = await round_trip(connection, [_STATE({"identity": self._identity})])
            if epoch is not None and (self._registered.routing is None or epoch != self._registered.routing.epoch):
                await self._follow()
            await self._end()  # before it is said: who waits for this server may drop the relation that they wrote
            stored = None if own[0] is None else Said(*own)
            await self._report(stored)
        ended = self._alive.difference(alive)
        self._alive = frozenset(alive)
        # Whoever ended may have left what only it had been told of.
        if ended or time.monotonic() - self._swept > _SWEEP:
            self._swept = time.monotonic()
            self.sweep()
        if dropped and (self._dropping is None or self._dropping.done()):
            self._dropping = asyncio.create_task(drop_relations(self._database), name="drop relations")
            self._dropping.add_done_callback(_say_if_failed)

    def _lane(self, version: int) -> Lane:
        running = self._lanes.get(version) or self._ended.get(version)
        if running is None:
            raise ProviderUnavailable("this embedding version is not known yet, or written no more", retry_after=1)
        return running.lane

    async def _follow(self) -> None:
        registered = await versions.read(self._database)
        written = {version.id: version for version in registered.written}
        for number in self._lanes.keys() - written.keys():
            self._ended[number] = self._lanes.pop(number)._replace(until=time.monotonic() + _LINGER)
        for number in written.keys() - self._lanes.keys():
            again = self._ended.pop(number, None)
            self._lanes[number] = again or self._begun(written[number])
        for number, running in self._lanes.items():
            running.lane.follow(written[number])
        self._registered = registered
        self._ready.set()

    def _begun(self, version: Version) -> _Running:
        lane = Lane(self._database, version, key=self._key, writes=self._writes)
        return _Running(lane, asyncio.create_task(lane.run(), name=f"embed {version.name}"))

    async def _end(self) -> None:
        """End the lanes that nothing needs any more: a request that chose a version before a rollback keeps it."""
        now, busy = time.monotonic(), self._earlier > 0
        over = [
            number
            for number, running in self._ended.items()
            if not busy or now > running.until or self._registered.versions[number].state == "dropped"
        ]
        tasks = [self._ended.pop(number).task for number in over]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _earlier(self) -> int:
        """How many requests began at an earlier epoch."""
        routing = self._registered.routing
        return sum(count for begun, count in self._reading.items() if routing is not None and begun < routing.epoch)

    def _can_serve(self) -> bool:
        """Whether the model of the version that is migrated to is open: users may be sent to it with the next step."""
        migrating = self._registered.migrating
        if migrating is not None and migrating.id in self._lanes:
            try:
                self.model(migrating.id)
            except EmbeddingError:
                return False
        return True

    async def _report(self, stored: Said | None) -> None:
        routing = self._registered.routing
        if routing is not None and stored is not None:
            await self._reporter.report(
                Said(routing.epoch if self._can_serve() else stored.epoch, self._earlier),
                stored,
                waiting=sum(running.lane.late for running in self._lanes.values()),
                migrating=self._registered.migrating is not None,
            )


class _Running(NamedTuple):
    lane: Lane
    task: asyncio.Task[None]
    until: float = 0.0


def _say_if_failed(task: asyncio.Task[object]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.warning("the vectors of a dropped version are still there: %s", task.exception())
