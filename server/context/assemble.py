"""What a model should see: pins, the working set, and what retrieval faulted in, in order and within a budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from server.context.render import Shown, plan
from server.log.stored import StoredEvent
from server.working_set.choice import MAX_BUDGET
from server.working_set.explain import Resident, residents
from server.working_set.fold import Fold
from server.working_set.smaller import under


class Guest(NamedTuple):
    """An event that is no resident, and how it is to be shown; ``conversation``: the id of another one of the user."""

    event: StoredEvent
    resident: Resident
    spans: tuple[tuple[int, int], ...] = ()
    conversation: str | None = None

    @property
    def place(self) -> tuple[str | None, int]:
        """What tells it from other guests."""
        return self.conversation, self.event.seq


class Draft(NamedTuple):
    """The residents under a budget, beside the constraints that are brought; ``left`` is what is free for more."""

    fold: Fold
    budget: int
    brought: list[Guest]

    @property
    def left(self) -> int:
        return self.budget - self.fold.used - sum(guest.resident.tokens for guest in self.brought)


class Context(NamedTuple):
    """What is shown of which events, in the order in which they are shown; ``tokens`` is their sum.

    Events of other conversations come first. ``left_out``: residents that are not shown: a tool call without a result,
    a charge without room for a word. ``fold``: whose residents these are, under the budget.
    """

    shown: list[Shown]
    tokens: int
    budget: int
    left_out: list[Resident]
    fold: Fold


def limit_of(fold: Fold, budget: int | None) -> int:
    """Return the budget of a context, the working set's own unless given; raises as ``draft`` does."""
    limit = fold.choice.budget_tokens if budget is None else budget
    if not 1 <= limit <= MAX_BUDGET or fold.used > limit:
        fold.check_choice(msgspec.structs.replace(fold.choice, budget_tokens=limit))
    return limit


def draft(fold: Fold, budget: int | None = None, *, constraints: Sequence[Guest] = (), reserve: int = 0) -> Draft:
    """Choose the residents under a budget, and bring the constraints that are not among them.

    ``budget`` is the working set's own unless given. ``constraints``: those that are to be shown, what matters most
    first; together with those that are resident they take at most a quarter of the budget. ``reserve``: tokens that are
    left to what is found, though never what pins and the newest user message need. Raises InvalidInput for a budget
    that is none, and for one that the pins do not fit in, saying how much is needed.
    """
    limit = limit_of(fold, budget)
    needed = max(1, 2 * fold.kept.residents.taken("pin"))
    # No event takes more than half, so that this leaves the newest user message as long as it is.
    most = min(limit, max(limit - reserve, needed, 2 * fold.kept.residents.taken("pin", "newest_user")))
    brought: dict[tuple[str | None, int], Guest] = {}
    while True:
        spent = sum(guest.resident.tokens for guest in brought.values())
        room = min(most, limit - spent)
        kept = under(fold, room) if fold.used > room else fold
        quota = limit // 4 - kept.kept.residents.taken("constraint") - spent
        before = len(brought)
        for guest in constraints:
            tokens = guest.resident.tokens
            is_missing = guest.place not in brought and not _is_resident(kept, guest)
            if is_missing and tokens <= quota and limit - spent - tokens >= needed:
                brought[guest.place] = guest
                quota, spent = quota - tokens, spent + tokens
        if len(brought) == before:
            return Draft(kept, limit, [guest for guest in brought.values() if not _is_resident(kept, guest)])


def assemble(chosen: Draft, events: Mapping[int, StoredEvent], found: Sequence[Guest] = ()) -> Context:
    """Assemble a context of a draft, its residents' events being at hand by their seqs, and of what was found.

    ``found``: events that retrieval brings in, tool calls with all of their results; together they take at most what
    the draft has left, and none of them is a resident.
    """
    guests = [*chosen.brought, *found]
    shown = _elsewhere([guest for guest in guests if guest.conversation is not None])
    ours = {guest.event.seq: guest for guest in guests if guest.conversation is None}
    at_hand = {**events, **{seq: guest.event for seq, guest in ours.items()}}
    candidates = sorted(
        [*residents(chosen.fold), *(guest.resident for guest in ours.values())], key=lambda one: one.seq
    )
    planned = {}
    for one in candidates:
        guest = ours.get(one.seq)
        plan_of_it = _plan(guest) if guest is not None else plan(events[one.seq], one)
        if plan_of_it is not None:
            planned[one.seq] = plan_of_it
    pairs = _pairs([at_hand[one.seq] for one in candidates], planned)
    own = [planned[seq] for seq in _in_order([at_hand[seq] for seq in planned], pairs)]
    seen = {one.seq for one in own}
    left_out = [one for one in candidates if one.seq not in seen]
    shown += own
    return Context(shown, sum(one.tokens for one in shown), chosen.budget, left_out, chosen.fold)


def _is_resident(fold: Fold, guest: Guest) -> bool:
    return guest.conversation is None and fold.kept.residents.of_seq(guest.event.seq) is not None


def _plan(guest: Guest) -> Shown | None:
    if not guest.spans:
        shown = plan(guest.event, guest.resident)
    else:
        shown = Shown(seq=guest.event.seq, tokens=guest.resident.tokens, reason=guest.resident.why, spans=guest.spans)
    return shown and msgspec.structs.replace(shown, conversation=guest.conversation)


def _elsewhere(guests: Sequence[Guest]) -> list[Shown]:
    """Order what is of other conversations: the one that began first, first; each as it happened."""
    by_conversation: defaultdict[str, list[Guest]] = defaultdict(list)
    for guest in sorted(guests, key=lambda guest: guest.event.seq):
        by_conversation[guest.conversation or ""].append(guest)
    shown: list[Shown] = []
    for _, group in sorted(by_conversation.items(), key=lambda one: (one[1][0].event.occurred_at, one[0])):
        events = [guest.event for guest in group]
        planned = {guest.event.seq: found for guest in group if (found := _plan(guest)) is not None}
        pairs = _pairs(events, planned)
        shown += [planned[seq] for seq in _in_order([one for one in events if one.seq in planned], pairs)]
    return shown


def _pairs(events: Sequence[StoredEvent], showable: Container[int]) -> dict[int, list[int]]:
    """Return the results of each tool call that can be shown with all of them.

    A result belongs to the last call before it with its id, since callers use ids again.
    """
    last: dict[str | None, int] = {}
    results: defaultdict[int, list[int]] = defaultdict(list)
    for event in events:
        if event.type == "tool_call":
            last[event.call_id] = event.seq
        elif event.type == "tool_result" and event.call_id in last:
            results[last[event.call_id]].append(event.seq)
    return {call: found for call, found in results.items() if all(seq in showable for seq in (call, *found))}


def _in_order(events: Sequence[StoredEvent], pairs: Mapping[int, list[int]]) -> Iterator[int]:
    """Order events as they happened, but for tool results: they directly follow their call.

    Both OpenAI and Anthropic refuse anything between a turn of tool calls and their results. Calls that nothing stands
    between are one turn; what was said while a tool ran comes after its result.
    """
    calls: list[int] = []
    for event in events:
        if event.type == "tool_call":
            if event.seq in pairs:
                calls.append(event.seq)
                yield event.seq
            continue
        yield from sorted(result for call in calls for result in pairs[call])
        calls.clear()
        if event.type != "tool_result":
            yield event.seq
    yield from sorted(result for call in calls for result in pairs[call])
