"""Shadow reads: a sample of the searches is answered by the other version too, after it was answered, and compared.

What is served is never touched by it. The queue is short, and what it has no room for is counted and left out; one
search at a time is worked off, on a thread of its own where the model is concerned, with rests while requests are
answered; and whatever goes wrong is counted. While nothing is shadowed there is neither queue nor task.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from msgspec import structs
from prometheus_client import Counter

from server.database.connections import Database
from server.database.ids import uuid7
from server.database.tenant import Tenant
from server.embeddings import serving
from server.embeddings.lifecycle.figures.segments import segments
from server.embeddings.lifecycle.routing import WHOLE, Routing
from server.embeddings.migration import comparisons
from server.embeddings.migration.comparisons import Comparison
from server.embeddings.migration.legs import Legs
from server.embeddings.serving import Serving
from server.embeddings.versions import Registered, Version
from server.errors import DatabaseError, NotFound, Rebuilding, TurnstoneError
from server.operations import metrics
from server.operations.metrics import REGISTRY
from server.retrieval import analysis
from server.retrieval.text import build
from server.search.answer import Result
from server.search.asked import Asked

if TYPE_CHECKING:
    from server.search.search import Found, Searcher

logger = logging.getLogger(__name__)

QUEUE: Final = 64  # searches that wait
_REST: Final = 4.0  # times what a search took, while requests are answered
_LONGEST_REST: Final = 2.0  # seconds
_PATIENCE: Final = 30.0  # seconds that the candidate has
_STRIDE: Final = 6_181  # prime to WHOLE: each sample of n basis points takes n of any 10,000 searches, evenly spread
_LENGTHS: Final = 10  # of the best, whose texts tell the segments

SHADOWED: Final = Counter(
    "turnstone_shadow_searches_total",
    "Searches that were sampled for the shadow, by what became of them.",
    ("outcome",),
    registry=REGISTRY,
)
INSTEAD: Final = Counter(
    "turnstone_candidate_failed_searches_total",
    "Searches that the active version answered, since the model of the candidate, whose turn it was, failed.",
    registry=REGISTRY,
)


class _Sampled(NamedTuple):
    searcher: Searcher
    tenant: Tenant
    user_key: int
    asked: Asked
    served: Serving
    other: Serving
    legs: Legs
    best: tuple[Result, ...]
    heads: Mapping[UUID, int] | None
    dropped: int


class Shadow:
    """The shadow of one process. ``keep_text``: the questions are kept with what was answered."""

    def __init__(self, database: Database, *, keep_text: bool = False) -> None:
        self._database = database
        self._keep_text = keep_text
        self._queue: deque[_Sampled] = deque()
        self._task: asyncio.Task[None] | None = None
        self._asked = 0
        self._dropped = 0
        self.answered = 0
        self.errors = 0
        self.dropped = 0

    def samples(self, routing: Routing | None) -> bool:
        """Whether the next search is one of the sample."""
        if routing is None or not routing.shadow or routing.candidate is None or routing.paused:
            return False
        self._asked += 1
        return self._asked * _STRIDE % WHOLE < routing.shadow

    def offer(
        self,
        searcher: Searcher,
        registered: Registered,
        tenant: Tenant,
        user_key: int,
        asked: Asked,
        served: Serving,
        found: Found,
    ) -> None:
        """Have a search that was just answered compared, if there is room; returns at once."""
        routing = registered.routing
        if routing is None or routing.candidate is None or found.legs is None:
            return
        if len(self._queue) >= QUEUE:
            self._drop()
            return
        other = serving.of_version(registered, routing.active if served.candidate else routing.candidate)
        heads = None if found.seen is None else {uuid: member.head for uuid, member in found.seen.items()}
        best = tuple(found.reply.data[:_LENGTHS])
        sampled = _Sampled(searcher, tenant, user_key, asked, served, other, found.legs, best, heads, self._dropped)
        self._dropped = 0
        self._queue.append(sampled)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="shadow")

    async def idle(self) -> None:
        """Return once all that waits has been compared."""
        while self._task is not None and not self._task.done():
            await asyncio.shield(self._task)

    async def drain(self) -> None:
        """Give up what waits."""
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _drop(self, samples: int = 1) -> None:
        self.dropped += samples
        self._dropped += samples
        SHADOWED.labels("dropped").inc(samples)

    async def _work(self) -> None:
        while self._queue:
            one = self._queue.popleft()
            began = perf_counter()
            try:
                await self._compare(one)
            except Exception:  # nothing of it may reach what is served
                self._drop(1 + one.dropped)
                logger.exception("a search could not be shadowed")
            if metrics.is_busy():
                await asyncio.sleep(min(_LONGEST_REST, _REST * (perf_counter() - began)))

    async def _compare(self, one: _Sampled) -> None:
        asked = structs.replace(one.asked, heads=one.heads, min_seq=None, also_tokens=0, explain=False, why_not=())
        other, error = await self._answer(one, asked)
        if other is None and error is None:
            self._drop(1 + one.dropped)
            return
        best = one.best if other is None or not one.served.candidate else tuple(other.reply.data[:_LENGTHS])
        comparison = _comparison(one, None if other is None else other.legs, error, best)
        if self._keep_text:
            comparison = structs.replace(comparison, question=one.asked.query)
        try:
            await comparisons.store(self._database, one.tenant, comparison)
        except DatabaseError as problem:
            self._drop(1 + one.dropped)
            logger.debug("a comparison was not kept: %s", problem)
            return
        if error is None:
            self.answered += 1
            SHADOWED.labels("answered").inc()
        else:
            self.errors += 1
            SHADOWED.labels("error").inc()

    async def _answer(self, one: _Sampled, asked: Asked) -> tuple[Found | None, str | None]:
        """Return the other version's answer, or the class of its error; neither where it is not to blame."""
        if one.other.version is None or not one.searcher.follows(one.other.version):
            return None, None  # the migration has ended meanwhile
        try:
            async with asyncio.timeout(_PATIENCE):
                found = await one.searcher.answer(one.tenant, asked, one.other, legs=True, hurry=False)
        except (DatabaseError, Rebuilding, NotFound):
            return None, None
        except Exception as error:
            if not isinstance(error, TurnstoneError | TimeoutError):
                logger.exception("the shadowed version failed")
            problem = type(error).__name__
        else:
            if found.legs is not None:
                return found, None
            problem = "ProviderUnavailable"  # no vectors took part
        to_blame = not one.served.candidate and one.searcher.follows(one.other.version)
        return None, problem if to_blame else None


def _comparison(one: _Sampled, other: Legs | None, error: str | None, best: tuple[Result, ...]) -> Comparison:
    old, new = (other, one.legs) if one.served.candidate else (one.legs, other)
    old_version, new_version = _number(one.served), _number(one.other)
    if one.served.candidate:
        old_version, new_version = new_version, old_version
    # An answer that is missing agrees with nothing; who reads the figures leaves it out.
    at = one.asked.conversation
    built = [build(result.event) for result in best]
    return Comparison(
        id=uuid7(),
        user_key=one.user_key,
        conversation=None if at is None else at.uuid,
        old_version=old_version,
        new_version=new_version,
        epoch=one.served.epoch,
        query_type=one.legs.type,
        segments=segments(
            one.legs.type,
            one.tenant.name,
            analysis.language_of(one.asked.query),
            [len(text.text) for text in built if text is not None],
        ),
        old_dense=() if old is None else old.dense,
        new_dense=() if new is None else new.dense,
        old_final=() if old is None else old.final,
        new_final=() if new is None else new.final,
        old_ms=0.0 if old is None else old.milliseconds,
        new_ms=0.0 if new is None else new.milliseconds,
        error=error,
        dropped=one.dropped,
    )


def _number(one: Serving) -> int:
    version: Version | None = one.version
    assert version is not None, "vectors took part"
    return version.id
