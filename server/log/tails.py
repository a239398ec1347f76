"""The newest events of conversations that are being read, encoded: most reads of a chat are of its end.

What is held is only ever served after the database has said that it is what the conversation shows now (one look-up by
key, shared by all that ask at once): another server's append shows at once, and erased text never.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from server.cache import Cache
from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.errors import NotFound
from server.log.append import Committed
from server.log.events import NewEvent
from server.log.heads import Heads
from server.log.read import Page, State, read_range
from server.log.stored import stored

MAX_EVENTS: Final = 200  # of one conversation
MAX_BYTES: Final = 256 * 1024  # of one conversation
_HELD_TAIL: Final = 1000  # bytes that a tail takes without its events
_HELD: Final = 64  # bytes that holding one more encoded event takes
_HELD_FRESH: Final = 700  # bytes that an event takes while it is not encoded, beside its content and metadata

Encoded = bytes  # one event as JSON

_encode: Final = msgspec.json.Encoder().encode


class EncodedPage(NamedTuple):
    """A range of events, each as JSON; ``recorded_at`` is the conversation's, as in ``State``."""

    events: list[Encoded]
    has_more: bool
    head: int
    recorded_at: datetime

    def encode(self) -> bytes:
        """Return it as msgspec would encode a ``Page`` of data, has_more and head."""
        return b'{"data":[%b],"has_more":%b,"head":%d}' % (
            b",".join(self.events),
            b"true" if self.has_more else b"false",
            self.head,
        )


class _Fresh(NamedTuple):
    """An event that was appended, and that nobody has read yet."""

    event: NewEvent
    seq: int
    recorded_at: datetime


class _Stamp(NamedTuple):
    """What must be the same for the same events to be shown; see ``State``."""

    head: int
    floor: int
    epoch: int
    recorded_at: datetime


class _Tail:
    """The events from ``low`` to the head; those that were appended since the last read are not encoded yet."""

    __slots__ = ("_encoded", "_items", "bytes", "low", "stamp")

    def __init__(self, stamp: _Stamp, items: Sequence[Encoded]) -> None:
        self.stamp = stamp
        self.bytes = _HELD_TAIL
        self._items: list[Encoded | _Fresh] = []
        self._encoded = 0
        for item in reversed(items[-MAX_EVENTS:]):
            if self.bytes + len(item) + _HELD > MAX_BYTES:
                break
            self._items.append(item)
            self.bytes += len(item) + _HELD
        self._items.reverse()
        self._encoded = len(self._items)
        self.low = stamp.head + 1 - self._encoded

    def extend(self, stamp: _Stamp, events: Sequence[NewEvent]) -> None:
        seq = self.stamp.head
        for event in events:
            seq += 1
            if isinstance(event.content, Raw):  # a view of the whole request would keep all of that alive
                event.content = event.content.copy()
            if isinstance(event.metadata, Raw):
                event.metadata = event.metadata.copy()
            fresh = _Fresh(event, seq, stamp.recorded_at)
            self._items.append(fresh)
            self.bytes += _size(fresh)
        self.stamp = stamp
        while len(self._items) > MAX_EVENTS or self.bytes > MAX_BYTES:
            self.bytes -= _size(self._items.pop(0))
            self.low += 1
            self._encoded = max(0, self._encoded - 1)

    def page(
        self, conversation: ConversationId, after_seq: int, before_seq: int | None, limit: int, descending: bool
    ) -> EncodedPage | None:
        """Return what such a read shows, or None when a part of that is not held."""
        head = self.stamp.head
        first = low = max(after_seq, self.stamp.floor) + 1
        last = high = head if before_seq is None else min(before_seq - 1, head)
        if descending:
            low = max(low, high - limit + 1)
        else:
            high = min(high, low + limit - 1)
        if low > high:
            return EncodedPage([], False, head, self.stamp.recorded_at)
        if low < self.low:
            return None
        events = self._between(conversation, low, high)
        if descending:
            events.reverse()
        return EncodedPage(events, low > first if descending else high < last, head, self.stamp.recorded_at)

    def _between(self, conversation: ConversationId, low: int, high: int) -> list[Encoded]:
        items = self._items
        for index in range(self._encoded, len(items)):
            fresh = items[index]
            assert isinstance(fresh, _Fresh)
            items[index] = encoded = _encode(stored(conversation, *fresh))
            self.bytes += _size(encoded) - _size(fresh)
        self._encoded = len(items)
        return items[low - self.low : high - self.low + 1]  # type: ignore[return-value]


def _size(item: Encoded | _Fresh) -> int:
    return len(item) + _HELD if isinstance(item, bytes) else item.event.size + _HELD_FRESH


class Tails:
    """The tails that one process holds, and the reads of ranges that they answer or that the database does."""

    def __init__(self, database: Database, heads: Heads, limit_bytes: int) -> None:
        self._database = database
        self._heads = heads
        self._cache: Cache[tuple[int, ConversationId], _Tail] = Cache(limit_bytes)
        self.hits = 0
        self.misses = 0

    @property
    def evictions(self) -> int:
        """How many tails had to make room for others."""
        return self._cache.evictions

    @property
    def bytes(self) -> int:
        """What is held."""
        return self._cache.bytes

    def on_append(self, committed: Committed) -> None:
        """Extend the conversation's tail, or drop it when it does not end where these events begin."""
        key = (committed.tenant.id, committed.conversation)
        tail = self._cache.peek(key)
        if tail is None:
            return
        stamp = _Stamp(committed.head, committed.floor, committed.epoch, committed.recorded_at)
        held = tail.stamp
        follows = (held.head, held.floor, held.epoch) == (committed.base, stamp.floor, stamp.epoch)
        if not follows or len(committed.events) > MAX_EVENTS:  # what brings so many at once is no chat
            self._cache.discard(key)
            return
        tail.extend(stamp, committed.events)
        self._cache.resize(key, tail.bytes)

    async def read_range(
        self,
        tenant: Tenant,
        conversation: ConversationId,
        *,
        after_seq: int = 0,
        before_seq: int | None = None,
        limit: int = 50,
        descending: bool = False,
        as_of: int | datetime | None = None,
    ) -> EncodedPage:
        """Read as ``server.log.read.read_range`` does, from memory where that holds all that is asked for."""
        key = (tenant.id, conversation)
        if as_of is None and (tail := self._cache.get(key)) is not None:
            try:
                state = await self._heads.read(tenant, conversation)
            except NotFound:
                self._cache.discard(key)
                raise
            if tail.stamp == _stamp(state):
                held = tail.page(conversation, after_seq, before_seq, limit, descending)
                if held is not None:
                    self.hits += 1
                    self._cache.resize(key, tail.bytes)
                    return held
        self.misses += 1
        page = await read_range(
            self._database,
            tenant,
            conversation,
            after_seq=after_seq,
            before_seq=before_seq,
            limit=limit,
            descending=descending,
            as_of=as_of,
        )
        events = [_encode(event) for event in page.events]
        encoded = EncodedPage(events, page.has_more, page.head, page.state.recorded_at)
        if as_of is None:
            self._hold(key, page, encoded.events[::-1] if descending else encoded.events)
        return encoded

    def _hold(self, key: tuple[int, ConversationId], page: Page, ascending: Sequence[Encoded]) -> None:
        """Hold the end of a page that reaches the head, unless more than that is held already."""
        events, state = page.events, page.state
        if events and state.head not in (events[0].seq, events[-1].seq):
            return
        if events and abs(events[0].seq - events[-1].seq) + 1 != len(events):
            return
        tail = _Tail(_stamp(state), ascending)
        held = self._cache.peek(key)
        if held is not None and held.stamp == tail.stamp and held.low <= tail.low:
            return
        self._cache.put(key, tail, tail.bytes)


def _stamp(state: State) -> _Stamp:
    return _Stamp(state.head, state.floor, state.epoch, state.recorded_at)
