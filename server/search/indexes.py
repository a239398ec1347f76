"""The indexes that one process holds, under a limit in bytes; whole families leave by SIEVE.

Each search asks the database how far its family has come (one small statement), and sees all that was stored, and
nothing that was erased, before it asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, Final, NamedTuple

from server.cache import Cache
from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.embeddings.versions import Version
from server.errors import DatabaseUnavailable, NotFound, Rebuilding
from server.retrieval import times
from server.search.family import NO_VERSION, Family, Stamp
from server.search.resident import EVENT_BYTES, Resident
from server.search.stamps import Stamps

PATIENCE: Final = 10.0  # seconds that a request waits for an index; the work goes on without it
_LOADS: Final = 2  # families that are being loaded at once
_SMALL: Final = 20  # events that a catch-up may add without waiting for a place


class _Key(NamedTuple):
    family: Family
    version: int


class TooLarge(NamedTuple):
    """A family that memory has no room for."""

    family: Family
    stamp: Stamp


class Indexes:
    """Gives the index of a user or a conversation, up to date."""

    def __init__(self, database: Database, limit_bytes: int) -> None:
        self._database = database
        # Two threads: one that loads a large family must not keep searches of other large ones waiting.
        self.executor = ThreadPoolExecutor(2, thread_name_prefix="search")
        self._cache: Cache[_Key, Resident] = Cache(limit_bytes)
        self._loading: dict[_Key, Resident] = {}
        self._places = asyncio.Semaphore(_LOADS)
        self._stamps = Stamps(database)
        self._versions: set[int] = set()
        self.hits = 0
        self.misses = 0

    @property
    def limit_bytes(self) -> int:
        """What may be held."""
        return self._cache.limit_bytes

    @property
    def evictions(self) -> int:
        """How many families had to make room for others."""
        return self._cache.evictions

    @property
    def bytes(self) -> int:
        """What is held."""
        return self._cache.bytes

    @property
    def events(self) -> int:
        """About how many events are held."""
        return self._cache.bytes // EVENT_BYTES

    async def of_user(self, tenant: Tenant, user: str, version: Version | None) -> Resident | TooLarge:
        """Return a user's index; raises Rebuilding when it takes too long, and DatabaseUnavailable."""
        return await self._get(tenant, version, lambda number: self._stamps.of_user(tenant, user, number))

    async def of_conversation(
        self, tenant: Tenant, conversation: ConversationId, version: Version | None
    ) -> Resident | TooLarge:
        """Return the index of the family of a conversation; raises NotFound, Rebuilding and DatabaseUnavailable."""
        found = await self._get(
            tenant, version, lambda number: self._stamps.of_conversation(tenant, conversation, number)
        )
        if isinstance(found, Resident):
            member = found.members.get(conversation.uuid)
            if member is None or not member.live:  # deleted in between
                raise NotFound("no such conversation")
        return found

    async def _get(
        self,
        tenant: Tenant,
        version: Version | None,
        read: Callable[[int], Coroutine[Any, Any, tuple[Family, Stamp]]],
    ) -> Resident | TooLarge:
        number = version.id if version else NO_VERSION
        asked = monotonic()
        found, stamp = await read(number)
        key = _Key(found, number)
        resident = self._cache.get(key) or self._loading.get(key)
        if resident is not None and (resident.stamp == stamp or resident.validated >= asked):
            self.hits += 1
            return resident
        if stamp.events * EVENT_BYTES > self._cache.limit_bytes:
            self._cache.discard(key)
            return TooLarge(found, stamp)
        self.misses += 1
        if resident is None:
            resident = Resident(found, version, self.executor, lambda: self._others(key))
        await self._reach(key, resident, tenant, stamp, asked)
        return resident

    async def _reach(self, key: _Key, resident: Resident, tenant: Tenant, stamp: Stamp, asked: float) -> None:
        self._loading[key] = resident
        try:
            async with asyncio.timeout(PATIENCE):
                if stamp.events - len(resident.index) <= _SMALL:
                    await resident.catch_up(self._database, tenant, stamp, asked)
                else:
                    async with self._places:
                        await resident.catch_up(self._database, tenant, stamp, asked)
        except TimeoutError:
            # What was loaded is kept: the next request goes on from there.
            self._cache.put(key, resident, EVENT_BYTES * len(resident.index))
            done, total = resident.loading
            raise Rebuilding(
                f"the search index is being loaded: {done} of {total} events are done; try again", retry_after=2
            ) from None
        except DatabaseUnavailable:
            raise
        except Exception:
            self._cache.discard(key)  # it may be half of something: the next request begins anew
            raise
        finally:
            if self._loading.get(key) is resident:
                del self._loading[key]
        self._cache.put(key, resident, resident.nbytes)
        self._versions.add(key.version)

    def _others(self, key: _Key) -> list[Resident]:
        """Return what is held of the same family for other versions."""
        held = (self._cache.peek(_Key(key.family, version)) for version in self._versions - {key.version})
        return [resident for resident in held if resident is not None]

    async def warm(self) -> None:
        """Load, in a thread, the library that reads dates: it takes a fifth of a second, once."""
        await asyncio.get_running_loop().run_in_executor(self.executor, times.warm)

    def close(self) -> None:
        """Let the threads end."""
        self.executor.shutdown(wait=False, cancel_futures=True)
