"""The fold: a conversation's residents as a deterministic function of its log and its touches.

The hard rules, which hold for every policy:

- The residents' charges never exceed the budget.
- Pins never leave, unless they or the tool call that they belong to are erased or deleted, and take at most half of the
  budget; a pin beyond that has no effect. What is pinned is whole, but for a tool call whose later results exceed the
  quota.
- A tool call and its results are one unit. A result whose call is not at hand does not become resident.
- The newest user message stays. No event, nor a tool call with its results, takes more than half of the budget, or
  what pins and the newest user message leave: the rest is cut, with a marker, when it is rendered.
- A summary stands in for the events that it covers: they leave, but for pins, constraints and the newest user message.
  A touched one comes back. A summary of an erased or deleted event leaves.
- Constraints that hold (standing.py) leave last, up to a quarter of the budget; beyond that the oldest become ordinary
  events, and so do those that are dismissed or superseded.

The fold is total: a control event that cannot be honoured has no effect, and ``Changes.refused`` says why. Those who
append ask ``check_choice``, ``check_pin`` and ``check_decision`` first. An append costs what its policy costs, O(log n)
amortised; a summary and a new choice look at every resident.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from server.errors import InvalidInput
from server.working_set.changes import Changes
from server.working_set.choice import Choice, check
from server.working_set.items import Item, Touch
from server.working_set.rarity import WordCounts
from server.working_set.standing import Decision, setting_of
from server.working_set.units import Part, Unit
from server.working_set.working_set import WorkingSet

_TOOL: Final = ("tool_call", "tool_result")


class Fold:
    """The working set of one conversation after its first ``head`` events, and the touches since.

    ``start``: the seq up to which nothing is left of it, since retention has removed that.
    """

    def __init__(self, choice: Choice | None = None, start: int = 0) -> None:
        self.kept = WorkingSet(choice or Choice())
        self.kept.head = self.kept.step = start
        self.words = WordCounts()

    @property
    def head(self) -> int:
        """The last seq that was folded."""
        return self.kept.head

    @property
    def used(self) -> int:
        """The tokens that the residents take."""
        return self.kept.residents.used

    @property
    def choice(self) -> Choice:
        """The policy, budget and parameters in force."""
        return self.kept.choice

    def apply(self, item: Item) -> Changes:
        """Fold the next event; raises ValueError for any other."""
        if item.seq != self.head + 1:
            raise ValueError(f"the fold stands at {self.head}: the next event is {self.head + 1}, not {item.seq}")
        self.kept.head = item.seq
        changes = self._next_step()
        if item.erased:
            return changes
        match item.type:
            case "pin":
                changes.refused = self._pin(item)
            case "unpin":
                changes.refused = self._unpin(item)
            case "erasure":
                self._release(item.seq_named or 0, "erased")
            case "deletion":
                self.kept.deleted.add(item.seq_named or 0)
                self._release(item.seq_named or 0, "deleted")
            case "working_set":
                changes.refused = self._choose(item)
            case "run":
                pass
            case "constraint" if item.decision is not None:
                changes.refused = self._decide(item.decision, item.named)
            case _:
                changes.refused = self._append(item)
        return changes

    def touch(self, touch: Touch) -> Changes:
        """Fold a touch at the head; raises ValueError for one that belongs elsewhere."""
        if touch.at != self.head:
            raise ValueError(f"the fold stands at {self.head}: a touch at {touch.at} does not follow")
        changes, kept = self._next_step(), self.kept
        resident = kept.residents.of_seq(touch.seq)
        unit = resident or self._named(touch.seq, touch.named)
        if unit is None:
            changes.refused = f"event {touch.seq} cannot be resident"
            return changes
        unit.used = kept.step
        if resident is None:
            unit.faulted = True
            kept.enter(unit)
            return changes
        unit.touches += 1
        if unit.placeholder is not None:
            kept.withdraw(unit)
            kept.enter(unit)
        elif unit.id not in kept.residents.held:
            kept.policy.touch(unit)
        return changes

    def lacks(self, seq: int) -> bool:
        """Say whether an event would have to be named with a touch or a pin of it, since it is not resident."""
        return self.kept.residents.of_seq(seq) is None

    def check_pin(self, seq: int, named: Sequence[Item] = ()) -> None:
        """Raise InvalidInput when a pin of that event would have no effect; ``named`` as in ``Item``."""
        refused = self.kept.refuse_pin(self.kept.residents.of_seq(seq) or self._named(seq, named), seq)
        if refused is not None:
            raise InvalidInput(refused, param="seq")

    def check_choice(self, choice: Choice) -> None:
        """Raise InvalidInput when a choice would have no effect."""
        check(choice, pinned=self.kept.residents.taken("pin"))

    def check_decision(self, decision: Decision, named: Sequence[Item] = ()) -> None:
        """Raise InvalidInput when a decision would have no effect; ``named`` as in ``Item``."""
        refused = self._refuse_decision(decision, named)
        if refused is not None:
            raise InvalidInput(refused, param="seq")

    def _next_step(self) -> Changes:
        self.kept.step += 1
        self.kept.changes = Changes()
        return self.kept.changes

    def _append(self, item: Item) -> str | None:
        kept, part = self.kept, self._part(item)
        self.words.add(item.features)
        if item.stale:
            return f"the summary {item.seq} covers an event that has been erased"
        if item.type in _TOOL and item.call_id is not None:
            unit = self._unit_of_call(part, item.call_id)
        else:
            unit = None if item.type == "tool_result" else Unit(parts=[part])
        if unit is None:
            return f"the tool call of the result {item.seq} is not at hand"
        setting = setting_of(item.seq, item.type, item.role, item.rules)
        if setting is not None:
            kept.govern(kept.standing.note(setting))
        if item.covers is not None:
            kept.cover(item.seq, item.covers.first_seq, item.covers.last_seq)
        if item.type == "message" and item.role == "user":
            kept.release_newest_user()
            kept.newest_user = item.seq
        unit.used = kept.step
        kept.enter(unit)
        return None

    def _part(self, item: Item) -> Part:
        return Part(
            seq=item.seq,
            type=item.type,
            role=item.role,
            tokens=max(1, item.tokens),  # so that the budget bounds the number of residents too
            call_id=item.call_id,
            rarity=self.words.rarity(item.features),
            features=msgspec.structs.replace(item.features, words=()),
            first_covered=item.covers.first_seq if item.covers else None,
            last_covered=item.covers.last_seq if item.covers else None,
        )

    def _unit_of_call(self, part: Part, call_id: str) -> Unit | None:
        """Return the unit that a tool call or result joins, out of the residents; None for a result without a call."""
        unit = self.kept.residents.of_call(call_id)
        if unit is not None:
            self.kept.withdraw(unit)
            unit.parts.append(part)
            return unit
        departed = self.kept.calls.pop(call_id, None)
        if departed is not None:
            return Unit(parts=[*departed, part], faulted=True)
        return Unit(parts=[part]) if part.type == "tool_call" else None

    def _named(self, seq: int, named: Iterable[Item]) -> Unit | None:
        """Make a unit of events that were named with a touch or a pin; None when they cannot be resident."""
        gone = self.kept.deleted
        there = (item for item in named if not (item.erased or item.stale or item.seq in gone or _covers(item, gone)))
        items = sorted(there, key=lambda item: item.seq)
        if all(item.seq != seq for item in items) or any(item.is_control for item in items):
            return None
        is_call = items[0].type == "tool_call" and len({item.call_id for item in items}) == 1
        if not is_call and (len(items) > 1 or items[0].type == "tool_result"):
            return None
        if any(self.kept.residents.of_seq(item.seq) for item in items):
            return None
        return Unit(parts=[self._part(item) for item in items])

    def _pin(self, item: Item) -> str | None:
        kept, seq = self.kept, item.seq_named or 0
        resident = kept.residents.of_seq(seq)
        unit = resident or self._named(seq, item.named)
        refused = kept.refuse_pin(unit, seq)
        if refused is not None or unit is None:
            return refused
        was_pinned = kept.hold_of(unit) == "pin"
        if resident is not None and not was_pinned:
            kept.withdraw(unit)
        kept.pins.add(seq)
        if not was_pinned:
            kept.enter(unit)
        return None

    def _unpin(self, item: Item) -> str | None:
        seq = item.seq_named or 0
        unit = self.kept.residents.of_seq(seq)
        if seq not in self.kept.pins or unit is None:
            return f"event {seq} is not pinned"
        self.kept.pins.discard(seq)
        self.kept.settle(unit)
        return None

    def _refuse_decision(self, decision: Decision, named: Sequence[Item]) -> str | None:
        seq = decision.seq
        if self.kept.standing.get(seq) is not None:
            return None
        item = next((item for item in named if item.seq == seq), None)
        if item is None or item.erased or seq in self.kept.deleted:
            return f"there is no event {seq}, or it is erased or deleted"
        if setting_of(seq, item.type, item.role, item.rules) is None:
            return (
                f"event {seq} sets nothing that is recognised, or its role may not: append a `constraint` event "
                "with the words that are to hold"
            )
        return None

    def _decide(self, decision: Decision, named: Sequence[Item]) -> str | None:
        refused = self._refuse_decision(decision, named)
        if refused is not None:
            return refused
        kept, seq = self.kept, decision.seq
        changed = []
        if kept.standing.get(seq) is None:  # it has been forgotten since
            item = next(item for item in named if item.seq == seq)
            setting = setting_of(seq, item.type, item.role, item.rules)
            assert setting is not None, "a decision on nothing is refused"
            changed = kept.standing.note(setting)
        kept.govern([*changed, *kept.standing.decide(decision)])
        if kept.standing.holds(seq) and kept.residents.of_seq(seq) is None:
            unit = self._named(seq, named)
            if unit is not None:
                unit.used, unit.faulted = kept.step, True
                kept.enter(unit)
        return None

    def _choose(self, item: Item) -> str | None:
        if item.choice is None:
            return "the event holds no choice of a policy and a budget"
        try:
            self.check_choice(item.choice)
        except InvalidInput as error:
            return error.message
        self.kept.choose(item.choice)
        return None

    def _release(self, seq: int, why: str) -> None:
        """Let go of an event that was erased or deleted, for good.

        After an erasure the log without the event is folded anew soon, but nothing may be shown until then.
        """
        kept = self.kept
        kept.pins.discard(seq)
        kept.govern(kept.standing.forget(seq))
        unit = kept.residents.of_seq(seq)
        if unit is not None:
            left = [part for part in unit.parts if part.seq != seq]
            kept.drop(unit, f"it was {why}")
            if left and left[0].type == "tool_call":
                unit.parts = left
                kept.enter(unit)
            else:  # results cannot stay without their call, pinned or not
                kept.pins.difference_update(part.seq for part in left)
        if kept.newest_user == seq:
            kept.newest_user = None
        for call_id in [call for call, parts in kept.calls.items() if any(part.seq == seq for part in parts)]:
            del kept.calls[call_id]
        for summary in [unit_id for unit_id, (first, last) in kept.summaries.items() if first <= seq <= last]:
            kept.pins.discard(summary)
            kept.drop(kept.residents[summary], f"it covers event {seq}, which was {why}")


def _covers(item: Item, deleted: Iterable[int]) -> bool:
    """Whether a summary that has left covers what was deleted: it does not come back, whichever was first."""
    covers = item.covers
    return covers is not None and any(covers.first_seq <= seq <= covers.last_seq for seq in deleted)
