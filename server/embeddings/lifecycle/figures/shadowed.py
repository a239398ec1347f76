"""What the shadow says: how alike the answers of both versions are, by segment, and where they differ most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from server.embeddings.lifecycle.figures.rankings import overlap, rank_biased_overlap, swaps
from server.embeddings.lifecycle.figures.segments import apart

K: Final = 10
Ids = tuple[str, ...]


class Shadowed(Struct, frozen=True, kw_only=True):
    """One search that both versions answered, by the ids of what was found, best first.

    ``dense``: by the vectors alone; ``final``: as it was, or would have been, served. ``milliseconds``: of the whole
    search. Not the question: who wants to see it looks up ``id``, where keeping it is allowed.
    """

    id: str
    segments: tuple[str, ...]
    old_dense: Ids
    new_dense: Ids
    old_final: Ids
    new_final: Ids
    old_milliseconds: float
    new_milliseconds: float


class Agreement(Struct, frozen=True, kw_only=True):
    """Means over a segment's searches: overlap at ``k`` (10), rank-biased overlap, pairs in another order."""

    segment: str
    searches: int
    overlap: float
    rbo: float
    swaps: float


class Agreements(Struct, frozen=True, kw_only=True):
    """Of the vectors alone and of the final ranking, by segment, the segment of all first."""

    dense: tuple[Agreement, ...]
    final: tuple[Agreement, ...]


class Latency(Struct, frozen=True, kw_only=True):
    """The 50th and 95th percentile of both, in milliseconds."""

    searches: int
    old_p50: float
    old_p95: float
    new_p50: float
    new_p95: float


def agreements(searches: Sequence[Shadowed], k: int = K) -> Agreements:
    """Compare both rankings of each search. For the noise floor: where the other is the old version, built anew."""
    return Agreements(
        dense=_by_segment(((one.segments, one.old_dense, one.new_dense) for one in searches), k),
        final=_by_segment(((one.segments, one.old_final, one.new_final) for one in searches), k),
    )


def disagreements(searches: Iterable[Shadowed], count: int = 10) -> list[Shadowed]:
    """Return the searches whose final rankings differ most by rank-biased overlap, the most different first."""
    return sorted(searches, key=lambda one: (rank_biased_overlap(one.old_final, one.new_final), one.id))[:count]


def latency(searches: Sequence[Shadowed]) -> Latency:
    """Summarise the times; raises ValueError without searches."""
    if not searches:
        raise ValueError("no search was shadowed")
    old = np.percentile([one.old_milliseconds for one in searches], (50, 95))
    new = np.percentile([one.new_milliseconds for one in searches], (50, 95))
    return Latency(
        searches=len(searches),
        old_p50=float(old[0]),
        old_p95=float(old[1]),
        new_p50=float(new[0]),
        new_p95=float(new[1]),
    )


def _by_segment(rows: Iterable[tuple[tuple[str, ...], Ids, Ids]], k: int) -> tuple[Agreement, ...]:
    found: dict[str, list[tuple[float, float, float]]] = {}
    for named, old, new in rows:
        figures = overlap(old, new, k), rank_biased_overlap(old, new), swaps(old[:k], new[:k])
        for name in named:
            found.setdefault(name, []).append(figures)
    return tuple(
        Agreement(segment=name, searches=len(found[name]), overlap=means[0], rbo=means[1], swaps=means[2])
        for name in apart({name: len(rows) for name, rows in found.items()})
        for means in [[float(value) for value in np.mean(found[name], axis=0)]]
    )
