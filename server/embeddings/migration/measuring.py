"""The steps that measure before they decide: `plan`, `verify`, `compare`. One at a time in a process.

They go on when who asked for them has left: what they found is in the history. Nothing is locked meanwhile, so that a
rollback never waits for a measurement; figures that it has made void are refused when they arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NamedTuple, TypeVar

from server.database.connections import Database
from server.embeddings import serving
from server.embeddings.embedder import Embedder
from server.embeddings.lifecycle import commands
from server.embeddings.lifecycle.gates.verification import verification
from server.embeddings.migration import compare, verify
from server.embeddings.migration.compare import Asks, Measured
from server.embeddings.migration.control import Done, Migration
from server.embeddings.migration.estimate import estimate
from server.errors import MigrationRefused

T = TypeVar("T")


class Comparison(NamedTuple):
    """What a comparison has done, and all that it found."""

    done: Done
    measured: Measured


class Measuring:
    """Measures for one process; ``asks`` answers questions by a version of one's choice."""

    def __init__(
        self, database: Database, embedder: Embedder, migration: Migration, asks: Asks, *, key: str | None
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._migration = migration
        self._asks = asks
        self._key = key
        self._task: asyncio.Task[Any] | None = None

    async def plan(self, name: str, who: str, *, epoch: int | None = None) -> Done:
        """Say what a migration to a version would take. Raises what opening its model does, too."""
        return await self._alone("plan", self._plan(name, who, epoch))

    async def verify(self, who: str, *, sample: int, epoch: int | None = None) -> Done:
        """Judge the candidate's vectors and index; refused where a gate fails."""
        return await self._alone("verify", self._verify(who, sample, epoch))

    async def compare(self, who: str, *, epoch: int | None = None) -> Comparison:
        """Judge the candidate's answers; gates that fail are part of the answer, not an error."""
        return await self._alone("compare", self._compare(who, epoch))

    async def drain(self) -> None:
        """Give up what is being measured."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _plan(self, name: str, who: str, epoch: int | None) -> Done:
        stored = await self._migration.check(commands.Estimate(name=name), who, epoch=epoch)
        version = next(one for one in stored.registered.values() if one.name == name)
        figures = await estimate(self._database, version, key=self._key)
        return await self._migration.run(commands.Estimate(name=name, figures=figures), who, epoch=epoch)

    async def _verify(self, who: str, sample: int, epoch: int | None) -> Done:
        stored = await self._migration.check(commands.Verify(since=2**62, gates=()), who, epoch=epoch)
        number = stored.routing.candidate
        assert number is not None
        await self._embedder.look()
        found = await verify.measure(
            self._database,
            self._database.address,
            stored.registered[number],
            self._embedder.model(number),
            sample=sample,
        )
        step = commands.Verify(since=stored.routing.epoch, gates=verification(found))
        return await self._migration.run(step, who, epoch=epoch)

    async def _compare(self, who: str, epoch: int | None) -> Comparison:
        stored = await self._migration.check(commands.Compare(since=2**62, gates=()), who, epoch=epoch)
        number = stored.routing.candidate
        assert number is not None
        await self._embedder.look()
        registered = self._embedder.registered
        old, new = serving.active(registered), serving.of_version(registered, number)
        with self._embedder.reading(old.epoch):
            measured = await compare.measure(self._asks, self._database, old, new)
        step = commands.Compare(
            since=stored.routing.epoch,
            gates=measured.gates,
            figures=measured.figures(),
            thresholds=measured.recalibrated(),
        )
        return Comparison(await self._migration.run(step, who, epoch=epoch), measured)

    async def _alone(self, action: str, work: Coroutine[Any, Any, T]) -> T:
        if self._task is not None and not self._task.done():
            work.close()
            raise MigrationRefused(
                "measuring",
                f"`{self._task.get_name()}` is still measuring on this server: wait for it, then `{action}` again",
            )
        task = self._task = asyncio.create_task(work, name=action)
        return await asyncio.shield(task)
