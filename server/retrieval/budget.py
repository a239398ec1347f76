"""Which events of a ranking to show within a number of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from msgspec import Struct

from server.retrieval import fusion
from server.retrieval.plan import Plan
from server.retrieval.ranking import Ranking
from server.retrieval.turns import Key


class Filled(Struct, frozen=True):
    """What fits: ``keys`` by conversation and in its order; ``tokens`` is their sum, never above the budget."""

    keys: tuple[Key, ...]
    tokens: int


def fill(ranking: Ranking, budget: int) -> Filled:
    """Take events in order of preference, passing over what no longer fits. The tokens are those of the entries."""
    evidence = ranking.evidence
    tokens = evidence.view.column("tokens")
    taken: set[int] = set()
    spent = 0
    for one, _ in _preference(ranking, ranking.plan.neighbours):
        if one not in taken and spent + int(tokens[one]) <= budget:
            taken.add(one)
            spent += int(tokens[one])
    return Filled(tuple(sorted(evidence.key(local) for local in taken)), spent)


# A neighbour is part of the answer where there is room for it. Measured on LoCoMo with contexts of 100 to 1,000 tokens,
# three neighbourhoods cost up to .03 of the evidence; from 2,000 tokens on, nothing.
_TOKENS_A_NEIGHBOURHOOD: Final = 700


def neighbourhoods(plan: Plan, budget: int) -> int:
    """Return beside how many of the best events a context of so many tokens shows their neighbours."""
    return min(plan.neighbours, budget // _TOKENS_A_NEIGHBOURHOOD)


def preference(ranking: Ranking, neighbours: int) -> Iterator[tuple[Key, Key | None]]:
    """Yield events best first, and those beside so many of the best, each once; a neighbour with whom it stands beside.

    Not only the hits: everything that was ranked, for as long as anybody asks. Scores are log-odds, so subtracting the
    logarithm of its tokens makes an event's score its chance of evidence per token; the plan says how far.
    """
    key = ranking.evidence.key
    seen: set[int] = set()
    for local, beside in _preference(ranking, neighbours):
        if local not in seen:
            seen.add(local)
            yield key(local), None if beside is None else key(beside)


def _preference(ranking: Ranking, neighbours: int) -> Iterator[tuple[int, int | None]]:
    evidence = ranking.evidence
    plan = ranking.plan
    ranked = np.flatnonzero(~evidence.nothing)
    locals_ = evidence.pool[ranked]
    tokens = evidence.view.column("tokens")
    values = np.round(evidence.scores[ranked] - plan.density * np.log(np.maximum(tokens[locals_], 1)), 6)
    shown = np.append(evidence.shown(), False)
    before, after = evidence.view.around(1)[1:]
    for number, place in enumerate(fusion.by_score(values, evidence.view.rows[locals_], evidence.turns)):
        local = int(locals_[place])
        beside = (int(before[local]), int(after[local])) if number < neighbours else ()
        if shown[local]:
            yield local, None
        yield from ((one, local) for one in beside if shown[one])
