"""Residents under a budget: who may come in, what holds them, and what leaves to make room."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from server.working_set.changes import Changes, Departure
from server.working_set.choice import Choice, check, event_limit, make_policy, pin_quota
from server.working_set.policy import EvictionPolicy
from server.working_set.residents import Hold, Residents
from server.working_set.standing import Standing
from server.working_set.units import Part, Unit

_CALLS: Final = 256  # evicted tool calls whose results may still come
_DEPARTURES: Final = 64
_NO_ROOM: Final = "pins and the newest user message leave no room"


class WorkingSet:
    """The residents of one conversation. ``step`` counts what was folded, events and touches alike.

    ``calls``: the events of tool calls that left, the longest gone first. ``summaries``: what resident ones cover.
    """

    def __init__(self, choice: Choice) -> None:
        check(choice)
        self.choice = choice
        self.policy: EvictionPolicy = make_policy(choice)
        self.residents = Residents()
        self.head = 0
        self.step = 0
        self.pins: set[int] = set()
        self.deleted: set[int] = set()  # they do not come back
        self.newest_user: int | None = None
        self.standing = Standing()
        self.constraints: list[int] = []  # those of the residents that are held, the oldest first
        self.summaries: dict[int, tuple[int, int]] = {}
        self.calls: dict[str, list[Part]] = {}
        self.departures: list[Departure] = []
        self.changes = Changes()

    def restore(self, units: Iterable[Unit]) -> None:
        """Take in residents as they were, with pins, the newest user message and constraints set already."""
        for unit in units:
            self.residents.add(unit)
            self.residents.hold(unit.id, self.hold_of(unit))
            self._note_summary(unit)

    def hold_of(self, unit: Unit) -> Hold | None:
        """Return what keeps a unit from the policy."""
        if any(part.seq in self.pins for part in unit.parts):
            return "pin"
        if unit.id == self.newest_user:
            return "newest_user"
        return "constraint" if unit.id in self.constraints else None

    def refuse_pin(self, unit: Unit | None, seq: int) -> str | None:
        """Say why a unit may not be pinned, if so."""
        if unit is None:
            return f"event {seq} cannot be pinned: there is none, or it is a control event, a lone result, or erased"
        if self.hold_of(unit) == "pin":
            return None
        taken, quota = self.residents.taken("pin"), pin_quota(self.choice.budget_tokens)
        if taken + unit.tokens <= quota:
            return None
        return (
            f"pins may take {quota} tokens, half of the budget; {taken} are taken, and event {seq} needs "
            f"{unit.tokens}: unpin something, or raise the budget to {2 * (taken + unit.tokens)}"
        )

    def enter(self, unit: Unit) -> None:
        """Make room for a unit that is not resident, and take it in."""
        if self.standing.holds(unit.id) and unit.id not in self.constraints:
            self.constraints.append(unit.id)
        hold = self.hold_of(unit)
        unit.entered = self.step
        unit.limit(self._limit(hold))
        if unit.charge <= 0:
            self._depart(unit, _NO_ROOM)
            return
        self._make_room(unit.charge)
        self.residents.add(unit)
        self._note_summary(unit)
        if unit.call_id is not None:
            self.calls.pop(unit.call_id, None)
        self.changes.entered.extend(part.seq for part in unit.parts)
        if hold is None:
            self.policy.admit(unit)
        else:
            self.residents.hold(unit.id, hold)
            self._limit_constraints()

    def withdraw(self, unit: Unit) -> None:
        """Take a unit out of the residents, to change it and enter it again."""
        if unit.id not in self.residents.held:
            self.policy.withdraw(unit.id)
        self.residents.remove(unit.id)
        self.summaries.pop(unit.id, None)
        unit.placeholder = None

    def drop(self, unit: Unit, why: str) -> None:
        """Let a resident go, whatever holds it."""
        self.withdraw(unit)
        self._depart(unit, why)

    def settle(self, unit: Unit) -> None:
        """Hand a resident to the policy when nothing holds it any longer, or take it from there."""
        was, hold = self.residents.held.get(unit.id), self.hold_of(unit)
        if was is None and hold is not None:
            self.policy.withdraw(unit.id)
        self.residents.hold(unit.id, hold)
        if hold == "constraint" != was:
            self._limit_constraints()
        if was is not None and hold is None:
            self.policy.admit(unit)
            for summary, (first, last) in sorted(self.summaries.items()):
                if unit.id in self.residents and self._is_covered(unit, first, last):
                    self.drop(unit, f"summary {summary} covers it")

    def cover(self, summary: int, first: int, last: int) -> None:
        """Let go of what a summary stands in for."""
        for unit in sorted(self.residents, key=lambda unit: unit.id):
            if self._is_covered(unit, first, last):
                self.drop(unit, f"summary {summary} covers it")

    def release_newest_user(self) -> None:
        """Hold the newest user message no longer."""
        unit = None if self.newest_user is None else self.residents.of_seq(self.newest_user)
        self.newest_user = None
        if unit is not None:
            self.settle(unit)

    def govern(self, changed: Iterable[int]) -> None:
        """Hold the residents that set a constraint that holds now, and no longer those that do not."""
        for seq in changed:
            holds, unit = self.standing.holds(seq), self.residents.of_seq(seq)
            if unit is None or unit.id != seq or holds == (seq in self.constraints):
                continue
            if holds:
                self.constraints.append(seq)
            else:
                self.constraints.remove(seq)
            self.settle(unit)

    def choose(self, choice: Choice) -> None:
        """Take another policy or budget, charge every resident anew, and let the policy choose what leaves."""
        order: dict[Hold | None, int] = {"pin": 0, "newest_user": 1, "constraint": 2, None: 3}
        units = sorted(self.residents, key=lambda unit: (order[self.hold_of(unit)], unit.entered, unit.id))
        self.choice = choice
        self.policy = make_policy(choice)
        self.residents = Residents()
        self.summaries = {}
        for unit in units:
            hold = self.hold_of(unit)
            unit.placeholder = None
            if hold != "pin":
                unit.limit(self._limit(hold))
            if unit.charge <= 0:
                self._depart(unit, _NO_ROOM)
                continue
            self.restore([unit])
            if hold is None:
                self.policy.admit(unit)
        self._limit_constraints()
        self._make_room(0)

    def record(self, seqs: Sequence[int], why: str, *, placeholder: bool = False) -> None:
        """Note that events left."""
        departure = Departure(tuple(seqs), self.head, why, self.policy.name, self.policy.version, placeholder)
        self.changes.left.append(departure)
        self.departures.append(departure)
        del self.departures[:-_DEPARTURES]

    def _limit(self, hold: Hold | None) -> int:
        budget, taken = self.choice.budget_tokens, self.residents.taken
        if hold == "pin":
            return pin_quota(budget) - taken("pin")
        return min(event_limit(budget), budget - taken("pin", "newest_user"))

    def _make_room(self, needed: int) -> None:
        while self.residents.used + needed > self.choice.budget_tokens:
            eviction = self.policy.evict()
            if eviction is None:
                # Only constraints are left beside pins and the newest user message, which leave room for `needed`.
                held = self.residents.held
                oldest = next(unit_id for unit_id in self.constraints if held.get(unit_id) == "constraint")
                self._depart(self.residents.remove(oldest), _NO_ROOM)
            elif eviction.placeholder is not None:
                unit = self.residents[eviction.id]
                self.residents.shrink(eviction.id, eviction.placeholder)
                results = [part.seq for part in unit.parts if part.type == "tool_result"]
                self.record(results, eviction.standing, placeholder=True)
            else:
                self.summaries.pop(eviction.id, None)
                self._depart(self.residents.remove(eviction.id), eviction.standing)

    def _depart(self, unit: Unit, why: str) -> None:
        if unit.id in self.constraints:
            self.constraints.remove(unit.id)
        if unit.is_tool and unit.call_id is not None:
            self.calls[unit.call_id] = unit.parts
            while len(self.calls) > _CALLS:
                del self.calls[next(iter(self.calls))]
        self.record([part.seq for part in unit.parts], why)

    def _is_covered(self, unit: Unit, first: int, last: int) -> bool:
        free = unit.id not in self.residents.held and not self.standing.holds(unit.id)
        return free and first <= unit.id <= unit.last <= last

    def _limit_constraints(self) -> None:
        """Make ordinary events of the oldest constraints beyond a quarter of the budget."""
        while self.residents.taken("constraint") > self.choice.budget_tokens // 4:
            held = self.residents.held
            oldest = next(unit_id for unit_id in self.constraints if held.get(unit_id) == "constraint")
            self.constraints.remove(oldest)
            self.settle(self.residents[oldest])

    def _note_summary(self, unit: Unit) -> None:
        first = unit.parts[0]
        if first.first_covered is not None and first.last_covered is not None:
            self.summaries[unit.id] = (first.first_covered, first.last_covered)
