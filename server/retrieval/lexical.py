"""BM25 over a view: over each turn with its neighbours, over each session, and how much of the question is covered.

BM25 as Robertson and Zaragoza (2009) give it, with the IDF of Lucene, log(1 + (n - df + .5) / (df + .5)), counted over
the view. A window's counts are sums of its turns' counts, so one index serves both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from server.retrieval.analysis import QueryTerm
from server.retrieval.plan import Plan
from server.retrieval.postings import Postings
from server.retrieval.turns import Rows, View

Floats = npt.NDArray[np.float64]

# Terms are scored together in tables of at most so many cells: what stays in a processor's cache.
_CELLS: Final = 1 << 16


class Found(NamedTuple):
    """A term's events, ascending, and how often it occurs in each; ``weight``: its IDF."""

    rows: Rows
    counts: Floats
    weight: float


class Lexical(NamedTuple):
    """Scores by event of the view; ``sessions`` by session.

    ``terms``: what was looked for, and in how many events each was found; ``found``: of these, what was.
    """

    window: Floats
    sessions: Floats
    terms: tuple[tuple[str, int], ...]
    found: list[Found]


def score(view: View, postings: Postings, question: Sequence[QueryTerm], plan: Plan) -> Lexical:
    """Score every event of a view."""
    size = view.size
    window, sessions = np.zeros(size), np.zeros(view.sessions)
    counted, found = [], []
    for term in question:
        rows, counts = _within(view, *postings.find(term.terms))
        counted.append((term.word, len(rows)))
        if len(rows):
            found.append(Found(rows, counts, float(_idf(size, len(rows)))))
    if found:
        shape = (plan.k1, plan.b, plan.window, plan.window_decay)
        window_norms, session_norms = view.keep(shape, lambda: _norms(view, plan))
        scope = int(np.count_nonzero(np.isfinite(session_norms)))
        decay = plan.window_decay ** ((np.arange(1 + 2 * plan.window) + 1) // 2)
        reached = view.around(max(plan.window, plan.reach))[: len(decay)]
        session = view.column("session")
        for terms, rows, counts, number in _together(found, max(size + 1, view.sessions)):
            weights = np.array([term.weight for term in terms])
            near = _table(number * (size + 1) + reached[:, rows], decay[:, None] * counts, len(terms), size + 1)
            window += _sum(weights, _saturate(near[:, :size], window_norms, plan.k1))
            spoken = _table(number * view.sessions + session[rows], counts, len(terms), view.sessions)
            idf = _idf(scope, np.count_nonzero(spoken, axis=1))
            sessions += _sum(idf, _saturate(spoken, session_norms, plan.k1))
    return Lexical(window, sessions, tuple(counted), found)


def cover(view: View, found: Sequence[Found], pool: Rows, plan: Plan) -> tuple[Floats, Floats]:
    """Return which share of the findable terms' IDF lies within reach of events of the view, and in the turn itself."""
    near, own = np.zeros(len(pool)), np.zeros(len(pool))
    width = view.size + 1
    around = view.around(max(plan.window, plan.reach))[: 1 + 2 * plan.reach]
    for terms, rows, _, number in _together(found, width):
        weights = np.array([term.weight for term in terms])
        held = np.zeros(len(terms) * width, np.bool_)
        held[number * width + rows] = True
        own += _sum(weights, held.reshape(-1, width)[:, pool])
        held[number * width + around[:, rows]] = True
        near += _sum(weights, held.reshape(-1, width)[:, pool])
    total = sum(term.weight for term in found)
    share = 1.0 / total if total > 0 else 0.0
    return near * share, own * share


def _within(view: View, rows: Rows, counts: Floats) -> tuple[Rows, Floats]:
    if view.whole:
        return rows, counts
    local = view.local(rows)
    inside = local < view.size
    return (local, counts) if inside.all() else (local[inside], counts[inside])


def _together(found: Sequence[Found], width: int) -> Iterator[tuple[Sequence[Found], Rows, Floats, Rows]]:
    """Yield terms that fit into a table together: these, their rows and counts, and each row's number of its term."""
    most = max(1, _CELLS // width)
    for start in range(0, len(found), most):
        terms = found[start : start + most]
        rows = np.concatenate([term.rows for term in terms])
        counts = np.concatenate([term.counts for term in terms])
        yield terms, rows, counts, np.repeat(np.arange(len(terms)), [len(term.rows) for term in terms])


def _table(cells: Rows, counts: Floats, height: int, width: int) -> Floats:
    summed = np.bincount(cells.reshape(-1), counts.reshape(-1), height * width)
    return summed.astype(np.float64, copy=False).reshape(height, width)


def _sum(weights: Floats, values: npt.NDArray[Any]) -> Floats:
    """Return the weighted sum of rows, added one after the other: the same to the bit for any number of rows."""
    weighted = weights[:, None] * values
    return weighted[0] if len(weighted) == 1 else np.asarray(np.add.reduce(weighted, axis=0))


def _idf(documents: int, holding: npt.ArrayLike) -> Floats:
    held = np.asarray(holding)
    return np.asarray(np.log1p((documents - held + 0.5) / (held + 0.5)))


def _saturate(counts: Floats, norms: Floats, k1: float) -> Floats:
    """Turn counts into BM25's saturated ones, in place."""
    over = counts + norms
    counts *= k1 + 1
    counts /= over
    return counts


def _norms(view: View, plan: Plan) -> tuple[Floats, Floats]:
    """Return k1 * (1 - b + b * length / mean length) of windows and of sessions (infinite for one not in the view)."""
    turns = np.append(np.maximum(view.column("length"), 1).astype(np.float64), 0.0)
    windows = turns[:-1].copy()
    around = view.around(max(plan.window, plan.reach))
    for distance in range(1, plan.window + 1):
        near = turns[around[2 * distance - 1, :-1]] + turns[around[2 * distance, :-1]]
        windows += plan.window_decay**distance * near
    sessions = np.bincount(view.column("session"), turns[:-1], view.sessions)
    norms = plan.k1 * (1 - plan.b + plan.b * windows / windows.mean())
    mean = sessions[sessions > 0].mean()
    return norms, np.where(sessions > 0, plan.k1 * (1 - plan.b + plan.b * sessions / mean), np.inf)
