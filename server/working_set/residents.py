"""The resident units, what holds them, and what they take of the budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from server.working_set.units import Unit

Hold = Literal["pin", "newest_user", "constraint"]


class Residents:
    """Units by id, by the seqs of their events and by call, with running sums of their charges."""

    def __init__(self) -> None:
        self.used = 0
        self.held: dict[int, Hold] = {}
        self._units: dict[int, Unit] = {}
        self._of_seq: dict[int, int] = {}
        self._of_call: dict[str, int] = {}
        self._taken: dict[Hold, int] = {"pin": 0, "newest_user": 0, "constraint": 0}

    def __iter__(self) -> Iterator[Unit]:
        return iter(self._units.values())

    def __len__(self) -> int:
        return len(self._units)

    def __contains__(self, unit_id: int) -> bool:
        return unit_id in self._units

    def __getitem__(self, unit_id: int) -> Unit:
        return self._units[unit_id]

    def of_seq(self, seq: int) -> Unit | None:
        """Return the unit that an event is part of."""
        unit_id = self._of_seq.get(seq)
        return None if unit_id is None else self._units[unit_id]

    def of_call(self, call_id: str | None) -> Unit | None:
        """Return the unit of a tool call."""
        unit_id = None if call_id is None else self._of_call.get(call_id)
        return None if unit_id is None else self._units[unit_id]

    def taken(self, *holds: Hold) -> int:
        """Return the tokens that are held so."""
        return sum(self._taken[hold] for hold in holds)

    def add(self, unit: Unit) -> None:
        """Take in a unit, held by nothing yet."""
        self._units[unit.id] = unit
        self._of_seq.update((part.seq, unit.id) for part in unit.parts)
        if unit.is_tool and unit.call_id is not None:
            self._of_call[unit.call_id] = unit.id
        self.used += unit.charge

    def remove(self, unit_id: int) -> Unit:
        """Let go of a unit, and of what holds it."""
        self.hold(unit_id, None)
        unit = self._units.pop(unit_id)
        for part in unit.parts:
            del self._of_seq[part.seq]
        if unit.is_tool and unit.call_id is not None:
            del self._of_call[unit.call_id]
        self.used -= unit.charge
        return unit

    def hold(self, unit_id: int, hold: Hold | None) -> None:
        """Hold a unit, or hold it no longer."""
        was = self.held.pop(unit_id, None)
        if was is not None:
            self._taken[was] -= self._units[unit_id].charge
        if hold is not None:
            self.held[unit_id] = hold
            self._taken[hold] += self._units[unit_id].charge

    def shrink(self, unit_id: int, placeholder: int) -> None:
        """Replace the tool results of a unit that nothing holds by placeholders."""
        unit = self._units[unit_id]
        before = unit.charge
        unit.placeholder = placeholder
        unit.limit(before)
        self.used += unit.charge - before
