"""A search's answer with all that led to it: EXPLAIN ANALYZE for retrieval, and why an event is not in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from msgspec import Struct, structs

from server.retrieval import fusion
from server.retrieval.plan import Plan
from server.retrieval.signals import Question
from server.retrieval.turns import Key, Mask, Rows, Turns, View

Floats = npt.NDArray[np.float64]

# not_indexed: unknown here, removed, or without text. outside: not in what was searched. filtered: in it, but not
# allowed as an answer. no_evidence: nothing of the question is near it. not_pooled: among the best of neither leg.
# ranked: it was, below the answers. answered: it is an answer.
Reason = Literal["not_indexed", "outside", "filtered", "no_evidence", "not_pooled", "ranked", "answered"]


class Hit(Struct, frozen=True):
    """One answer."""

    key: Key
    score: float


class Signal(Struct, frozen=True):
    """What one signal says of one event.

    ``value`` times ``weight`` is ``adds``, its part of the score; ``rank`` counts from 1, ties share the best.
    ``last``: what the signal adds to the last answer's score. ``needed``: the value with which the event would be an
    answer, all else equal; None where no event of the search reaches it.
    """

    name: str
    value: float
    weight: float
    adds: float
    rank: int
    last: float | None = None
    needed: float | None = None


class Why(Struct, frozen=True):
    """Why an event is, or is not, in the answer. ``k_needed``: with how many answers it would be."""

    key: Key
    reason: Reason
    k_needed: int | None = None
    score: float | None = None
    cutoff: float | None = None
    signals: tuple[Signal, ...] = ()


class Stage(Struct, frozen=True):
    """One signal over the search: its weight and its best events, best first."""

    name: str
    weight: float
    best: tuple[Hit, ...]


class Ranking(Struct, frozen=True):
    """The answers, best first.

    ``searched``: events in view; ``pooled``: of these, those ranked in full. ``seconds``: by step. ``dense``: whether
    vectors took part. ``terms``: the words looked for, and in how many events each was found. ``places``: those of the
    hits in the pool.
    """

    hits: tuple[Hit, ...]
    plan: Plan
    question: Question
    dense: bool
    searched: int
    pooled: int
    seconds: dict[str, float]
    terms: tuple[tuple[str, int], ...]
    evidence: Evidence
    places: list[int]

    def stages(self, best: int = 10) -> tuple[Stage, ...]:
        """Return each signal that has a weight, with its best events."""
        return self.evidence.stages(self.plan, best)

    def why(self, key: Key) -> Why:
        """Return why an event is where it is, or why it is not in the answer and what would bring it in.

        Valid until the index is changed.
        """
        return self.evidence.why(key, self.plan, self.hits)


class Evidence(Struct, frozen=True):
    """The arrays behind a ranking: the searched rows, the pool, and the pool's features and scores."""

    turns: Turns
    view: View
    allowed: Mask | None
    pool: Rows
    features: dict[str, Floats]
    scores: Floats
    nothing: npt.NDArray[np.bool_]

    def key(self, local: int) -> Key:
        """Name an event of the view."""
        return self.turns.key(int(self.view.rows[local]))

    def best(self, k: int) -> list[int]:
        """Return the places in the pool of the best ``k``, best first; equal scores by conversation, then seq."""
        if not self.nothing.any():
            return fusion.order(self.scores, self.view.rows[self.pool], self.turns, k)
        candidates = np.flatnonzero(~self.nothing)
        rows = self.view.rows[self.pool[candidates]]
        return [int(candidates[place]) for place in fusion.order(self.scores[candidates], rows, self.turns, k)]

    def shown(self) -> Mask:
        """Return which events of the view may be shown."""
        return np.ones(self.view.size, np.bool_) if self.allowed is None else self.allowed[self.view.rows]

    def stages(self, plan: Plan, best: int) -> tuple[Stage, ...]:
        weights = structs.asdict(plan.weights)
        found = []
        for name, values in self.features.items():
            if weights[name] == 0:
                continue
            direction = np.sign(weights[name])
            places = np.argsort(-direction * values, kind="stable")[:best]
            hits = tuple(Hit(self._key(place), round(float(values[place]), 6)) for place in places)
            found.append(Stage(name, weights[name], hits))
        return tuple(found)

    def why(self, key: Key, plan: Plan, hits: Sequence[Hit]) -> Why:
        row = self.turns.rows_of.get(key)
        if row is None:
            return Why(key, "not_indexed")
        local = int(self.view.local(np.array([row]))[0])
        if local >= self.view.size:
            return Why(key, "outside")
        if self.allowed is not None and not self.allowed[row]:
            return Why(key, "filtered")
        place = int(np.searchsorted(self.pool, local))
        if place >= len(self.pool) or self.pool[place] != local:
            return Why(key, "not_pooled")
        if self.nothing[place]:
            return Why(key, "no_evidence")
        score = float(self.scores[place])
        better = self.scores > score
        tied = [int(one) for one in np.flatnonzero((self.scores == score) & ~self.nothing) if self._key(one) < key]
        rank = int((better & ~self.nothing).sum()) + len(tied) + 1
        answered = any(hit.key == key for hit in hits)
        last = hits[-1] if hits else None
        return Why(
            key,
            "answered" if answered else "ranked",
            k_needed=rank,
            score=score,
            cutoff=last.score if last else None,
            signals=self._signals(place, plan, None if answered else last),
        )

    def _signals(self, place: int, plan: Plan, last: Hit | None) -> tuple[Signal, ...]:
        weights = structs.asdict(plan.weights)
        last_place = None if last is None else self._place(last.key)
        gap = 0.0 if last is None else last.score - float(self.scores[place])
        found = []
        for name, values in self.features.items():
            weight = weights[name]
            if weight == 0:
                continue
            value = float(values[place])
            needed = value + gap / weight
            within_reach = values.min() <= needed <= values.max()
            found.append(
                Signal(
                    name=name,
                    value=round(value, 6),
                    weight=weight,
                    adds=round(weight * value, 6),
                    rank=int((np.sign(weight) * values > np.sign(weight) * value).sum()) + 1,
                    last=None if last_place is None else round(float(weight * values[last_place]), 6),
                    needed=round(needed, 6) if last is not None and within_reach else None,
                )
            )
        # What costs it most comes first.
        return tuple(sorted(found, key=lambda one: one.adds - (one.last or 0.0)))

    def _place(self, key: Key) -> int:
        return int(np.searchsorted(self.pool, self.view.local(np.array([self.turns.rows_of[key]]))[0]))

    def _key(self, place: int | np.intp) -> Key:
        return self.key(int(self.pool[place]))
