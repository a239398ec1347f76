"""Reads of what has not been deleted.

A deletion is logical: an event of its own, ``deletion`` ``{seq}``, which hides the event at that seq from those who
read this way, in the conversation that it stands in and in forks made after it. The log shows both, and nothing is
lost; erasure is another thing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Raw, UnsetType

from server.cache import Cache
from server.database.connections import Database
from server.database.ids import ConversationId, parse_event_id
from server.database.tenant import Tenant
from server.errors import NotFound
from server.log.append import Committed
from server.log.events import deletion_of, raw
from server.log.read import read_deleted, read_event, read_event_and_deletion
from server.log.stored import StoredEvent
from server.log.tails import Tails, Viewing

T = TypeVar("T")

_LARGEST: Final = 1000  # events of one read
_HELD: Final = 600  # bytes that knowing the deletions of a conversation takes,
_HELD_SEQ: Final = 80  # and each of them


class View(NamedTuple, Generic[T]):
    """What is listed of an event, None for one that is not; ``deletes``: the seq that it deletes."""

    seq: int
    shown: T | None
    size: int
    deletes: int | None = None


class _Named(msgspec.Struct):
    seq: int


class Undeleted(NamedTuple, Generic[T]):
    """What is listed, in the order asked for, and whether there is more after it."""

    shown: list[T]
    has_more: bool


class Deletions:
    """The seqs that have been deleted, of the conversations that are being read; bounded in bytes."""

    def __init__(self, database: Database, limit_bytes: int) -> None:
        self._database = database
        self._cache: Cache[tuple[int, ConversationId], _Known] = Cache(limit_bytes)

    def on_append(self, committed: Committed) -> None:
        """Keep what is known of a conversation current, if these events follow it."""
        key = (committed.tenant.id, committed.conversation)
        known = self._cache.peek(key)
        if known is not None and known.head == committed.base:
            more = {deleted_by(event.content) for event in committed.events if event.type == "deletion"}
            self._put(key, _Known(committed.head, committed.recorded_at, known.seqs | more if more else known.seqs))

    async def read(
        self, tenant: Tenant, conversation: ConversationId, head: int, recorded_at: datetime
    ) -> frozenset[int]:
        """Return them as of a head and its time, which a page that was just read named, or of later ones."""
        key = (tenant.id, conversation)
        known = self._cache.get(key)
        if known is None or (known.head, known.recorded_at) != (head, recorded_at):
            seqs = await read_deleted(self._database, tenant, conversation)
            known = _Known(head, recorded_at, frozenset(seqs))
            self._put(key, known)
        return known.seqs

    def _put(self, key: tuple[int, ConversationId], known: _Known) -> None:
        self._cache.put(key, known, _HELD + _HELD_SEQ * len(known.seqs))


class _Known(NamedTuple):
    head: int
    recorded_at: datetime
    seqs: frozenset[int]


_named: Final = msgspec.json.Decoder(_Named)


def deleted_by(content: Raw | UnsetType) -> int:
    """Return the seq that a deletion names."""
    return _named.decode(raw(content)).seq


async def read_undeleted(
    tails: Tails,
    deletions: Deletions,
    tenant: Tenant,
    conversation: ConversationId,
    viewing: Viewing[View[T]],
    *,
    after_seq: int | None = None,
    limit: int = 20,
    descending: bool = False,
) -> Undeleted[T]:
    """Read up to ``limit`` of what is listed beyond ``after_seq``, the order being ``descending`` or not.

    What was deleted is not among it. Raises NotFound.
    """
    found: list[T] = []
    deleted: set[int] = set()
    position, size, begun = after_seq, limit + 1, False
    while True:
        page = await tails.read_views(
            tenant,
            conversation,
            viewing,
            after_seq=0 if descending else position or 0,
            before_seq=position if descending else None,
            limit=size,
            descending=descending,
        )
        views = page.events
        if not views:
            return Undeleted(found, False)
        deleted.update(view.deletes for view in views if view.deletes is not None)
        # A deletion follows what it deletes: read from the head on, it has been seen; else those beyond are asked for.
        if not begun and max(views[0].seq, views[-1].seq) < page.head:
            deleted |= await deletions.read(tenant, conversation, page.head, page.recorded_at)
        begun = True
        for view in views:
            if view.shown is not None and view.seq not in deleted:
                if len(found) == limit:
                    return Undeleted(found, True)
                found.append(view.shown)
        if not page.has_more:
            return Undeleted(found, False)
        position, size = views[-1].seq, min(_LARGEST, 2 * size)


async def read_undeleted_event(
    database: Database, tenant: Tenant, conversation: ConversationId, event_id: str
) -> tuple[StoredEvent, bool]:
    """Return an event by its id, the caller's or the server's, and whether it has been deleted; raises NotFound.

    The server's id tells the seq, and so what a deletion of it is called: one look-up. By another it takes two.
    """
    named = parse_event_id(event_id)
    if named is not None:
        deletion = str(deletion_of(named.seq).id)
        return await read_event_and_deletion(database, tenant, conversation, named, deletion)
    found = await read_event(database, tenant, conversation, event_id)
    try:
        await read_event(database, tenant, conversation, str(deletion_of(found.seq).id))
    except NotFound:
        return found, False
    return found, True
