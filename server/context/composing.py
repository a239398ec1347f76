"""A context, from what is asked to the answer: residents, constraints, and what retrieval brings."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from server.context import record
from server.context.assemble import Context, Guest, assemble, draft, limit_of
from server.context.faulting import FOUND, fault, retrieved
from server.context.governing import governing, looked_at
from server.context.hot import Hot, WorkingSets
from server.context.reach import Reach, Reaching
from server.context.record import Explained, LeftOut, Place, Record, Searched
from server.context.snapshots import Answered
from server.context.touches import Toucher
from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.log.read import read_events
from server.log.stored import StoredEvent
from server.search.asked import Asked
from server.search.search import Searcher
from server.working_set.explain import explain
from server.working_set.items import text_and_media
from server.working_set.smaller import copied

_ANSWERS: Final = 50  # that a type may put first: by their place in the log, or over the whole span


class Wanted(NamedTuple):
    """What is asked for.

    ``user``: whose other conversations are searched too, None for this one alone; ``format``: which of
    ``server.context.formats.known.WRITERS`` writes the messages, None for events.
    """

    query: str | None = None
    type: str | None = None
    user: str | None = None
    budget: int | None = None
    min_seq: int | None = None
    as_of: int | datetime | None = None
    explain: bool = False
    format: str | None = None


class Composer:
    """Composes contexts; one for each process."""

    def __init__(
        self, database: Database, working_sets: WorkingSets, reach: Reach, searcher: Searcher, toucher: Toucher
    ) -> None:
        self._database = database
        self._working_sets = working_sets
        self._reach = reach
        self._searcher = searcher
        self._toucher = toucher

    async def compose(self, tenant: Tenant, at: ConversationId, wanted: Wanted) -> Answered:
        """Return the answer for a conversation as it is, or was.

        Raises as ``WorkingSets.get``, ``draft`` and, with a query, ``Searcher.find`` do.
        """
        if wanted.query is not None:
            return await self._find(tenant, at, wanted, wanted.query)
        # Of the past, only what the conversation itself held then is known.
        reaching = [] if wanted.as_of is not None else await self._reach.read(tenant, at)
        places = [(one.conversation, one.event.seq) for one in reaching]
        question = ("context", wanted.budget, wanted.explain, wanted.format, *places)
        hot, events = await self._with_constraints(tenant, at, wanted, question)
        answered = hot.memo.get(question) if wanted.as_of is None else None
        if isinstance(answered, Answered):
            return answered
        answered = _answered(tenant, hot, events, reaching, wanted)
        if wanted.as_of is None:
            size = len(answered.rest) + len(answered.record)
            self._working_sets.remember(tenant, hot, question, answered, size)
        return answered

    async def _find(self, tenant: Tenant, at: ConversationId, wanted: Wanted, query: str) -> Answered:
        hot = await self._hot(tenant, at, wanted)
        limit = limit_of(hot.fold, wanted.budget)
        found = await self._searcher.find(
            tenant,
            Asked(
                query=query,
                k=_ANSWERS,
                user=wanted.user,
                conversation=at if wanted.user is None else None,
                type=wanted.type,
                min_seq=wanted.min_seq if wanted.user is None else None,
                until=hot.head if wanted.as_of is not None else None,
                also_tokens=limit,
                explain=wanted.explain,
            ),
        )
        reaching = [] if wanted.as_of is not None else await self._reach.read(tenant, at)
        hot, events = await self._with_constraints(tenant, at, wanted)
        # What follows waits for the database, and the fold may move on meanwhile.
        fold, reader = copied(hot.fold), hot.folding.reader
        constraints = governing(fold, events, reaching, query, every=found.wish.all_constraints)
        chosen = draft(fold, wanted.budget, constraints=constraints, reserve=int(FOUND * limit))
        faulted = await fault(self._database, tenant, at, found, chosen, reader)
        guests = faulted.guests
        spent = sum(guest.resident.tokens for guest in guests)
        if chosen.fold is not fold and chosen.left > spent:  # what was found leaves room to more residents
            reserve = spent + sum(guest.resident.tokens for guest in chosen.brought)
            wider = draft(fold, wanted.budget, constraints=constraints, reserve=reserve)
            beside = [guest for guest in guests if guest.conversation or wider.fold.lacks(guest.event.seq)]
            places = {guest.place for guest in wider.brought}
            beside = [guest for guest in beside if guest.place not in places]
            if sum(guest.resident.tokens for guest in beside) <= wider.left:
                chosen, guests = wider, beside
        context = assemble(chosen, events, guests)
        if wanted.as_of is None:
            self._toucher.touch(tenant, at, faulted.hits)
        kept = retrieved(found)
        explanation = explained(context, kept.searched) if wanted.explain else None
        made = Record.of(
            context, as_of=_moment(wanted.as_of), explain=explanation, retrieved=kept, format=wanted.format
        )
        at_hand = events | {guest.event.seq: guest.event for guest in guests if guest.conversation is None}
        rest = record.answer(made, at_hand, elsewhere_of([*chosen.brought, *guests]))
        return Answered.of(tenant, record.dump(made), made.head, rest)

    async def _with_constraints(
        self, tenant: Tenant, at: ConversationId, wanted: Wanted, question: Hashable = None
    ) -> tuple[Hot, dict[int, StoredEvent]]:
        """Return a working set with the events of its residents and constraints, or with an answer to a question."""
        more: dict[int, StoredEvent | None] = {}
        while True:
            hot = await self._hot(tenant, at, wanted)
            missing = [seq for seq in looked_at(hot.fold) if seq not in hot.events and seq not in more]
            if not missing or (question in hot.memo and wanted.as_of is None):
                return hot, {seq: event for seq, event in more.items() if event is not None} | hot.events
            found = await read_events(self._database, tenant, at, missing)
            more |= {seq: found.get(seq) for seq in missing}

    async def _hot(self, tenant: Tenant, at: ConversationId, wanted: Wanted) -> Hot:
        if wanted.as_of is not None:
            return await self._working_sets.as_of(tenant, at, wanted.as_of)
        return await self._working_sets.get(tenant, at, min_seq=wanted.min_seq)


def _answered(
    tenant: Tenant, hot: Hot, events: dict[int, StoredEvent], reaching: Sequence[Reaching], wanted: Wanted
) -> Answered:
    newest = hot.fold.kept.newest_user
    asked = text_and_media(events[newest].content)[0] if newest in events else None
    constraints = governing(hot.fold, events, reaching, asked, every=False)
    context = assemble(draft(hot.fold, wanted.budget, constraints=constraints), events)
    explanation = explained(context) if wanted.explain else None
    made = Record.of(context, as_of=_moment(wanted.as_of), explain=explanation, format=wanted.format)
    return Answered.of(tenant, record.dump(made), made.head, record.answer(made, events, elsewhere_of(constraints)))


def _moment(as_of: int | datetime | None) -> int | str | None:
    return as_of.isoformat() if isinstance(as_of, datetime) else as_of


def elsewhere_of(guests: Sequence[Guest]) -> dict[Place, StoredEvent]:
    """Return the events of other conversations among guests."""
    return {(guest.conversation, guest.event.seq): guest.event for guest in guests if guest.conversation is not None}


def explained(context: Context, searched: Searched | None = None) -> Explained:
    """Return why residents are not shown, what left last and what would leave next."""
    return Explained(
        left_out=[
            LeftOut(
                seq=one.seq,
                why="its charge has no room for a word"
                if one.complete
                else "a tool call whose result is still to come",
            )
            for one in context.left_out
        ],
        near=explain(context.fold),
        search=searched,
    )
