"""What is worth showing of a ranking, in order, and why: for a context, which has room for more than a few answers."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from server.retrieval.budget import neighbourhoods, preference
from server.retrieval.newness import NEWNESS, age, newer_first
from server.retrieval.planner import Replanned
from server.retrieval.query_types.wish import Wish
from server.retrieval.ranking import Evidence
from server.retrieval.turns import Key

MOST: Final = 1000
_LEGS: Final = {"lexical": "bm25", "dense": "vector"}
_NEW: Final = 2 * NEWNESS.half_life  # events; of what is older, newness is no reason


class Preferred(NamedTuple):
    """An event and why it is worth showing; ``hit``: it was found itself, and not only stands beside what was.

    ``tokens``: about so many.
    """

    key: Key
    why: str
    hit: bool
    tokens: int


def preferred(wish: Wish, replanned: Replanned, budget: int, *, whole: bool = True) -> list[Preferred]:
    """Return what to show in a context of so many tokens, best first: answers by their place in the log come first.

    There is twice as much as fits, since some of it may be shown already. ``whole``: all of the scope was in view, so
    that it is known what is new.
    """
    if budget <= 0 or not len(replanned.ranking.evidence.pool):
        return []
    ranking = newer_first(replanned.ranking) if whole else replanned.ranking
    evidence = ranking.evidence
    sizes = evidence.turns["tokens"]
    ranks = {name: _ranks(evidence, leg) for leg, name in _LEGS.items() if leg in evidence.features}
    first = [one for one in replanned.found if one.score is None or wish.coverage == "span"]
    chosen: dict[Key, Preferred] = {}
    left = 2 * budget
    neighbours = neighbourhoods(ranking.plan, budget)

    def take(key: Key, why: str, *, hit: bool) -> None:
        nonlocal left
        if key not in chosen:
            size = int(sizes[evidence.turns.rows_of[key]])
            chosen[key] = Preferred(key, why, hit, size)
            left -= size

    for number, one in enumerate(first, 1):
        why = f"newest {_nth(number)}" if one.score is None else _why(evidence, ranks, one.key, whole=whole)
        take(one.key, why, hit=True)
    for key, beside in preference(ranking, neighbours):
        if left <= 0 or len(chosen) >= MOST:
            break
        why = _why(evidence, ranks, key, whole=whole) if beside is None else f"beside event {beside.seq}"
        take(key, why, hit=beside is None)
    return list(chosen.values())


def _ranks(evidence: Evidence, leg: str) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return each candidate's place in a leg, from 1; equal values share the best."""
    values = evidence.features[leg]
    ascending = np.sort(values)
    return len(values) - np.searchsorted(ascending, values, side="right") + 1


def _why(
    evidence: Evidence, ranks: dict[str, np.ndarray[tuple[int], np.dtype[np.intp]]], key: Key, *, whole: bool
) -> str:
    local = evidence.view.local(np.array([evidence.turns.rows_of[key]]))[0]
    place = int(np.searchsorted(evidence.pool, local))
    if place >= len(evidence.pool) or evidence.pool[place] != local:
        return "found"
    parts = [f"{name} {_nth(int(rank[place]))}" for name, rank in ranks.items()]
    if whole and (newer := age(evidence, int(local))) < _NEW:
        parts.append(f"newest {_nth(newer + 1)}")
    return ", ".join(parts)


def _nth(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{ending}"
