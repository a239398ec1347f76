"""Figures of retrieval, from the rank of each evidence event."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

KS: Final = (5, 10, 25, 50)


class Scored(NamedTuple):
    """One question's answer. ``ranks``: of its evidence, from 0. ``filled``: share of it within each token budget."""

    fold: str
    category: str
    ranks: tuple[int, ...]
    filled: tuple[float, ...] = ()


class Figures(NamedTuple):
    """Means over questions, at 5, 10, 25, 50; ``filled`` at 5 and 10 % of the tokens."""

    questions: int
    fractional: tuple[float, ...]
    any: tuple[float, ...]
    all: tuple[float, ...]
    ndcg: tuple[float, ...]
    filled: tuple[float, ...]


def figures(rows: Iterable[Scored]) -> Figures:
    """Summarise answers."""
    scored = list(rows)
    within = [[np.array([rank < k for rank in row.ranks]) for k in KS] for row in scored]
    return Figures(
        questions=len(scored),
        fractional=_mean([[float(found.mean()) for found in row] for row in within]),
        any=_mean([[float(found.any()) for found in row] for row in within]),
        all=_mean([[float(found.all()) for found in row] for row in within]),
        ndcg=_mean([[ndcg(row.ranks, k) for k in KS] for row in scored]),
        filled=_mean([row.filled for row in scored if row.filled]),
    )


def ndcg(ranks: Sequence[int], k: int) -> float:
    """Return the normalised discounted cumulative gain at k, all evidence being worth the same."""
    gained = sum(1 / np.log2(rank + 2) for rank in ranks if rank < k)
    best = sum(1 / np.log2(place + 2) for place in range(min(len(ranks), k)))
    return float(gained / best)


def _mean(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.mean(rows, axis=0)) if rows else ()
