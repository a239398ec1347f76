"""BM25 over a view: over each turn with its neighbours, over each session, and how much of the question is covered.

BM25 as Robertson and Zaragoza (2009) give it, with the IDF of Lucene, log(1 + (n - df + .5) / (df + .5)), counted over
the view. A window's counts are sums of its turns' counts, so one index serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from server.retrieval.analysis import QueryTerm
from server.retrieval.plan import Plan
from server.retrieval.postings import Postings
from server.retrieval.turns import Rows, View

Floats = npt.NDArray[np.float64]


class Lexical(NamedTuple):
    """Scores by event of the view; ``sessions`` by session.

    ``coverage``: which share of the findable terms' IDF lies within the plan's reach; ``turn``: in the turn itself.
    ``terms``: what was looked for, and in how many events each was found.
    """

    window: Floats
    sessions: Floats
    coverage: Floats
    turn: Floats
    terms: tuple[tuple[str, int], ...]


def score(view: View, postings: Postings, question: Sequence[QueryTerm], plan: Plan) -> Lexical:
    """Score every event of a view."""
    size = view.size
    window, coverage, turn = np.zeros(size), np.zeros(size), np.zeros(size)
    sessions = np.zeros(view.sessions)
    counted = []
    total = 0.0
    lengths: tuple[Floats, Floats] | None = None
    for term in question:
        rows, counts = _within(view, *postings.find(term.terms))
        counted.append((term.word, len(rows)))
        if not len(rows):
            continue
        if lengths is None:
            shape = (plan.k1, plan.b, plan.window, plan.window_decay)
            if shape not in view.norms:
                view.norms[shape] = _lengths(view, plan)
            lengths = view.norms[shape]
            assert lengths is not None
        window_norms, session_norms = lengths
        weight = _idf(size, len(rows))
        total += weight
        near = _spread(view, rows, counts, plan)
        held = np.flatnonzero(near)
        window[held] += weight * _saturate(near[held], window_norms[held], plan.k1)
        in_session = _sum(view.column("session")[rows], counts, view.sessions)
        spoken = np.flatnonzero(in_session)
        scope = int(np.count_nonzero(session_norms))
        sessions[spoken] += _idf(scope, len(spoken)) * _saturate(in_session[spoken], session_norms[spoken], plan.k1)
        coverage[_near(view, rows, plan.reach)] += weight
        turn[rows] += weight
    share = 1.0 / total if total > 0 else 0.0
    return Lexical(window, sessions, coverage * share, turn * share, tuple(counted))


def _within(view: View, rows: Rows, counts: Floats) -> tuple[Rows, Floats]:
    local = view.local(rows)
    inside = local < view.size
    return (local, counts) if inside.all() else (local[inside], counts[inside])


def _idf(documents: int, holding: int) -> float:
    return float(np.log1p((documents - holding + 0.5) / (holding + 0.5)))


def _saturate(counts: Floats, norms: Floats, k1: float) -> Floats:
    return counts * (k1 + 1) / (counts + norms)


def _lengths(view: View, plan: Plan) -> tuple[Floats, Floats]:
    """Return k1 * (1 - b + b * length / mean length) of windows and of sessions (0 for a session not in the view)."""
    turns = np.append(np.maximum(view.column("length"), 1).astype(np.float64), 0.0)
    windows = turns[:-1].copy()
    for distance in range(1, plan.window + 1):
        near = turns[view.steps.before(distance)[:-1]] + turns[view.steps.after(distance)[:-1]]
        windows += plan.window_decay**distance * near
    sessions = _sum(view.column("session"), turns[:-1], view.sessions)
    norms = plan.k1 * (1 - plan.b + plan.b * windows / windows.mean())
    mean = sessions[sessions > 0].mean()
    return norms, np.where(sessions > 0, plan.k1 * (1 - plan.b + plan.b * sessions / mean), 0.0)


def _spread(view: View, rows: Rows, counts: Floats, plan: Plan) -> Floats:
    """Return a term's count in every event's window, of its count in some events."""
    where, how_often = [rows], [counts]
    for distance in range(1, plan.window + 1):
        share = counts * plan.window_decay**distance
        where += [view.steps.before(distance)[rows], view.steps.after(distance)[rows]]
        how_often += [share, share]
    return _sum(np.concatenate(where), np.concatenate(how_often), view.size + 1)[: view.size]


def _sum(places: Rows, values: Floats, size: int) -> Floats:
    return np.bincount(places, weights=values, minlength=size).astype(np.float64, copy=False)


def _near(view: View, rows: Rows, reach: int) -> npt.NDArray[np.bool_]:
    """Return which events have one of these within reach."""
    near = np.zeros(view.size + 1, np.bool_)
    near[rows] = True
    for distance in range(1, reach + 1):
        near[view.steps.before(distance)[rows]] = True
        near[view.steps.after(distance)[rows]] = True
    return near[: view.size]
