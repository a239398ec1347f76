"""The embedder of one process: follows the routing, and keeps a lane for each version that is written."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final

from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId
from server.database.round_trip import Statement, round_trip
from server.database.tenant import Tenant
from server.embeddings import versions
from server.embeddings.lane import Lane
from server.embeddings.model import Model
from server.embeddings.versions import Registered, Version
from server.errors import DatabaseUnavailable, ProviderUnavailable
from server.log.append import Committed

logger = logging.getLogger(__name__)

_LOOK: Final = 1.0  # seconds: within which a server follows a flip, or learns that another server has ended
_SWEEP: Final = 3600.0  # seconds: the longest that an event waits whose hint was lost
_STATE: Final = Statement("""
SELECT (SELECT epoch FROM embedding_routing), ARRAY(SELECT id::text FROM server WHERE lease_until > now())
""")


class Embedder:
    """Gives every text-bearing event its vectors, soon after its append and off its path."""

    def __init__(self, database: Database, *, key: str | None = None, writes: bool = True) -> None:
        self._database = database
        self._key = key
        self._writes = writes
        self._lanes: dict[int, tuple[Lane, asyncio.Task[None]]] = {}
        self._registered = Registered({}, None)
        self._ready = asyncio.Event()
        self._alive: frozenset[str] = frozenset()
        self._swept = time.monotonic()

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
        return version, self._lanes[version.id][0].model

    def on_append(self, committed: Committed) -> None:
        """Learn of events that have just been stored."""
        self.hint(committed.tenant, committed.conversation, committed.head - committed.base)

    def hint(self, tenant: Tenant, conversation: ConversationId, events: int = 1) -> None:
        """Say that a conversation has about so many new events; a hint that is lost only costs time."""
        for lane, _ in self._lanes.values():
            lane.hint(tenant, conversation, events)

    def sweep(self) -> None:
        """Look through all conversations soon: something was written of which nobody knows what."""
        for lane, _ in self._lanes.values():
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
        number = version if version is not None else self._registered.routing and self._registered.routing.active
        if number is None or number not in self._lanes:
            raise ProviderUnavailable("no embedding version is known yet", retry_after=1)
        await self._lanes[number][0].ensure(tenant, wanted, timeout=timeout)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                try:
                    await self._look()
                except DatabaseUnavailable as error:
                    logger.debug("the routing cannot be looked at: %s", error)
                except Exception:
                    logger.exception("the embedding versions cannot be followed")
                await asyncio.sleep(_LOOK)
        finally:
            tasks = [task for _, task in self._lanes.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        async with hot_connection(self._database) as connection:
            ((epoch, alive),) = await round_trip(connection, [_STATE({})])
        if epoch is not None and (self._registered.routing is None or epoch != self._registered.routing.epoch):
            await self._follow()
        ended = self._alive.difference(alive)
        self._alive = frozenset(alive)
        # Whoever ended may have left what only it had been told of.
        if ended or time.monotonic() - self._swept > _SWEEP:
            self._swept = time.monotonic()
            self.sweep()

    async def _follow(self) -> None:
        registered = await versions.read(self._database)
        written = {version.id: version for version in registered.written}
        for number in self._lanes.keys() - written.keys():
            _, task = self._lanes.pop(number)
            task.cancel()
        for number in written.keys() - self._lanes.keys():
            lane = Lane(self._database, written[number], key=self._key, writes=self._writes)
            self._lanes[number] = lane, asyncio.create_task(lane.run(), name=f"embed {lane.version.name}")
        self._registered = registered
        self._ready.set()
