"""Hot working sets: the folds of conversations that are being read, in this process's memory.

Freshness. A read without ``min_seq`` asks the database how far the conversation has come (one look-up by key, shared by
all that ask at once), and is as new as that answer: another server's append, touch, pin or erasure shows at once. A
read with ``min_seq`` never shows less than that, and may be answered without asking if memory reaches so far and was
compared with the database less than TRUST seconds ago. Erasures are acknowledged only after TRUST has passed, so that
what is gone by then is shown by no server.

Memory. Whole conversations leave by SIEVE under a limit in bytes. A fold that has left is made again from its newest
checkpoint: bounded work, in a thread of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from datetime import datetime
from time import monotonic, perf_counter
from typing import Final

from msgspec import Raw, UnsetType

from server.cache import Cache
from server.context import checkpoints, touches
from server.context.checkpoints import Made
from server.context.folding import REFERRING, Folding, Outpaced
from server.context.reading import Reader
from server.context.touches import Touched
from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.errors import Conflict, DatabaseUnavailable, NotFound, Rebuilding
from server.log.append import Committed
from server.log.erase import FORGOTTEN_EVERYWHERE
from server.log.heads import Heads
from server.log.read import State, read_range
from server.log.stored import StoredEvent, stored
from server.operations import metrics
from server.working_set.fold import Fold
from server.working_set.items import Item

logger = logging.getLogger(__name__)

TRUST: Final = FORGOTTEN_EVERYWHERE
PATIENCE: Final = 10.0  # seconds that a request waits for a fold; the work goes on without it
NOW_EVENTS: Final = 24  # folded on the loop, about 2 ms; more than that in the thread
NOW_BYTES: Final = 8192
MAX_PENDING: Final = 256  # events that a conversation nobody reads may be ahead of its fold
MAX_PENDING_BYTES: Final = 256 * 1024
MAX_MEMO: Final = 16  # answers of one conversation
_BUILDS: Final = 4  # at once
_LONG: Final = 20_000  # events
_ATTEMPTS: Final = 5  # at a conversation that keeps losing events
_AHEAD: Final = 2 * checkpoints.EVERY_EVENTS  # beyond this a checkpoint may be nearer than what is held

# What a fold takes in memory, measured by tracemalloc: counts, containers, departures; a resident event and its unit.
_FOLD_BYTES: Final = 40_000
_EVENT_BYTES: Final = 1_300
_SETTING_BYTES: Final = 700  # an event that sets a constraint
_PENDING_BYTES: Final = 700

Key = tuple[int, ConversationId]


class Hot:
    """A conversation's working set in memory.

    Use it before the next ``await``: after that, another task may have folded it on.
    """

    def __init__(self, conversation: ConversationId, folding: Folding, state: State, validated: float) -> None:
        self.conversation = conversation
        self.folding = folding
        self.state = state
        self.validated = validated  # when the question was asked whose answer was ``state``; monotonic
        self.changed = monotonic()
        self.memo: dict[Hashable, object] = {}
        self.memo_bytes = 0
        self.pending: list[Committed] = []
        self.pending_events = 0
        self.pending_bytes = 0
        self.folded = state  # without what is pending
        self.is_complete = True  # False while events of residents are not at hand
        self._measured = 0

    @property
    def fold(self) -> Fold:
        """The fold at ``state``; not to be changed."""
        return self.folding.fold

    @property
    def events(self) -> dict[int, StoredEvent]:
        """The events of all residents, and perhaps some more, by seq."""
        return self.folding.events

    @property
    def head(self) -> int:
        """The last seq."""
        return self.state.head

    def measure(self) -> int:
        """Return about what it takes, in bytes."""
        text = sum(_length(event.content) + _length(event.metadata) for event in self.events.values())
        held = _EVENT_BYTES * len(self.events) + _SETTING_BYTES * len(self.fold.kept.standing)
        self._measured = _FOLD_BYTES + held + text + self.memo_bytes
        return self.bytes

    @property
    def bytes(self) -> int:
        """About what it took when it was last measured, with what is pending since."""
        return self._measured + self.pending_bytes + _PENDING_BYTES * self.pending_events

    def forget_answers(self) -> None:
        """Drop what was made of an earlier state."""
        self.memo.clear()
        self.memo_bytes = 0

    def forget_pending(self) -> None:
        """Drop what was appended and not folded; it is in the log."""
        self.pending.clear()
        self.pending_events = self.pending_bytes = 0
        self.state = self.folded


class WorkingSets:
    """The hot working sets of one process; ``grown`` is told of appends that no fold in memory follows."""

    def __init__(
        self,
        database: Database,
        heads: Heads,
        executor: Executor,
        limit_bytes: int,
        *,
        grown: Callable[[Committed], None] | None = None,
    ) -> None:
        self.writer = checkpoints.Writer(database)
        self._database = database
        self._heads = heads
        self._executor = executor
        self._grown = grown
        self._cache: Cache[Key, Hot] = Cache(limit_bytes)
        self._building: dict[Key, asyncio.Task[Hot]] = {}
        self._foldings: dict[Key, Folding] = {}
        self._places = asyncio.Semaphore(_BUILDS)
        self._long = asyncio.Semaphore(1)
        self.hits = 0
        self.misses = 0

    @property
    def evictions(self) -> int:
        """How many conversations had to make room for others."""
        return self._cache.evictions

    @property
    def bytes(self) -> int:
        """What is held."""
        return self._cache.bytes

    async def get(self, tenant: Tenant, conversation: ConversationId, *, min_seq: int | None = None) -> Hot:
        """Return a conversation's working set, as fresh as the module says; use it before the next ``await``.

        Raises NotFound, Conflict (with the head) when ``min_seq`` lies beyond it, and Rebuilding or DatabaseUnavailable
        when it takes too long.
        """
        key = (tenant.id, conversation)
        asked = monotonic()
        hot = self._cache.get(key)
        trusted = hot if hot is not None and asked - hot.validated < TRUST and key not in self._building else None
        if trusted and min_seq is not None and min_seq <= trusted.head and self._catch_up_now(key, trusted):
            self.hits += 1
            return trusted
        try:
            state = await self._heads.read(tenant, conversation)
        except NotFound:
            self._cache.discard(key)
            raise
        if min_seq is not None and min_seq > state.head:
            raise Conflict(
                f"min_seq is {min_seq}, but the head is {state.head}: read the head that an append answered",
                param="min_seq",
                details={"head": state.head},
            )
        return await self._reach(tenant, conversation, state, asked)

    async def _reach(self, tenant: Tenant, conversation: ConversationId, state: State, asked: float) -> Hot:
        key = (tenant.id, conversation)
        until = monotonic() + PATIENCE
        first = True
        while True:
            building = self._building.get(key)
            if building is None:
                hot = self._cache.peek(key)
                if hot is not None and _is_current(hot, state, asked):
                    hot.validated = max(hot.validated, asked)
                    if self._catch_up_now(key, hot):
                        self.hits += first
                        return hot
                building = self._start(tenant, conversation, state, asked, hot)
            self.misses += first
            first = False
            done, _ = await asyncio.wait({building}, timeout=until - monotonic())
            if not done:
                raise self._too_long(key)
            hot = building.result()
            # Large ones are not kept, so that there may be nothing to find in the cache.
            if key not in self._building and not hot.pending and _is_current(hot, state, asked):
                return hot

    def _too_long(self, key: Key) -> Rebuilding:
        folding = self._foldings.get(key)
        head, target = folding.progress if folding else (0, 0)
        return Rebuilding(
            f"the working set is being folded anew: {head} of {target} events are done; try again", retry_after=5
        )

    async def as_of(self, tenant: Tenant, conversation: ConversationId, point: int | datetime) -> Hot:
        """Return a working set as it stood at a seq, or at a time (``recorded_at``), with the touches up to then.

        What has been erased or has expired since is gone. It is not kept, and beyond the head it is the present one.
        Raises as ``get`` does.
        """
        asked = monotonic()
        state = await self._heads.read(tenant, conversation)
        if isinstance(point, datetime):
            page = await read_range(self._database, tenant, conversation, limit=1, descending=True, as_of=point)
            head = page.events[0].seq if page.events else state.floor
        elif point >= state.head:
            return await self.get(tenant, conversation)
        else:
            head = point
        time = point if isinstance(point, datetime) else None
        task = asyncio.create_task(self._build(tenant, conversation, state, asked, None, until=head, time=time))
        done, _ = await asyncio.wait({task}, timeout=PATIENCE)
        if not done:
            task.cancel()
            raise Rebuilding("folding up to then takes too long; try again", retry_after=5)
        hot = task.result()
        hot.state = hot.state._replace(head=hot.fold.head)
        return hot

    async def touch(self, tenant: Tenant, conversation: ConversationId, seqs: Sequence[int]) -> Touched:
        """Record that events were used; raises NotFound, and InvalidInput for a seq that there is not."""
        return await touches.record(self._database, tenant, conversation, seqs)

    async def named(self, tenant: Tenant, conversation: ConversationId, seq: int) -> tuple[Item, ...]:
        """Return what a pin of an event names, for ``Fold.check_pin``: it with all events of its call."""
        hot = await self.get(tenant, conversation)
        return await hot.folding.named(seq, hot.head)

    def remember(self, tenant: Tenant, hot: Hot, question: Hashable, answer: object, size: int) -> None:
        """Keep an answer made of ``hot`` in ``hot.memo`` until it changes; ``size`` in bytes."""
        while len(hot.memo) >= MAX_MEMO:
            del hot.memo[next(iter(hot.memo))]
        hot.memo[question] = answer
        hot.memo_bytes += size
        self._resize((tenant.id, hot.conversation), hot)

    def on_append(self, committed: Committed) -> None:
        """Note what was appended, to be folded when it is read."""
        key = (committed.tenant.id, committed.conversation)
        hot = self._cache.peek(key)
        if hot is not None and key not in self._building and _follows(hot.state, committed):
            hot.pending.append(_own(committed))
            hot.pending_events += len(committed.events)
            hot.pending_bytes += sum(event.size for event in committed.events)
            hot.state = hot.state._replace(head=committed.head, recorded_at=committed.recorded_at)
            hot.changed = monotonic()
            if hot.memo:
                hot.forget_answers()
            if hot.pending_events <= MAX_PENDING and hot.pending_bytes <= MAX_PENDING_BYTES:
                self._cache.resize(key, hot.bytes)
                return
            hot.forget_pending()
        if self._grown is not None:
            self._grown(committed)

    async def drain(self) -> None:
        """Wait until checkpoints that were made are stored; folds that are being made are given up."""
        for task in self._building.values():
            task.cancel()
        await asyncio.gather(*self._building.values(), return_exceptions=True)
        await self.writer.drain()

    def _catch_up_now(self, key: Key, hot: Hot) -> bool:
        """Fold what is pending if that is little work; says whether all is there at the state."""
        if not hot.pending:
            return hot.is_complete
        if hot.pending_events > NOW_EVENTS or hot.pending_bytes > NOW_BYTES or not hot.is_complete:
            return False
        events = _pending_events(hot)
        if any(event.type in REFERRING for event in events):
            return False
        try:
            hot.is_complete = hot.folding.advance_now(events)
        except Exception:
            self._cache.discard(key)
            raise
        self._folded(hot)
        self._resize(key, hot)
        return hot.is_complete

    def _folded(self, hot: Hot) -> None:
        hot.pending.clear()
        hot.pending_events = hot.pending_bytes = 0
        hot.folded = hot.state
        for policy, count in hot.folding.evicted.items():
            metrics.observe_evicted(policy, count)
        hot.folding.evicted.clear()

    def _resize(self, key: Key, hot: Hot) -> None:
        if self._cache.peek(key) is hot:
            self._cache.resize(key, hot.measure())

    def _start(
        self, tenant: Tenant, conversation: ConversationId, state: State, asked: float, hot: Hot | None
    ) -> asyncio.Task[Hot]:
        key = (tenant.id, conversation)
        task = asyncio.create_task(self._build(tenant, conversation, state, asked, hot), name="fold")
        self._building[key] = task

        def done(task: asyncio.Task[Hot]) -> None:
            del self._building[key]
            if task.cancelled() or task.exception() is not None:
                self._cache.discard(key)
                return
            made = task.result()
            self._cache.put(key, made, made.measure())

        task.add_done_callback(done)
        return task

    async def _build(
        self,
        tenant: Tenant,
        conversation: ConversationId,
        state: State,
        asked: float,
        hot: Hot | None,
        *,
        until: int | None = None,
        time: datetime | None = None,
    ) -> Hot:
        """Fold a conversation to a state at least, from what is held, or from a checkpoint."""
        key = (tenant.id, conversation)
        for _ in range(_ATTEMPTS):
            begun = perf_counter()
            folding = None if hot is None else self._usable(hot, state)
            rebuilt, hot = folding is None, None
            try:
                if folding is None:
                    async with self._places:
                        folding = await self._begin(tenant, conversation, state, until)
                if until is None:
                    self._foldings[key] = folding
                # A few long ones must not keep the many short ones waiting.
                long = state.head - folding.fold.head > _LONG
                async with self._long if long else self._places:
                    seen = await folding.advance(state, until=until, time=time)
            except Outpaced:
                pass
            else:
                now = seen or await self._heads.read(tenant, conversation)
                if (now.epoch, now.floor) == (state.epoch, state.floor):
                    made = Hot(conversation, folding, state, asked)
                    if rebuilt:
                        metrics.observe_rebuild(perf_counter() - begun)
                        folding.evicted.clear()
                    self._folded(made)
                    return made
            finally:
                if until is None:
                    self._foldings.pop(key, None)
            asked = monotonic()
            state = await self._heads.read(tenant, conversation)
        raise DatabaseUnavailable("the conversation keeps changing under the reader; try again", retry_after=1)

    def _usable(self, hot: Hot, state: State) -> Folding | None:
        """Return the folding of what is held, without what is pending, if it can be folded on to a state."""
        hot.forget_pending()
        held = hot.state
        follows = (held.epoch, held.floor) == (state.epoch, state.floor) and held.touches <= state.touches
        return hot.folding if follows and held.head <= state.head <= held.head + _AHEAD else None

    async def _begin(self, tenant: Tenant, conversation: ConversationId, state: State, until: int | None) -> Folding:
        reader = await Reader.open(self._database, tenant, conversation)
        high = state.head if until is None else min(until, state.head)
        fold = await checkpoints.nearest(reader, state.floor, high)

        def made(checkpoint: Made) -> None:
            self.writer.write(tenant, conversation, state, checkpoint)

        return Folding(reader, fold or Fold(start=min(state.floor, high)), executor=self._executor, made=made)


def _is_current(hot: Hot, state: State, asked: float) -> bool:
    """Whether what is held is at least as new as a state that was asked for at ``asked``."""
    if hot.state == state:
        return True
    held = hot.state
    # What is ahead of the answer came to know of it meanwhile; if not, the conversation was deleted and restored.
    return (
        hot.changed >= asked
        and held.epoch >= state.epoch
        and held.floor >= state.floor
        and held.head >= state.head
        and held.touches >= state.touches
    )


def _follows(state: State, committed: Committed) -> bool:
    return (
        state.head == committed.base
        and state.epoch == committed.epoch
        and state.floor == committed.floor
        and state.touches == committed.touches
    )


def _length(text: Raw | UnsetType) -> int:
    return 0 if isinstance(text, UnsetType) else memoryview(text).nbytes


def _own(committed: Committed) -> Committed:
    """Keep events, not the whole request body that they are views of."""
    for event in committed.events:
        if isinstance(event.content, Raw):
            event.content = event.content.copy()
        if isinstance(event.metadata, Raw):
            event.metadata = event.metadata.copy()
    return committed


def _pending_events(hot: Hot) -> list[StoredEvent]:
    return [
        stored(hot.conversation, event, seq, committed.recorded_at)
        for committed in hot.pending
        for seq, event in enumerate(committed.events, committed.base + 1)
    ]
