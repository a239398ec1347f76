"""The newest events of conversations that are being read, encoded: most reads of a chat are of its end.

What is held is only ever served after the database has said that it is what the conversation shows now (one look-up by
key, shared by all that ask at once): another server's append shows at once, and erased text never.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from schema.vocabulary import EventType, Role
from server.cache import Cache
from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.errors import NotFound
from server.log.append import Committed
from server.log.events import NewEvent
from server.log.heads import Heads
from server.log.read import Page, State, read_range
from server.log.stored import StoredEvent, stored

MAX_EVENTS: Final = 200  # of one conversation
MAX_BYTES: Final = 256 * 1024  # of one conversation
_HELD_TAIL: Final = 1000  # bytes that a tail takes without its events
_HELD: Final = 64  # bytes that holding one more encoded event takes
_HELD_FRESH: Final = 700  # bytes that an event takes while it is not encoded, beside its content and metadata

Encoded = bytes  # one event as JSON


class Seen(msgspec.Struct):
    """What is read again of an event as JSON, to make a view of it: all but its times and labels."""

    id: str
    seq: int
    type: EventType
    role: Role | None = None
    name: str | None = None
    content: Raw | UnsetType = UNSET
    call_id: str | None = None
    metadata: Raw | UnsetType = UNSET
    erased_at: str | None = None


class View(Protocol):
    """What some reader makes of an event, kept beside it; ``size`` in bytes."""

    @property
    def size(self) -> int: ...


V = TypeVar("V", bound=View)
Viewing = Callable[[Seen | StoredEvent], V]

_seen: Final = msgspec.json.Decoder(Seen)
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


class ViewedPage(NamedTuple, Generic[V]):
    """A range of views of events, as in ``EncodedPage``."""

    events: list[V]
    has_more: bool
    head: int
    recorded_at: datetime


class _Asked(NamedTuple):
    """A range, as ``server.log.read.read_range`` takes it."""

    after_seq: int
    before_seq: int | None
    limit: int
    descending: bool


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

    __slots__ = ("_encoded", "_items", "_viewing", "_views", "bytes", "low", "stamp")

    def __init__(self, stamp: _Stamp, items: Sequence[Encoded]) -> None:
        self.stamp = stamp
        self.bytes = _HELD_TAIL
        self._items: list[Encoded | _Fresh] = []
        self._encoded = 0
        self._viewing: Viewing[Any] | None = None
        self._views: dict[int, Any] = {}
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
            self._forget_first()

    def _forget_first(self) -> None:
        self.bytes -= _size(self._items.pop(0))
        if self.low in self._views:
            self.bytes -= self._views.pop(self.low).size
        self.low += 1
        self._encoded = max(0, self._encoded - 1)

    def page(self, conversation: ConversationId, asked: _Asked) -> EncodedPage | None:
        """Return what such a read shows, or None when a part of that is not held."""
        found = self._interval(asked)
        if found is None:
            return None
        low, high, has_more = found
        events = self._between(conversation, low, high)
        return EncodedPage(_ordered(events, asked), has_more, self.stamp.head, self.stamp.recorded_at)

    def views(self, conversation: ConversationId, asked: _Asked, viewing: Viewing[V]) -> ViewedPage[V] | None:
        """Return the same of views, of which those that were made before are held."""
        found = self._interval(asked)
        if found is None:
            return None
        low, high, has_more = found
        if self._viewing is not viewing:
            self.keep(viewing, [])
        held = self._views
        missing = [seq for seq in range(low, high + 1) if seq not in held]
        if missing:
            events = self._between(conversation, missing[0], high)
            for seq in missing:
                held[seq] = view = viewing(_seen.decode(events[seq - missing[0]]))
                self.bytes += view.size
        views = [held[seq] for seq in range(low, high + 1)]
        while self.bytes > MAX_BYTES and self._items:
            self._forget_first()
        return ViewedPage(_ordered(views, asked), has_more, self.stamp.head, self.stamp.recorded_at)

    def keep(self, viewing: Viewing[V], views: Sequence[V]) -> None:
        """Hold views of the newest events, in place of all that are held."""
        self.bytes -= sum(view.size for view in self._views.values())
        self._viewing = viewing
        first = self.stamp.head + 1 - len(views)
        self._views = {seq: view for seq, view in enumerate(views, first) if seq >= self.low}
        self.bytes += sum(view.size for view in self._views.values())

    def _interval(self, asked: _Asked) -> tuple[int, int, bool] | None:
        """Return the first and last seq of a range that is held, and whether it goes on; first > last: it is empty."""
        first = low = max(asked.after_seq, self.stamp.floor) + 1
        last = high = self.stamp.head if asked.before_seq is None else min(asked.before_seq - 1, self.stamp.head)
        if asked.descending:
            low = max(low, high - asked.limit + 1)
        else:
            high = min(high, low + asked.limit - 1)
        if low > high:
            return low, high, False
        return None if low < self.low else (low, high, low > first if asked.descending else high < last)

    def _between(self, conversation: ConversationId, low: int, high: int) -> list[Encoded]:
        if low > high:
            return []
        items = self._items
        for index in range(self._encoded, len(items)):
            fresh = items[index]
            assert isinstance(fresh, _Fresh)
            items[index] = encoded = _encode(stored(conversation, *fresh))
            self.bytes += _size(encoded) - _size(fresh)
        self._encoded = len(items)
        return items[low - self.low : high - self.low + 1]  # type: ignore[return-value]


T = TypeVar("T")


def _ordered(ascending: list[T], asked: _Asked) -> list[T]:
    return ascending[::-1] if asked.descending else ascending


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
        asked = _Asked(after_seq, before_seq, limit, descending)
        key = (tenant.id, conversation)
        tail = await self._current(key, conversation, tenant) if as_of is None else None
        held = tail.page(conversation, asked) if tail is not None else None
        if tail is not None and held is not None:
            self._hit(key, tail)
            return held
        self.misses += 1
        page = await read_range(self._database, tenant, conversation, **asked._asdict(), as_of=as_of)
        events = [_encode(event) for event in page.events]
        if as_of is None and _reaches_the_head(page):
            self._hold(key, _Tail(_stamp(page.state), _ordered(events, asked)))
        return EncodedPage(events, page.has_more, page.head, page.state.recorded_at)

    async def read_views(
        self,
        tenant: Tenant,
        conversation: ConversationId,
        viewing: Viewing[V],
        *,
        after_seq: int = 0,
        before_seq: int | None = None,
        limit: int = 50,
        descending: bool = False,
    ) -> ViewedPage[V]:
        """Read a range as ``read_range`` does, and return what ``viewing`` makes of each event."""
        asked = _Asked(after_seq, before_seq, limit, descending)
        key = (tenant.id, conversation)
        tail = await self._current(key, conversation, tenant)
        held = tail.views(conversation, asked, viewing) if tail is not None else None
        if tail is not None and held is not None:
            self._hit(key, tail)
            return held
        self.misses += 1
        page = await read_range(self._database, tenant, conversation, **asked._asdict())
        views = [viewing(event) for event in page.events]
        if _reaches_the_head(page):
            tail = _Tail(_stamp(page.state), [_encode(event) for event in _ordered(page.events, asked)])
            tail.keep(viewing, _ordered(views, asked))
            self._hold(key, tail)
        return ViewedPage(views, page.has_more, page.head, page.state.recorded_at)

    async def _current(
        self, key: tuple[int, ConversationId], conversation: ConversationId, tenant: Tenant
    ) -> _Tail | None:
        """Return the tail that is held, if the database says that it shows what is there now; raises NotFound."""
        tail = self._cache.get(key)
        if tail is None:
            return None
        try:
            state = await self._heads.read(tenant, conversation)
        except NotFound:
            self._cache.discard(key)
            raise
        return tail if tail.stamp == _stamp(state) else None

    def _hit(self, key: tuple[int, ConversationId], tail: _Tail) -> None:
        self.hits += 1
        self._cache.resize(key, tail.bytes)

    def _hold(self, key: tuple[int, ConversationId], tail: _Tail) -> None:
        """Hold a tail, unless more than that is held already."""
        held = self._cache.peek(key)
        if held is None or held.stamp != tail.stamp or held.low > tail.low:
            self._cache.put(key, tail, tail.bytes)


def _reaches_the_head(page: Page) -> bool:
    """Whether a page is the end of the log, and whole: one that reads nothing is."""
    events = page.events
    return not events or (
        page.state.head in (events[0].seq, events[-1].seq) and abs(events[0].seq - events[-1].seq) + 1 == len(events)
    )


def _stamp(state: State) -> _Stamp:
    return _Stamp(state.head, state.floor, state.epoch, state.recorded_at)
