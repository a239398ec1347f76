"""One family's index in memory: loaded from the log and the vectors, brought up to date, not rebuilt for an append.

New events and vectors are added; a conversation that shows less than before (a raised epoch or floor) is looked through
again, and what is gone is removed. Only a family that was erased and has come again is indexed anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from copy import deepcopy
from time import monotonic
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

import msgspec
import numpy as np
from msgspec import structs

from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.embeddings.vectors import vectors_of
from server.embeddings.versions import Version
from server.log.events import raw
from server.log.stored import StoredEvent
from server.retrieval.index import Index
from server.retrieval.text import build
from server.retrieval.turns import Entry, Key, Mask, View
from server.search import reading
from server.search.bodies import MOST_BYTES, Bodies
from server.search.family import NO_VERSION, Family, Member, Members, Stamp, members
from server.search.labels import Labels
from server.search.reading import Range
from server.search.visible import Deletion, shown_by, shown_to_user
from server.working_set import tokens

T = TypeVar("T")

# What a search may do on the loop: about a millisecond or two. More goes to a thread.
ON_THE_LOOP: Final = 3_000  # events searched
_ADD_ON_THE_LOOP: Final = 16  # events indexed
# What an event takes, by a process's growth, with messages of 30 words and 256 dimensions; see benchmarks/search.py.
EVENT_BYTES: Final = 2_600
_EMPTY_BYTES: Final = 40_000
_MOST_VIEWS: Final = 4
_VIEW_BYTES: Final = 100  # an event's neighbours and lengths in one view
_BODY_BYTES: Final = 900  # of an event that was an answer
_OVERHEAD: Final = 1.4  # of a process over what can be counted: the allocator's share, and what loading leaves behind
_RECOUNT: Final = 1.05  # counting reads every term, so it is done only after some growth
_VECTORS_AT_ONCE: Final = 20_000
_FRAME: Final = 4  # tokens of a message besides its text, in common chat templates

_BEGUN: Final = Stamp(-1, 0, 0, 0)  # of no family: there is something to catch up with

_named: Final = msgspec.json.Decoder(dict[str, int])


class _Read(NamedTuple):
    """A page of events, ready to be indexed."""

    entries: list[Entry]
    events: list[StoredEvent]
    deletions: list[Deletion]


class _Copied(NamedTuple):
    """What an index begins with that is like another one but for the vectors."""

    words: Index
    labels: Labels
    indexed: dict[UUID, int]
    deletions: list[Deletion]
    members: Mapping[UUID, Member]
    counted: int
    nbytes: int


class Resident:
    """Use ``index`` and the masks by `run` only, which keeps searches and changes apart.

    ``others``: gives the indexes of the same family for other versions.
    """

    def __init__(
        self,
        family: Family,
        version: Version | None,
        executor: Executor,
        others: Callable[[], Sequence[Resident]] = lambda: (),
    ) -> None:
        self.family = family
        self.version = version
        self.index = Index()
        self.labels = Labels()
        self.stamp: Stamp | None = None
        self.members: Mapping[UUID, Member] = {}
        self.validated = 0.0  # when the question was asked whose answer is shown; monotonic
        self.nbytes = _EMPTY_BYTES
        self._executor = executor
        self._others = others
        self._lock = asyncio.Lock()
        self._catching_up: asyncio.Task[None] | None = None
        self._indexed: dict[UUID, int] = {}
        self._embedded: dict[UUID, int] = {}
        self._deletions: list[Deletion] = []
        self._views: dict[UUID | None, View] = {}
        self._bodies = Bodies()
        self._counted = 0  # events when the bytes were counted
        self.loading = (0, 0)  # events done, of how many

    async def catch_up(self, database: Database, tenant: Tenant, stamp: Stamp, asked: float) -> None:
        """Come to a state that was read at ``asked``, or to a later one. Raises DatabaseUnavailable.

        Work that has begun goes on when the caller does not wait for it.
        """
        while self.stamp != stamp and self.validated < asked:
            if self._catching_up is None or self._catching_up.done():
                self._catching_up = asyncio.create_task(self._catch_up(database, tenant), name="catch up")
            await asyncio.shield(self._catching_up)

    async def copied(self) -> _Copied | None:
        """Return all of it but the vectors, for another version; None of an index that was never up to date."""
        if self._catching_up is not None:
            await asyncio.wait({self._catching_up})

        def copy() -> _Copied | None:
            # Half of a catch-up would be taken for all of it: what was erased meanwhile might stay.
            if self.stamp is None or (self._catching_up is not None and not self._catching_up.done()):
                return None
            return _Copied(
                self.index.without_vectors(),
                deepcopy(self.labels),
                dict(self._indexed),
                list(self._deletions),
                self.members,
                self._counted,
                self.nbytes,
            )

        return await self.run(copy, thread=True)

    async def read(self, database: Database, tenant: Tenant, keys: Sequence[Key]) -> list[StoredEvent | None]:
        """Return events as of the state that the index was brought to, or of a later one; None for what is gone.

        Raises DatabaseUnavailable.
        """
        bodies = self._bodies
        found = [bodies.get(key) for key in keys]
        missing = [key for key, event in zip(keys, found, strict=True) if event is None]
        if not missing:
            return found
        places = [(ConversationId(self.family.user_key, UUID(hex=key.conversation)), key.seq) for key in missing]
        read = dict(zip(missing, await reading.answers(database, tenant, places), strict=True))
        for key, event in read.items():
            if event is not None:
                bodies.put(key, event)  # which nobody asks any more, if something was removed meanwhile
        return [read.get(key) if event is None else event for key, event in zip(keys, found, strict=True)]

    async def run(self, work: Callable[[], T], *, thread: bool) -> T:
        """Do something with the index while nobody changes it, in a thread if it takes long."""
        if not thread and not self._lock.locked():
            return work()

        async def alone() -> T:
            async with self._lock:
                return await asyncio.get_running_loop().run_in_executor(self._executor, work)

        # Left alone, a thread that nobody waits for would go on without the lock.
        return await asyncio.shield(asyncio.ensure_future(alone()))

    def view(self, conversation: UUID | None = None) -> View:
        """Return what a live conversation shows, or (None) what any does; kept until the index changes."""
        view = self._views.get(conversation)
        if view is None:
            turns = self.index.turns
            mask = self.mask(conversation)
            view = View(turns, None if mask.sum() == turns.live else mask)
            while len(self._views) >= _MOST_VIEWS:
                del self._views[next(iter(self._views))]
            self._views[conversation] = view
        return view

    def mask(self, conversation: UUID | None) -> Mask:
        """Return the rows that a live conversation shows, or that any does."""
        if conversation is None:
            return shown_to_user(self.index.turns, self.members, self._deletions)
        return shown_by(self.index.turns, self.members[conversation], self._deletions)

    def is_embedded(self, wanted: Mapping[UUID, int]) -> bool:
        """Whether the own events of each owner up to a seq have their vectors."""
        return all(self._embedded.get(owner, 0) >= seq for owner, seq in wanted.items())

    def shown_in(self, owner: UUID, seq: int) -> UUID | None:
        """Return the live conversation that an event is to be named by: its owner, else the first that shows it."""
        member = self.members.get(owner)
        if member is not None and member.live and seq > member.floor:
            return owner
        for member in self.members.values():
            if member.live and any(one == owner and low <= seq <= high for one, low, high in member.segments()):
                return member.id
        return None

    async def _catch_up(self, database: Database, tenant: Tenant) -> None:
        if self.stamp is None and not len(self.index):
            await self._begin()
        asked = monotonic()
        found = await members(database, tenant, self.family, self.version.id if self.version else NO_VERSION)
        if self._is_replaced(found):
            await self.run(self._forget, thread=True)
        await self._remove_what_is_gone(database, tenant, found)
        await self._add_events(database, tenant, found)
        if self.version is not None:
            await self._add_vectors(database, tenant, found, self.version)
        size = len(self.index)
        recount = size > self._counted * _RECOUNT or size < self._counted / _RECOUNT or not self._counted
        await self.run(lambda: self._finish(found, asked, recount=recount), thread=recount and size > ON_THE_LOOP)

    async def _begin(self) -> None:
        """Take over what the family's index for another version knows beside vectors, if there is one.

        Reading the log takes many times as long. Nothing is shared: each goes on by itself.
        """
        for other in self._others():
            taken = await other.copied()
            if taken is not None:
                self.index, self.labels, self._indexed, self._deletions = taken[:4]
                self.members, self._counted, self.nbytes = taken[4:]
                self.stamp = _BEGUN
                return

    def _finish(self, found: Members, asked: float, *, recount: bool) -> None:
        self.members, self.stamp, self.validated = found.by_id, found.stamp, asked
        self._views.clear()
        if recount:
            self._counted = len(self.index)
            held = self.index.nbytes + self.labels.nbytes + _VIEW_BYTES * self._counted
            bodies = min(MOST_BYTES, _BODY_BYTES * self._counted)
            self.nbytes = _EMPTY_BYTES + int(_OVERHEAD * held) + bodies + 1_000 * len(found.by_id)
        else:
            self.nbytes += (len(self.index) - self._counted) * EVENT_BYTES

    def _is_replaced(self, found: Members) -> bool:
        """Whether a conversation is another one than that of its id which was indexed."""
        for uuid, now in found.by_id.items():
            before = self.members.get(uuid)
            if before is None:
                if uuid in self._indexed and self.stamp is not None:
                    return True
            elif now.head < before.head or (now.head == before.head and now.recorded_at != before.recorded_at):
                return True
        return False

    def _forget(self) -> None:
        self.index, self.labels = Index(), Labels()
        self.members, self.stamp = {}, None
        self._indexed.clear()
        self._embedded.clear()
        self._deletions.clear()
        self._views.clear()
        self._bodies = Bodies()
        self._counted = 0

    async def _remove_what_is_gone(self, database: Database, tenant: Tenant, found: Members) -> None:
        shrunk = [
            (uuid, 1, self._indexed[uuid])
            for uuid, before in self.members.items()
            if self._indexed.get(uuid) and _shows_less(before, found.by_id.get(uuid))
        ]
        if not shrunk:
            return
        left = await reading.live(database, tenant, self.family, shrunk)

        def remove() -> None:
            self._bodies = Bodies()
            turns = self.index.turns
            for owner, _, _ in shrunk:
                if owner.hex not in turns.conversations:
                    continue
                held = turns["live"] & (turns["conversation"] == turns.conversations.index(owner.hex))
                rows = np.flatnonzero(held & ~np.isin(turns["seq"], left.get(owner, [])))
                self.index.remove([turns.key(int(row)) for row in rows])
                self.labels.remove(rows)
            self._deletions = [one for one in self._deletions if one.owner in found.by_id]
            self._views.clear()

        await self.run(remove, thread=True)

    async def _add_events(self, database: Database, tenant: Tenant, found: Members) -> None:
        ranges: list[Range] = []
        for member in found.by_id.values():
            first, last = member.own
            first = max(first, self._indexed.get(member.id, 0) + 1)
            if first <= last:
                ranges.append((member.id, first, last))
        self.loading = (0, sum(high - low + 1 for _, low, high in ranges))
        async for page in reading.events(database, tenant, self.family, ranges):
            await self.run(lambda page=page: self._add(page), thread=len(page) > _ADD_ON_THE_LOOP)  # type: ignore[misc]
            self.loading = (self.loading[0] + len(page), self.loading[1])
        for owner, _, last in ranges:
            self._indexed[owner] = last

    def _add(self, page: Iterable[tuple[UUID, StoredEvent]]) -> None:
        read = _prepare(page, self._indexed)
        first = len(self.index.turns)
        self.index.add(read.entries)
        for row, event in enumerate(read.events, first):
            self.labels.add(row, event.session, event.metadata)
        self._deletions += read.deletions
        self._views.clear()

    async def _add_vectors(self, database: Database, tenant: Tenant, found: Members, version: Version) -> None:
        ranges = []
        for member in found.by_id.values():
            done = self._embedded.get(member.id, 0)
            if member.embedded > done:
                ranges.append((member.id, max(done, member.lineage.end) + 1, member.embedded))
            elif member.embedded < done:  # set back, to be embedded again
                self._embedded[member.id] = member.embedded
        for part in _parts(ranges, _VECTORS_AT_ONCE):
            wanted = [(owner, (low, high)) for owner, low, high in part if low <= high]
            read = await vectors_of(database, tenant, self.family.user_key, version, wanted)
            names = [owner.hex for owner in read.owners]

            def embed(read=read, names=names) -> None:  # type: ignore[no-untyped-def]
                keys = [Key(names[place], int(seq)) for place, seq in zip(read.owner, read.seqs, strict=True)]
                self.index.embed(keys, read.matrix)

            if len(read.seqs):
                await self.run(embed, thread=len(read.seqs) > _ADD_ON_THE_LOOP)
        for owner, _, high in ranges:
            self._embedded[owner] = high


def _prepare(page: Iterable[tuple[UUID, StoredEvent]], indexed: dict[UUID, int]) -> _Read:
    entries: list[Entry] = []
    events: list[StoredEvent] = []
    deletions: list[Deletion] = []
    names: dict[UUID, str] = {}
    for owner, event in page:
        if event.seq <= indexed.get(owner, 0):  # read before, by a load that did not come to its end
            continue
        indexed[owner] = event.seq
        if event.type == "deletion":
            deletions.append(Deletion(owner, event.seq, _named.decode(raw(event.content))["seq"]))
            continue
        text = build(event)
        if text is None:
            continue
        name = names.get(owner)
        if name is None:
            name = names[owner] = owner.hex
        events.append(event)
        entries.append(
            Entry(
                conversation=name,
                seq=event.seq,
                text=text.text,
                at=event.occurred_at.timestamp(),
                type=event.type,
                role=event.role,
                session=event.session,
                speaker=text.speaker,
                asks=text.asks,
            )
        )
    counts = tokens.count([entry.text for entry in entries])
    counted = [structs.replace(entry, tokens=count + _FRAME) for entry, count in zip(entries, counts, strict=True)]
    return _Read(counted, events, deletions)


def _shows_less(before: Member, now: Member | None) -> bool:
    return now is None or before.epoch != now.epoch or before.floor != now.floor or before.live != now.live


def _parts(ranges: Sequence[Range], size: int) -> list[list[Range]]:
    parts: list[list[Range]] = [[]]
    held = 0
    for owner, first, last in ranges:
        low = first
        while low <= last:
            if held >= size:
                parts.append([])
                held = 0
            high = min(last, low + size - held - 1)
            parts[-1].append((owner, low, high))
            held += high - low + 1
            low = high + 1
    return [part for part in parts if part]
