"""Which rows of a family's index a conversation shows, and which its user sees: what any live conversation shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from uuid import UUID

import numpy as np

from server.retrieval.turns import Key, Mask, Turns
from server.search.family import Member


class Deletion(NamedTuple):
    """The event at ``named`` is hidden wherever the ``deletion`` at ``seq`` of its owner is shown."""

    owner: UUID
    seq: int
    named: int


def shown_by(turns: Turns, member: Member, deletions: Iterable[Deletion]) -> Mask:
    """Return the rows that a conversation shows: what it shares and its own, above its floor, less what it hides."""
    shown = _between(turns, {owner: (low, high) for owner, low, high in member.segments()})
    for one in deletions:
        if _shows(member, one.owner, one.seq):
            _hide(turns, shown, member.lineage.owner(member.id, one.named), one.named)
    return shown


def shown_to_user(turns: Turns, members: Mapping[UUID, Member], deletions: Iterable[Deletion]) -> Mask:
    """Return the rows that at least one live conversation shows."""
    live = [member for member in members.values() if member.live]
    ranges: dict[UUID, list[tuple[int, int]]] = {}
    for member in live:
        for owner, low, high in member.segments():
            ranges.setdefault(owner, []).append((low, high))
    outer = {owner: (min(low for low, _ in own), max(high for _, high in own)) for owner, own in ranges.items()}
    shown = _between(turns, outer)
    for owner, own in ranges.items():
        _hide_gaps(turns, shown, owner, sorted(own))
    for one in deletions:
        owners = {member.lineage.owner(member.id, one.named) for member in live if _shows(member, one.owner, one.seq)}
        for owner in owners:
            showing = [member for member in live if _shows(member, owner, one.named)]
            if all(_shows(member, one.owner, one.seq) for member in showing):
                _hide(turns, shown, owner, one.named)
    return shown


def _between(turns: Turns, ranges: Mapping[UUID, tuple[int, int]]) -> Mask:
    low = np.ones(len(turns.conversations) + 1, np.int64)
    high = np.zeros(len(low), np.int64)
    for number, name in enumerate(turns.conversations):
        found = ranges.get(UUID(hex=name))
        if found is not None:
            low[number], high[number] = found
    conversation, seq = turns["conversation"], turns["seq"]
    shown: Mask = turns["live"] & (seq >= low[conversation]) & (seq <= high[conversation])
    return shown


def _hide_gaps(turns: Turns, shown: Mask, owner: UUID, ranges: list[tuple[int, int]]) -> None:
    covered = ranges[0][1]
    for low, high in ranges[1:]:
        if low > covered + 1:
            rows = _rows_of(turns, owner)
            seqs = turns["seq"][rows]
            shown[rows[(seqs > covered) & (seqs < low)]] = False
        covered = max(covered, high)


def _rows_of(turns: Turns, owner: UUID) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    number = turns.conversations.index(owner.hex) if owner.hex in turns.conversations else -1
    return np.flatnonzero(turns["conversation"] == number)


def _shows(member: Member, owner: UUID, seq: int) -> bool:
    return any(one == owner and low <= seq <= high for one, low, high in member.segments())


def _hide(turns: Turns, shown: Mask, owner: UUID, seq: int) -> None:
    row = turns.rows_of.get(Key(owner.hex, seq))
    if row is not None:
        shown[row] = False
