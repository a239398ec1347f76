"""Folding a conversation from the log: from its floor or a checkpoint to where it is wanted.

The fold is a function of the events above the conversation's floor and of the touches between them, both as the lineage
shows them. A touch at a position is folded after the event there and before the next one. Whatever an event or a touch
refers to (the events of a call, erased events that a summary covers) is looked up among the events before it only, so
that the state at a head depends on nothing later, and a checkpoint stays true.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

import msgspec

from server.context import checkpoints
from server.context.checkpoints import Made
from server.context.reading import TOUCH_PAGE, Reader, TouchRow
from server.log.read import State, read_range
from server.log.stored import StoredEvent
from server.working_set.fold import Fold
from server.working_set.items import Item, Touch, measure

PAGE: Final = 500  # events of one read
REFERRING: Final = frozenset({"pin", "summary", "constraint"})  # events for which something has to be looked up
STRIDE: Final = 64  # events folded at once, about 6 ms: nobody waits longer for the thread, or on the loop
_PAST_CALL: Final = ("tool_call", "tool_result")

T = TypeVar("T")


class Outpaced(Exception):
    """The conversation changed under the fold in a way that cannot be folded on: begin anew."""


class Progress(NamedTuple):
    """How far a long folding has come."""

    head: int
    target: int


Pace = Callable[[float], Awaitable[None]]


class Folding:
    """A fold with the events of its residents, and what it takes to fold on.

    ``made``: called with each checkpoint on the way. ``pace``: awaited after each stride with the seconds that it took.
    ``keep_events``: whether the residents' events are wanted. ``evicted``: how many events left, by policy.
    """

    def __init__(
        self,
        reader: Reader,
        fold: Fold,
        *,
        executor: Executor,
        made: Callable[[Made], None] | None = None,
        pace: Pace | None = None,
        keep_events: bool = True,
    ) -> None:
        self.reader = reader
        self.fold = fold
        self.events: dict[int, StoredEvent] = {}
        self.evicted: Counter[str] = Counter()
        self.target = fold.head
        self._executor = executor
        self._on_made = made
        self._made: list[Made] = []
        self._pace = pace
        self._keep_events = keep_events
        self._floor = 0
        self._touched = (fold.head, 0)  # the last touch that was folded: its position and number
        self._checkpointed = fold.head
        self._tokens = 0  # since the last checkpoint
        self._steps: deque[Item | Touch] = deque()
        self._last: datetime | None = None  # when the event at the head was recorded

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return Progress(self.fold.head, self.target)

    async def advance(self, state: State, *, until: int | None = None, time: datetime | None = None) -> State | None:
        """Fold on to a state, or (``until``, ``time``) to where the conversation stood earlier.

        Returns the state in which all was read, if one statement read it all; otherwise the caller has to look whether
        floor and epoch are still the same, and throw the fold away if not. Raises Outpaced.
        """
        self._floor = state.floor
        self._touched = max(self._touched, (state.floor + 1, 0))  # at the floor there was nothing left to touch
        self.target = head = state.head if until is None else min(until, state.head)
        seen: State | None = None
        looked_up = False
        while self.fold.head < head:
            after = self.fold.head
            # The event at the head is read again: it tells whether the rest follows on what has been folded.
            again = int(self._last is not None and after > state.floor)
            page = await read_range(
                self.reader.database,
                self.reader.tenant,
                self.reader.conversation,
                after_seq=after - again,
                limit=min(PAGE, head - after) + again,
                as_of=head,
            )
            events = page.events
            if again and (not events or events[0].seq != after or events[0].recorded_at != self._last):
                raise Outpaced
            events = events[again:]
            if not events or events[0].seq != after + 1:
                raise Outpaced
            looked_up |= seen is not None
            seen = page.state
            looked_up |= await self._fold_page(events, head, state.touches, time)
        looked_up |= await self._fold_page([], head, state.touches, time)
        if self._keep_events:
            looked_up |= await self._complete()
        return None if looked_up else seen

    def advance_now(self, events: Sequence[StoredEvent]) -> bool:
        """Fold the next events, none of which may refer to others; False when a resident's event is not at hand.

        Then ``advance``, to the same state, reads what is missing.
        """
        self._take(events, measure(events))
        needing = self._fold_some(resolved=False)
        assert needing is None, "the events refer to others"
        self._hand_over()
        self._prune()
        return not self._missing()

    async def _fold_page(self, events: Sequence[StoredEvent], head: int, touches: int, time: datetime | None) -> bool:
        """Fold a page of events with the touches before and between them; says whether anything else was read."""
        looked_up = False
        # What was touched at the page's last event comes before the next page, or at the end.
        last = events[-1].seq - 1 if events else head
        while True:
            rows: list[TouchRow] = []
            if self._may_be_touched(touches):
                rows = await self.reader.touches(self._touched, last, touches=touches, time=time)
                looked_up = True
            full = len(rows) == TOUCH_PAGE
            bound = rows[-1].at if full else last + 1
            batch = [event for event in events if event.seq <= bound]
            events = events[len(batch) :]
            for start in range(0, max(1, len(batch)), STRIDE):
                stride = batch[start : start + STRIDE]
                items = await self._run(measure, stride) if stride else []
                end = stride[-1].seq if start + STRIDE < len(batch) else bound
                self._take(stride, items, [row for row in rows if row.at <= end])
                rows = [row for row in rows if row.at > end]
                looked_up |= await self._fold_steps()
            if not full:
                return looked_up

    def _may_be_touched(self, touches: int) -> bool:
        """Whether there may be touches that are not folded yet, if the conversation itself has recorded so many."""
        inherited = self.reader.lineage.end
        own = self._touched[1] if self._touched[0] >= inherited else 0
        return self.fold.head < inherited or touches > own

    def _take(self, events: Sequence[StoredEvent], items: Sequence[Item], touches: Sequence[TouchRow] = ()) -> None:
        """Queue events and touches in the order in which they are folded."""
        if self._keep_events:
            self.events.update((event.seq, event) for event in events)
        if events:
            self._last = events[-1].recorded_at
        rows = deque(touches)
        head = self.fold.head
        for item in [None, *items]:
            if item is not None:
                self._steps.append(item)
                head = item.seq
            while rows and rows[0].at <= head:
                row = rows.popleft()
                if row.at < head:
                    raise Outpaced
                self._steps.extend(Touch(seq=seq, at=row.at) for seq in row.seqs)
                self._touched = (row.at, row.ord)

    async def _fold_steps(self) -> bool:
        """Fold what is queued; says whether anything had to be looked up."""
        looked_up = resolved = False
        while self._steps:
            begun = asyncio.get_running_loop().time()
            needing = await self._run(self._fold_some, resolved)
            self._hand_over()
            resolved = False
            if needing is not None:
                self._steps[0] = await self._resolve(needing)
                looked_up = resolved = True
            if self._pace is not None:
                await self._pace(asyncio.get_running_loop().time() - begun)
        self._prune()
        return looked_up

    def _fold_some(self, resolved: bool) -> Item | Touch | None:
        """Fold up to a step that needs looking up, and return that one; ``resolved``: the first has been."""
        fold, steps = self.fold, self._steps
        while steps:
            step = steps[0]
            if not resolved and _refers(fold, step):
                return step
            resolved = False
            if isinstance(step, Touch):
                changes = fold.touch(step)
            else:
                changes = fold.apply(step)
                self._tokens += step.tokens
                self._checkpoint()
            for departure in changes.left:
                self.evicted[departure.policy] += len(departure.seqs)
            steps.popleft()
        return None

    def _checkpoint(self) -> None:
        head = self.fold.head
        if self._on_made is None or head % checkpoints.PLACES:
            return
        if head - self._checkpointed >= checkpoints.EVERY_EVENTS or self._tokens >= checkpoints.EVERY_TOKENS:
            self._made.append(checkpoints.make(self.fold))
            self._checkpointed, self._tokens = head, 0

    def _hand_over(self) -> None:
        """Hand over the checkpoints that were made, on the loop."""
        if self._on_made is not None:
            for made in self._made:
                self._on_made(made)
        self._made.clear()

    async def _resolve(self, step: Item | Touch) -> Item | Touch:
        """Look up what a step refers to."""
        if isinstance(step, Touch):
            return msgspec.structs.replace(step, named=await self.named(step.seq, step.at))
        if step.type == "pin":
            return msgspec.structs.replace(step, named=await self.named(step.seq_named or 0, step.seq - 1))
        if step.decision is not None:
            return msgspec.structs.replace(step, named=await self.named(step.decision.seq, step.seq - 1))
        return await self._staled(step, step.seq - 1)

    async def named(self, seq: int, until: int) -> tuple[Item, ...]:
        """Return an event that was named with all events of its call up to ``until``; none when it is gone."""
        if not self._floor < seq <= until:
            return ()
        event = self.events.get(seq) or (await self.reader.events([seq])).get(seq)
        if event is None or event.erased_at is not None:
            return ()
        events = [event]
        if event.type in _PAST_CALL and event.call_id is not None:
            events = await self.reader.call(event.call_id, self._floor, until)
        if self._keep_events:
            self.events.update((one.seq, one) for one in events)
        items = await self._run(measure, events)
        return tuple([await self._staled(item, until) for item in items])

    async def _staled(self, item: Item, until: int) -> Item:
        """Mark a summary one of whose events has been erased; it covers only what came before it."""
        if item.covers is None or item.erased:
            return item
        low, high = max(item.covers.first_seq, self._floor + 1), min(item.covers.last_seq, item.seq - 1, until)
        return msgspec.structs.replace(item, stale=low <= high and await self.reader.has_erased(low, high))

    def _missing(self) -> set[int]:
        return {part.seq for unit in self.fold.kept.residents for part in unit.parts} - self.events.keys()

    def _prune(self) -> None:
        """Let go of the events that are not resident."""
        if len(self.events) > 2 * len(self.fold.kept.residents) + STRIDE:
            shown = {part.seq for unit in self.fold.kept.residents for part in unit.parts}
            self.events = {seq: event for seq, event in self.events.items() if seq in shown}

    async def _complete(self) -> bool:
        """Read the residents' events that are not at hand; says whether there were any."""
        self._prune()
        missing = self._missing()
        if missing:
            found = await self.reader.events(missing)
            if found.keys() != missing:
                raise Outpaced
            self.events.update(found)
        return bool(missing)

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


def _refers(fold: Fold, step: Item | Touch) -> bool:
    """Whether a step refers to events that the fold does not hold."""
    if isinstance(step, Touch):
        return fold.lacks(step.seq)
    if step.type == "pin":
        return not step.erased and fold.lacks(step.seq_named or 0)
    if step.decision is not None:
        return fold.lacks(step.decision.seq)
    return step.covers is not None and not step.erased
