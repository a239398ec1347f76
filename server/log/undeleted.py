"""Reads of what has not been deleted.

A deletion is logical: an event of its own, ``deletion`` ``{seq}``, which hides the event at that seq from those who
read this way, in the conversation that it stands in and in forks made after it. The log shows both, and nothing is
lost; erasure is another thing.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from schema.vocabulary import EventType, Role
from server.cache import Cache
from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.errors import NotFound
from server.log.events import deletion_of, raw
from server.log.read import read_deleted, read_event
from server.log.tails import Tails

_LARGEST: Final = 1000  # events of one read
_HELD: Final = 600  # bytes that knowing the deletions of a conversation takes,
_HELD_SEQ: Final = 80  # and each of them


class Seen(msgspec.Struct):
    """What is read of an event."""

    id: str
    seq: int
    type: EventType
    role: Role | None = None
    name: str | None = None
    content: Raw | UnsetType = UNSET
    call_id: str | None = None
    metadata: Raw | UnsetType = UNSET
    erased_at: str | None = None


class _Named(msgspec.Struct):
    seq: int


class Undeleted(NamedTuple):
    """Events in the order asked for, and whether there are more after them."""

    events: list[Seen]
    has_more: bool


class Deletions:
    """The seqs that have been deleted, of the conversations that are being read; bounded in bytes."""

    def __init__(self, database: Database, limit_bytes: int) -> None:
        self._database = database
        self._cache: Cache[tuple[int, ConversationId], _Known] = Cache(limit_bytes)

    async def read(
        self, tenant: Tenant, conversation: ConversationId, head: int, recorded_at: datetime
    ) -> frozenset[int]:
        """Return them as of a head and its time, which a page that was just read named, or of later ones."""
        key = (tenant.id, conversation)
        known = self._cache.get(key)
        if known is None or (known.head, known.recorded_at) != (head, recorded_at):
            seqs = await read_deleted(self._database, tenant, conversation)
            known = _Known(head, recorded_at, frozenset(seqs))
            self._cache.put(key, known, _HELD + _HELD_SEQ * len(seqs))
        return known.seqs


class _Known(NamedTuple):
    head: int
    recorded_at: datetime
    seqs: frozenset[int]


_seen: Final = msgspec.json.Decoder(Seen)
_named: Final = msgspec.json.Decoder(_Named)


async def read_undeleted(
    tails: Tails,
    deletions: Deletions,
    tenant: Tenant,
    conversation: ConversationId,
    *,
    types: Collection[str],
    after_seq: int | None = None,
    limit: int = 20,
    descending: bool = False,
) -> Undeleted:
    """Read up to ``limit`` events of some types beyond ``after_seq``, the order being ``descending`` or not.

    Neither what was erased is among them nor what was deleted. Raises NotFound.
    """
    found: list[Seen] = []
    deleted: set[int] = set()
    position, size, begun = after_seq, limit + 1, False
    while True:
        page = await tails.read_range(
            tenant,
            conversation,
            after_seq=0 if descending else position or 0,
            before_seq=position if descending else None,
            limit=size,
            descending=descending,
        )
        events = [_seen.decode(event) for event in page.events]
        if not events:
            return Undeleted(found, False)
        deleted.update(_named.decode(raw(event.content)).seq for event in events if event.type == "deletion")
        # A deletion follows what it deletes: read from the head on, it has been seen; else those beyond are asked for.
        if not begun and max(events[0].seq, events[-1].seq) < page.head:
            deleted |= await deletions.read(tenant, conversation, page.head, page.recorded_at)
        begun = True
        for event in events:
            if event.type in types and event.erased_at is None and event.seq not in deleted:
                if len(found) == limit:
                    return Undeleted(found, True)
                found.append(event)
        if not page.has_more:
            return Undeleted(found, False)
        position, size = events[-1].seq, min(_LARGEST, 2 * size)


async def is_deleted(database: Database, tenant: Tenant, conversation: ConversationId, seq: int) -> bool:
    """Say whether the event at a seq has been deleted."""
    try:
        await read_event(database, tenant, conversation, str(deletion_of(seq).id))
    except NotFound:
        return False
    return True
