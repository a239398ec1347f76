"""Keeps one version's vectors up with the log: reads what has none, embeds it in a thread, writes the vectors.

Nothing is queued but hints. What waits is what stands in the log beyond each conversation's progress, so that a killed
server, a lost hint or a provider that was down for a week costs a look through the conversations, and no event.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, NamedTuple

import psycopg

from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.round_trip import HotConnection, round_trip
from server.database.tenant import Tenant
from server.embeddings import figures, pending, sweep
from server.embeddings.making import make
from server.embeddings.model import Model
from server.embeddings.session import ROLE, session
from server.embeddings.versions import Version
from server.embeddings.waiting import Taken, Urgency, Waiting
from server.errors import DatabaseUnavailable, EmbeddingError, ModelRefused, ProviderUnavailable, TurnstoneError
from server.operations import metrics

logger = logging.getLogger(__name__)

_LINGER: Final = 0.1  # seconds in which further appends join a batch; a search that needs one does not wait for it
# While requests are answered, a batch is followed by so many times the processor time that its thread took: they share
# the interpreter, and come first. At a fifth of the time the default model still keeps up with what a process appends.
_REST: Final = 4.0
_STEP: Final = 0.2  # seconds that one batch should take, so that what is urgent is never far from its turn
_CONVERSATIONS: Final = 128  # in one batch
_TEXTS: Final = (16, 1024)  # in one batch, at least and at most
_BUSY_PAUSE: Final = 0.05  # seconds until a conversation that another embedder had is looked at again
_BACKOFF: Final = (0.5, 60.0)  # seconds, first and longest
_LATE: Final = 2.0  # seconds that a fresh event may wait for its vector in the ordinary course of things
_KNOWN: Final = 20_000  # conversations whose progress is remembered
_BACKFILLED: Final = ("writing", "backfilling")  # states in which what was written before is left to the backfill

__all__ = ["ROLE", "Lane"]


def _timed(tenant: Tenant, model: Model, stretches: Sequence[pending.Stretch]) -> tuple[list[pending.Written], float]:
    began = time.thread_time()
    return make(tenant, model, stretches), time.thread_time() - began


class _Wait(NamedTuple):
    seq: int
    done: asyncio.Future[None]


class Lane:
    """One version in one process. With ``writes`` False it only opens the model, for searches.

    While a backfill fills in what was written before the version was there, the lane embeds what is fresh alone: the
    events of conversations that lack nothing before them, and what is asked for.
    """

    def __init__(self, database: Database, version: Version, *, key: str | None, writes: bool = True) -> None:
        self.version = version
        self.problem: TurnstoneError | None = None
        self._database = database
        self._key = key
        self._writes = writes
        self._waiting = Waiting()
        self._wake = asyncio.Event()
        self._full = asyncio.Event()
        self._asked_for = asyncio.Event()
        self._waits: dict[ConversationId, list[_Wait]] = {}
        self._known: OrderedDict[ConversationId, int] = OrderedDict()
        self._model: Model | None = None
        self._sweep: AsyncIterator[sweep.Page] | None = None
        self._sweep_wanted = True
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"embed-{version.name}")
        self._rate = 500.0  # texts a second; measured from the first batch on
        self._pause = _BACKOFF[0]
        self._timers: set[asyncio.TimerHandle] = set()

    @property
    def model(self) -> Model:
        """The version's model, for questions. Raises ModelRefused or ProviderUnavailable while there is none."""
        if self._model is None:
            raise self._unusable()
        return self._model

    @property
    def late(self) -> int:
        """How many fresh events wait, if the first of them has for longer than it should."""
        return self._waiting.fresh if self._waiting.seconds > _LATE else 0

    @property
    def _fresh_only(self) -> bool:
        return self.version.state in _BACKFILLED

    def follow(self, version: Version) -> None:
        """Take note of the version's new state. Once its backfill is over, the lane looks through everything."""
        was_fresh_only = self._fresh_only
        self.version = version
        if was_fresh_only and not self._fresh_only:
            self.want_sweep()

    def hint(self, tenant: Tenant, conversation: ConversationId, events: int, base: int = 0) -> None:
        """Say that a conversation has grown; ``base``: its head before that."""
        if self._writes:
            self._waiting.add(tenant, conversation, Urgency.FRESH, events, base if self._fresh_only else 0)
            self._wake.set()
            if self._waiting.events >= self._texts:
                self._full.set()

    def want_sweep(self) -> None:
        """Look through all conversations soon."""
        self._sweep_wanted = True
        self._wake.set()

    async def ensure(self, tenant: Tenant, wanted: Mapping[ConversationId, int], *, timeout: float) -> None:  # noqa: ASYNC109
        """Return once the own events of each conversation up to a seq have their vectors (or are dead letters).

        Raises ProviderUnavailable or ModelRefused at once while the model cannot be used, and ProviderUnavailable when
        ``timeout`` seconds were not enough.
        """
        behind = {at: seq for at, seq in wanted.items() if self._known.get(at, 0) < seq}
        if behind:
            for at, seq in (await sweep.progress(self._database, tenant, self.version.id, list(behind))).items():
                self._advanced(at, seq)
            behind = {at: seq for at, seq in behind.items() if self._known.get(at, 0) < seq}
        if not behind:
            return
        if self.problem is not None:
            raise self._unusable()
        try:
            async with asyncio.timeout(timeout):
                await (self._asked(tenant, behind) if self._writes else self._watched(tenant, behind))
        except TimeoutError:
            raise ProviderUnavailable(
                f"the newest events were not embedded within {timeout:.1f} s", retry_after=1
            ) from None

    async def _asked(self, tenant: Tenant, behind: Mapping[ConversationId, int]) -> None:
        waits = []
        for at, seq in behind.items():
            wait = _Wait(seq, asyncio.get_running_loop().create_future())
            self._waits.setdefault(at, []).append(wait)
            waits.append(wait.done)
            self._waiting.add(tenant, at, Urgency.ASKED)
        self._wake.set()
        self._full.set()
        self._asked_for.set()
        try:
            await asyncio.gather(*waits)
        finally:
            for done in waits:
                done.cancel()

    async def _watched(self, tenant: Tenant, behind: Mapping[ConversationId, int]) -> None:
        """Wait for what another server embeds."""
        while True:
            come = await sweep.progress(self._database, tenant, self.version.id, list(behind))
            if all(come.get(at, 0) >= seq for at, seq in behind.items()):
                return
            await asyncio.sleep(_BUSY_PAUSE)

    async def run(self) -> None:
        """Work until cancelled, whatever happens to provider and database."""
        try:
            while True:
                try:
                    await self._open()
                    await self._work()
                except EmbeddingError as error:
                    self._down(error)
                except (DatabaseUnavailable, psycopg.OperationalError, psycopg.InterfaceError) as error:
                    logger.info("embedding waits for the database: %s", str(error).strip())
                    self._pause = _BACKOFF[0]
                except Exception as error:
                    logger.exception("embedding for %s failed", self.version.name)
                    self._down(ProviderUnavailable(f"embedding failed: {type(error).__name__}"))
                self._sweep, self._sweep_wanted = None, True  # what was being worked on is found again
                await asyncio.sleep(self._pause * random.uniform(0.8, 1.2))  # noqa: S311
                self._pause = min(self._pause * 2, _BACKOFF[1])
        finally:
            for timer in self._timers:
                timer.cancel()
            self._thread.submit(self._close)  # behind a model that is being opened
            self._thread.shutdown(wait=False)

    def _open_model(self) -> None:
        self._model = self.version.open(self._key)

    def _close(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            model.close()

    async def _open(self) -> None:
        """Open the model, which is probed: a server does not write with one that has changed under its name."""
        if self._model is None or self.problem is not None:
            loop = asyncio.get_running_loop()
            self._close()
            await loop.run_in_executor(self._thread, self._open_model)
        if self.problem is not None:
            logger.info("the model of %s can be used again", self.version.name)
        self.problem = None
        figures.UP.labels(self.version.name).set(1)

    async def _work(self) -> None:
        assert self._model is not None
        if not self._writes:
            await asyncio.Event().wait()
        async with session(self._database) as connection:
            kind = await pending.vector_type(connection, self.version.dimensions)
            while True:
                taken = self._waiting.take(min(_CONVERSATIONS, self._texts))
                if taken is None:
                    await self._idle()
                    continue
                try:
                    worked = await self._step(connection, self._model, kind, taken)
                except BaseException:
                    for at, base in zip(taken.conversations, taken.bases, strict=True):
                        self._waiting.add(taken.tenant, at, taken.urgency, base=base)
                    raise
                if metrics.is_busy() and taken.urgency is not Urgency.ASKED:
                    await self._rest(_REST * worked)
                if taken.urgency is not Urgency.BACKLOG:
                    await self._linger(_LINGER)

    @property
    def _texts(self) -> int:
        return max(_TEXTS[0], min(_TEXTS[1], int(self._rate * _STEP)))

    async def _idle(self) -> None:
        """Find more work: the next page of a sweep, or what is told of next."""
        self._observe()
        if self._waiting.lost:
            self._waiting.lost, self._sweep_wanted = False, True
        if self._fresh_only:
            self._sweep, self._sweep_wanted = None, False
        if self._sweep is None and self._sweep_wanted:
            self._sweep, self._sweep_wanted = sweep.run(self._database, self.version.id), False
        if self._sweep is not None:
            page = await anext(self._sweep, None)
            if page is None:
                self._sweep = None
                return
            for at, events in page.conversations.items():
                self._waiting.add(page.tenant, at, Urgency.BACKLOG, events)
            return
        self._wake.clear()
        if not len(self._waiting) and not self._sweep_wanted:
            await self._wake.wait()
            await self._linger(_LINGER)

    async def _linger(self, seconds: float) -> None:
        """Let further appends join the batch, unless it is full or a search waits."""
        self._full.clear()
        if self._waiting.events < self._texts and not self._waiting.urgent:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._full.wait()

    async def _rest(self, seconds: float) -> None:
        """Leave the processor to others, unless a search waits."""
        self._asked_for.clear()
        if not self._waiting.urgent:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._asked_for.wait()

    async def _step(self, connection: HotConnection, model: Model, kind: pending.VectorType, taken: Taken) -> float:
        """Embed the next page of some conversations; returns the seconds of processor time that the thread took."""
        tenant, urgency, conversations, _ = taken
        bases = dict(zip(conversations, taken.bases, strict=True))
        page = max(1, self._texts // len(conversations))
        found = await pending.read(connection, tenant, self.version.id, conversations, page=page, bases=taken.bases)
        for at in found.finished:
            self._finished(at)
        for at in set(found.behind) & self._waits.keys():  # asked for meanwhile
            self._waiting.add(tenant, at, Urgency.ASKED)
        if found.busy:
            self._later(tenant, {at: bases[at] for at in found.busy}, urgency)
        come: dict[ConversationId, int] = {}
        worked = 0.0
        if found.stretches:
            began = time.perf_counter()
            loop = asyncio.get_running_loop()
            made, worked = await loop.run_in_executor(self._thread, _timed, tenant, model, found.stretches)
            self._measure(made, time.perf_counter() - began)
            come = await pending.write(connection, tenant, self.version.id, kind, made)
            self._pause = _BACKOFF[0]
            for at, upto in come.items():
                self._advanced(at, upto)
        else:
            await round_trip(connection, [pending.UNLOCK({})])
        heads = {stretch.conversation: stretch.head for stretch in found.stretches}
        for at in set(conversations).difference(found.finished, found.busy, found.behind):
            if at in self._waits:
                self._waiting.add(tenant, at, Urgency.ASKED)
            elif urgency is Urgency.ASKED and self._fresh_only:
                continue  # nobody waits any more: the rest is the backfill's
            elif at not in heads or (left := heads[at] - come.get(at, 0)) > 0:
                self._waiting.add(tenant, at, urgency, left if at in heads else 0, bases[at])
        self._observe()
        return worked

    def _measure(self, made: Iterable[pending.Written], seconds: float) -> None:
        done = sum(len(one.seqs) for one in made)
        refused = sum(len(one.errors) for one in made)
        if done:
            self._rate += 0.3 * (done / max(seconds, 1e-4) - self._rate)
        figures.BATCH.labels(self.version.name).observe(seconds)
        figures.EMBEDDED.labels(self.version.name).inc(done)
        figures.REFUSED.labels(self.version.name).inc(refused)
        if refused:
            logger.warning("%d events have no vector of %s: their texts were refused", refused, self.version.name)

    def _later(self, tenant: Tenant, bases: Mapping[ConversationId, int], urgency: Urgency) -> None:
        """Look again soon at what another embedder has: it may not have seen the newest events."""

        def again() -> None:
            self._timers.discard(timer)
            for at, base in bases.items():
                self._waiting.add(tenant, at, Urgency.ASKED if at in self._waits else urgency, base=base)
            self._wake.set()
            self._full.set()

        timer = asyncio.get_running_loop().call_later(_BUSY_PAUSE, again)
        self._timers.add(timer)

    def _advanced(self, at: ConversationId, seq: int) -> None:
        """Remember how far a conversation has come, and tell who waits for that."""
        self._known[at] = max(seq, self._known.pop(at, 0))
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        for wait in self._waits.pop(at, []):
            if wait.done.done():
                continue
            if wait.seq <= seq:
                wait.done.set_result(None)
            else:
                self._waits.setdefault(at, []).append(wait)

    def _finished(self, at: ConversationId) -> None:
        """There is nothing to wait for: whoever asked for more asked for events that are not there."""
        for wait in self._waits.pop(at, []):
            if not wait.done.done():
                wait.done.set_result(None)

    def _down(self, error: TurnstoneError) -> None:
        if self.problem is None or self.problem.message != error.message:
            logger.warning("no embedding for %s: %s", self.version.name, error.message)
        self.problem = error
        figures.UP.labels(self.version.name).set(0)
        for wait in (wait for waits in self._waits.values() for wait in waits):
            if not wait.done.done():
                wait.done.set_exception(self._unusable())
        self._waits.clear()
        self._observe()

    def _unusable(self) -> EmbeddingError:
        if isinstance(self.problem, ModelRefused):
            return ModelRefused(self.problem.message)
        return ProviderUnavailable(
            self.problem.message if self.problem else f"the model of {self.version.name} is being opened", retry_after=5
        )

    def _observe(self) -> None:
        figures.PENDING.labels(self.version.name).set(self._waiting.events)
        figures.LAG.labels(self.version.name).set(self._waiting.seconds)
