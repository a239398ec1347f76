"""The fault path: what retrieval brings into a context beside the residents, within what is left of the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from server.context.assemble import Draft, Guest
from server.context.reading import Reader
from server.context.record import Retrieved, Searched
from server.database.connections import Database
from server.database.ids import ConversationId, parse_conversation_id
from server.database.tenant import Tenant
from server.log.stored import StoredEvent
from server.retrieval.newness import NEWNESS
from server.retrieval.turns import Key
from server.search import reading
from server.search.preferred import Preferred
from server.search.search import Found
from server.working_set.explain import Resident
from server.working_set.items import measure

# The share of a budget that is left to what is found. Measured on five LoCoMo conversations (benchmarks/eviction.py,
# with a fault path), recall at 10 % of the tokens, at the end: .902 at a half, .917 at .7, .926 at .8, .929 at .9 and
# .936 at all of it, whatever the policy. A tenth stays with the newest turns: no question asks for them, but every
# answer leans on them.
FOUND: Final = 0.9
SHARE: Final = f"found .9, {NEWNESS.name}/2"
_TOOL: Final = frozenset({"tool_call", "tool_result"})
_CALLS: Final = 16  # tool calls that are brought, at most: each is a read of its own
_ESTIMATED: Final = 1.5  # of the tokens that are left, so much is read by the index's estimates
_LEAST: Final = 16  # tokens for which cutting an event is worth it


class Faulted(NamedTuple):
    """What is brought, and the own events among it that were found themselves, best first."""

    guests: list[Guest]
    hits: list[int]


class _Wanted(NamedTuple):
    one: Preferred
    own: bool


async def fault(
    database: Database, tenant: Tenant, at: ConversationId, found: Found, draft: Draft, reader: Reader
) -> Faulted:
    """Fill what a draft has left with what was found, best first, passing over what no longer fits.

    A tool call comes with all of its results, or not at all; those of other conversations do not come.
    """
    wanted = _wanted(at, found, draft, reader)
    places = [(_owner(at, one.key), one.key.seq) for one, _ in wanted]
    read = await reading.answers(database, tenant, places)
    events = {one.key: event for (one, _), event in zip(wanted, read, strict=True) if event is not None}
    units = await _units(wanted, events, draft, reader)
    tokens = _tokens([event for unit in units for event in unit[1]])
    left = draft.left
    faulted = Faulted([], [])
    taken: set[int] = set()
    for (one, own), unit in units:
        size = sum(tokens[id(event)] for event in unit)
        if size > left or (own and any(event.seq in taken for event in unit)):
            continue
        conversation = None if own else found.named(one.key)[0]
        faulted.guests.extend(_guest(event, tokens[id(event)], one.why, conversation) for event in unit)
        left -= size
        if own:
            taken.update(event.seq for event in unit)
            if one.hit:
                faulted.hits.append(one.key.seq)
    if not faulted.guests and left >= _LEAST:
        _cut_the_best(faulted, units, tokens, left, found)
    return faulted


def retrieved(found: Found) -> Retrieved:
    """Return what is kept of a search."""
    explained = found.reply.explain
    return Retrieved(
        type=found.reply.type,
        share=SHARE,
        stamps=found.reply.stamps,
        degraded=found.reply.degraded,
        searched=None
        if explained is None
        else Searched(
            cues=[one.cue for one in explained.cues],
            also=explained.also,
            forced=explained.forced,
            budget=explained.budget,
            searched=explained.searched,
            ranked=explained.ranked,
            seconds=explained.seconds,
        ),
    )


def _wanted(at: ConversationId, found: Found, draft: Draft, reader: Reader) -> list[_Wanted]:
    """Return what is not shown already, for about as many tokens as are left."""
    shown = {(guest.conversation, guest.event.seq) for guest in draft.brought}
    left = _ESTIMATED * draft.left
    wanted = []
    for one in found.also:
        own = reader.lineage.owner(at.uuid, one.key.seq) == _owner(at, one.key).uuid
        if own:
            is_shown = draft.fold.kept.residents.of_seq(one.key.seq) is not None or (None, one.key.seq) in shown
            if is_shown or one.key.seq > draft.fold.head:
                continue
        elif found.named(one.key) in shown:
            continue
        wanted.append(_Wanted(one, own))
        left -= one.tokens
        if left <= 0:
            break
    return wanted


def _owner(at: ConversationId, key: Key) -> ConversationId:
    """Return who appended an event that was found: of this user, as ``at`` is; an index names it with or without."""
    return parse_conversation_id(key.conversation) or ConversationId(at.user_key, UUID(hex=key.conversation))


async def _units(
    wanted: Sequence[_Wanted], events: Mapping[Key, StoredEvent], draft: Draft, reader: Reader
) -> list[tuple[_Wanted, list[StoredEvent]]]:
    """Return the events that come together, in order of preference."""
    units = []
    calls = 0
    for one in wanted:
        event = events.get(one.one.key)
        if event is None or event.type == "summary":  # what it covers is found itself, if it is worth it
            continue
        if event.type not in _TOOL:
            units.append((one, [event]))
        elif one.own and event.call_id is not None and calls < _CALLS:
            calls += 1
            unit = _call(await reader.call(event.call_id, 0, draft.fold.head), event.seq)
            if unit and not any(draft.fold.kept.residents.of_seq(part.seq) for part in unit):
                units.append((one, [part for part in unit if part.seq not in draft.fold.kept.deleted]))
    return units


def _call(events: Sequence[StoredEvent], seq: int) -> list[StoredEvent]:
    """Return the call that an event belongs to with all of its results, since callers use ids again."""
    begins = [event.seq for event in events if event.type == "tool_call" and event.seq <= seq]
    if not begins:
        return []
    end = min((event.seq for event in events if event.type == "tool_call" and event.seq > seq), default=None)
    unit = [event for event in events if event.seq >= begins[-1] and (end is None or event.seq < end)]
    return unit if len(unit) > 1 and all(event.erased_at is None for event in unit) else []


def _tokens(events: Sequence[StoredEvent]) -> dict[int, int]:
    """Return the tokens of events, by identity: seqs are those of several conversations."""
    return {id(event): max(1, item.tokens) for event, item in zip(events, measure(events), strict=True)}


def _guest(event: StoredEvent, tokens: int, why: str, conversation: str | None, limit: int | None = None) -> Guest:
    charge = tokens if limit is None else min(tokens, limit)
    resident = Resident(seq=event.seq, tokens=charge, whole=tokens, why=f"faulted in: {why}", unit=event.seq)
    return Guest(event, resident, conversation=conversation)


def _cut_the_best(
    faulted: Faulted,
    units: Sequence[tuple[_Wanted, list[StoredEvent]]],
    tokens: Mapping[int, int],
    left: int,
    found: Found,
) -> None:
    for (one, own), unit in units:
        if len(unit) == 1:
            conversation = None if own else found.named(one.key)[0]
            faulted.guests.append(_guest(unit[0], tokens[id(unit[0])], one.why, conversation, left))
            if own and one.hit:
                faulted.hits.append(one.key.seq)
            return
