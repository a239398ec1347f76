"""What the golden set says: how much of the labelled evidence each version finds, by segment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from server.embeddings.lifecycle.figures.intervals import Interval, Paired, paired
from server.embeddings.lifecycle.figures.rankings import recall
from server.embeddings.lifecycle.figures.segments import apart

K: Final = 10


class Answered(Struct, frozen=True, kw_only=True):
    """One golden question, answered by both versions. ``group``: its user or conversation. Rankings: best first."""

    id: str
    group: str
    segments: tuple[str, ...]
    evidence: tuple[str, ...]
    old: tuple[str, ...]
    new: tuple[str, ...]


class Recall(Struct, frozen=True, kw_only=True):
    """The share of the evidence among the first ``k``, under both versions, in one segment."""

    segment: str
    k: int
    interval: Interval


def recalls(answers: Iterable[Answered], k: int = K) -> tuple[Recall, ...]:
    """Return the recall at ``k`` by segment, that of all first; none without answers."""
    rows: dict[str, list[Paired]] = {}
    for one in answers:
        row = Paired(one.group, recall(one.old, one.evidence, k), recall(one.new, one.evidence, k))
        for name in one.segments:
            rows.setdefault(name, []).append(row)
    shown = apart({name: len(found) for name, found in rows.items()})
    return tuple(Recall(segment=name, k=k, interval=paired(rows[name])) for name in shown)
