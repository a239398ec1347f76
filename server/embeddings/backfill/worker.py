"""One worker: reads what has no vector, embeds it in a thread, writes the vectors; and paces itself.

Two tasks take turns, so that one reads and writes while the other's batch is embedded: between read and write there is
no transaction, only a lock on the conversations, which other embedders pass by.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import psycopg

from server.database.connections import Database
from server.database.round_trip import HotConnection, round_trip
from server.embeddings import pending, sweep, versions
from server.embeddings.backfill import backlog
from server.embeddings.backfill.finishing import to_its_end
from server.embeddings.backfill.pacing import Pacer, worst
from server.embeddings.backfill.queue import Batch, Queue
from server.embeddings.backfill.reporting import Row, Said, Seen
from server.embeddings.making import make
from server.embeddings.model import Model
from server.embeddings.session import session
from server.embeddings.versions import Version
from server.errors import DatabaseUnavailable, EmbeddingError

logger = logging.getLogger(__name__)

_TASKS: Final = 2
_LOOK: Final = 1.0  # seconds: within which a worker obeys a pause, and between two notes of its row
# Seconds that a batch should take: at full speed, where nobody waits; and when it has to share.
_LONG, _SHORT = 2.0, 0.25
_TEXTS: Final = (8, 4096)  # in one batch, at least and at most
_FIRST: Final = 32  # texts in the first one, since nobody knows yet how long they take
_WINDOW: Final = 10.0  # seconds that the rate is of
_BACKOFF: Final = (0.5, 60.0)  # seconds, first and longest
_OTHERS: Final = 0.5  # seconds until what other workers had is looked at again


class _Over(Exception):
    """There is nothing to backfill any more, or not now."""


class Worker:
    """Backfills the candidate of the database's migration. ``key``: the provider's secret."""

    def __init__(self, database: Database, *, key: str | None = None) -> None:
        self.embedded = 0
        self.refused = 0
        self.why = "begins"
        self._database = database
        self._key = key
        self._row = Row(database)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="backfill")
        self._turn = asyncio.Lock()
        self._opened: tuple[int, Model] | None = None
        self._pacer: Pacer | None = None
        self._speed = 0.0  # texts that the model embeds in a second
        self._counts: deque[tuple[float, int]] = deque()
        self._retry = True
        self._pause = _BACKOFF[0]
        self._reason = ""

    @property
    def rate(self) -> float:
        """Events a second, of late."""
        now = time.monotonic()
        while self._counts and self._counts[0][0] < now - _WINDOW:
            self._counts.popleft()
        if not self._counts:
            return 0.0
        return sum(count for _, count in self._counts) / max(now - self._counts[0][0], _LOOK)

    async def run(self) -> None:
        """Work until nothing is left, or the migration is paused or past its backfill.

        A provider or a database that fails is waited for.
        """
        try:
            while True:
                try:
                    await self._fill()
                except _Over:
                    return
                except EmbeddingError as error:
                    self._close()
                    await self._wait(error.message)
                except (DatabaseUnavailable, psycopg.OperationalError, psycopg.InterfaceError) as error:
                    await self._wait(f"the database: {str(error).strip()}")
        finally:
            self._thread.submit(self._close_last)  # behind a model that is being opened
            self._thread.shutdown(wait=False)
            with suppress(DatabaseUnavailable):
                await self._row.remove()

    async def _fill(self) -> None:
        """Look through the log once, and embed what waits; raises _Over when nothing did that is not fresh."""
        seen = await self._row.look()
        registered = await versions.read(self._database)
        if seen.wanted is None or not await backlog.overdue(self._database, seen.wanted):
            raise _Over
        version = registered.versions[seen.wanted]
        if self._pacer is None:
            quiet = [p99 for p99 in (worst(seen.loads).p99, await self._row.quiet(version.id)) if p99 is not None]
            self._pacer = Pacer(min(quiet, default=None))
        self.why = f"opens the model of {version.name}"
        await self._say(version.id)
        model = await self._open(version)
        self._say_why()
        before = self.embedded + self.refused
        queue = Queue(sweep.run(self._database, version.id, retry=self._retry))
        watching = asyncio.create_task(self._watch(version, self._pacer, seen))
        working = [asyncio.create_task(self._work(version, model, queue, self._pacer)) for _ in range(_TASKS)]
        try:
            left = set(working)
            while left:
                done, _ = await asyncio.wait({watching, *left}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                left -= done
        finally:
            for task in (watching, *working):
                task.cancel()
            await asyncio.gather(watching, *working, return_exceptions=True)
        self._retry = False
        if before == self.embedded + self.refused:
            await asyncio.sleep(_OTHERS)

    async def _open(self, version: Version) -> Model:
        """Open the model, and again whenever it failed: each time it is probed, and refused if it has changed."""
        if self._opened is not None and self._opened[0] == version.id:
            return self._opened[1]
        self._close()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._open_model, version)

    def _open_model(self, version: Version) -> Model:
        model = version.open(self._key)
        self._opened = version.id, model
        return model

    def _close(self) -> None:
        """Close the model, behind a batch that is still being embedded for nothing."""
        opened, self._opened = self._opened, None
        if opened is not None:
            self._thread.submit(opened[1].close)

    def _close_last(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened[1].close()

    async def _work(self, version: Version, model: Model, queue: Queue, pacer: Pacer) -> None:
        async with session(self._database) as connection:
            kind = await pending.vector_type(connection, version.dimensions)
            while True:
                await pacer.turn()
                texts = self._texts(model, pacer)
                batch = await queue.take(texts)
                if batch is None:
                    return
                await self._step(connection, version, model, kind, queue, batch, texts, pacer)

    def _texts(self, model: Model, pacer: Pacer) -> int:
        if not self._speed:
            return min(model.batch, _FIRST)
        seconds = _LONG if pacer.pace.duty >= 1 else _SHORT
        return max(_TEXTS[0], min(_TEXTS[1], int(self._speed * seconds)))

    async def _step(
        self,
        connection: HotConnection,
        version: Version,
        model: Model,
        kind: pending.VectorType,
        queue: Queue,
        batch: Batch,
        texts: int,
        pacer: Pacer,
    ) -> None:
        tenant, conversations = batch
        found = await pending.read(connection, tenant, version.id, conversations, page=texts)
        come = {}
        if found.stretches:
            loop = asyncio.get_running_loop()
            async with self._turn:
                began = time.perf_counter()
                made = await loop.run_in_executor(self._thread, make, tenant, model, found.stretches)
                seconds = time.perf_counter() - began
            pacer.worked(seconds)
            come = await pending.write(connection, tenant, version.id, kind, made)
            self._count(made, seconds)
        else:
            await round_trip(connection, [pending.UNLOCK({})])
        heads = {stretch.conversation: stretch.head for stretch in found.stretches}
        # A conversation that another embedder has is left to it; the next look through the log comes back to it.
        for at in reversed(conversations):
            if at in found.finished or at in found.busy:
                continue
            if at not in heads:
                queue.put_back(tenant, at, texts)
            elif at in come and heads[at] > come[at]:
                queue.put_back(tenant, at, heads[at] - come[at])

    def _count(self, made: Iterable[pending.Written], seconds: float) -> None:
        done = sum(len(one.seqs) for one in made)
        self.refused += sum(len(one.errors) for one in made)
        self.embedded += done
        self._pause = _BACKOFF[0]
        self._reason = ""
        if done:
            speed = done / max(seconds, 1e-4)
            self._speed += 0.3 * (speed - self._speed) if self._speed else speed
            self._counts.append((time.monotonic(), done))

    async def _watch(self, version: Version, pacer: Pacer, seen: Seen) -> None:
        """Learn each second how live requests fare, say how this one does, and raise _Over when it has to stop."""
        at = seen.at
        while True:
            await self._say(version.id)
            await asyncio.sleep(_LOOK)
            seen = await to_its_end(self._row.look())
            if seen.wanted != version.id:
                raise _Over
            if seen.at != at:
                at = seen.at
                pacer.observe(worst(seen.loads))
                self._say_why()

    def _say_why(self) -> None:
        assert self._pacer is not None
        if self._pacer.pace.why != self.why:
            self.why = self._pacer.pace.why
            logger.debug("the backfill %s", self.why)

    async def _say(self, version: int) -> None:
        duty, quiet = (self._pacer.pace.duty, self._pacer.quiet) if self._pacer else (0.0, None)
        await to_its_end(self._row.say(Said(version, self.embedded, self.rate, duty, quiet, self.why)))

    async def _wait(self, reason: str) -> None:
        """Wait before the next try, each time longer, and say for what."""
        seconds = self._pause * random.uniform(0.8, 1.2)  # noqa: S311
        self._pause = min(self._pause * 2, _BACKOFF[1])
        self.why = f"waits {seconds:.0f} s and tries again: {reason}"
        if reason != self._reason:
            self._reason = reason
            logger.warning("the backfill %s", self.why)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            with suppress(DatabaseUnavailable):
                seen = await to_its_end(self._row.look())
                if seen.wanted is None:
                    return
                await self._say(seen.wanted)
            await asyncio.sleep(min(left, _LOOK))
