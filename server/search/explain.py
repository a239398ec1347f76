"""EXPLAIN of a search: stages, timings, and why an event is not among the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from server.retrieval.classify import Classified
from server.retrieval.planner import Planned, Replanned
from server.retrieval.query_types import find
from server.retrieval.ranking import Why
from server.retrieval.turns import Key
from server.search.answer import (
    CueShown,
    Explanation,
    Missed,
    SignalShown,
    StageShown,
    ValueShown,
    WordShown,
)
from server.search.asked import Place

_BEST: Final = 10  # candidates of a stage
_DIGITS: Final = 4

Named = Callable[[Key], tuple[str, int]]


def explanation(classified: Classified, replanned: Replanned, named: Named, why_not: list[Missed]) -> Explanation:
    """Return how an answer came about; ``named`` tells where an event is shown."""
    ranking = replanned.ranking
    stages = [
        StageShown(stage.name, stage.weight, [_value(hit.key, hit.score, named) for hit in stage.best])
        for stage in ranking.stages(_BEST)
    ]
    evidence = ranking.evidence
    for extra in replanned.extras:
        places = np.argsort(-extra.values, kind="stable")[:_BEST]
        keys = [evidence.turns.key(int(evidence.view.rows[evidence.pool[place]])) for place in places]
        best = [_value(key, float(extra.values[place]), named) for key, place in zip(keys, places, strict=True)]
        stages.append(StageShown(extra.name, round(extra.weight, _DIGITS), best))
    return Explanation(
        cues=[CueShown(*fired) for fired in classified.cues],
        also=list(classified.also),
        forced=classified.forced,
        budget=find(classified.type).budget,
        words=[WordShown(word, events) for word, events in ranking.terms],
        searched=ranking.searched,
        ranked=ranking.pooled,
        seconds={step: round(taken, 6) for step, taken in ranking.seconds.items()},
        stages=stages,
        why_not=why_not,
    )


def missed(place: Place, key: Key, planned: Planned, replanned: Replanned) -> Missed:
    """Return why an event of the family is not among the answers, or that it is."""
    if any(one.key == key for one in replanned.found):
        rank = next(number for number, one in enumerate(replanned.found, 1) if one.key == key)
        return _missed(place, "answered", f"It is answer {rank}.")
    why = replanned.ranking.why(key)
    pooled, searched = replanned.ranking.pooled, replanned.ranking.searched
    if why.reason == "not_indexed":
        because = "It holds no text that could be found: a control event, an empty one, or one that was erased."
    elif why.reason == "outside":
        because = "It is not in what was searched: name its conversation or its user as the scope."
    elif why.reason == "filtered":
        because = "A filter keeps it out: leave that out, or widen it."
    elif why.reason == "not_pooled":
        because = (
            f"Of {searched} events the {pooled} best of each leg were ranked in full, and it is in neither: its words "
            "and its meaning are both further from the question. Ask with words of its own, or narrow the scope."
        )
    elif why.reason == "no_evidence":
        because = "Without vectors only events near a word of the question are found; none is near it."
    else:
        because = _ranked(why, replanned)
    return _missed(place, why.reason, because, why)


def no_candidate(place: Place, candidates: int) -> Missed:
    """Return the answer for what a wide search did not choose, whether it exists or not."""
    because = (
        f"It is not among the {candidates} nearest by their vectors, which are all that was ranked: name its user or "
        "its conversation as the scope."
    )
    return _missed(place, "not_pooled", because)


def outside(place: Place) -> Missed:
    """Return the answer for what is not of the searched user or conversation, whether it exists or not."""
    because = "No such event is in what was searched: name its conversation or its user as the scope."
    return _missed(place, "outside", because)


def _ranked(why: Why, replanned: Replanned) -> str:
    text = f"It is number {why.k_needed} of {replanned.ranking.pooled}: k of {why.k_needed} would bring it."
    reachable = [one for one in why.signals if one.needed is not None]
    if reachable:
        one = min(reachable, key=lambda signal: abs((signal.needed or 0) - signal.value) * abs(signal.weight))
        text += f" So would {one.name} of {one.needed:.2f} instead of {one.value:.2f}."
    if why.signals and why.signals[0].last is not None:
        worst = why.signals[0]
        gap = (worst.last or 0.0) - worst.adds
        if gap > 0:
            text += f" What costs it most is {worst.name}: {gap:.2f} less than the last answer."
    return text


def _missed(place: Place, reason: str, because: str, why: Why | None = None) -> Missed:
    if why is None:
        return Missed(conversation_id=place.conversation_id, seq=place.seq, reason=reason, because=because)
    return Missed(
        conversation_id=place.conversation_id,
        seq=place.seq,
        reason=reason,
        because=because,
        k_needed=why.k_needed,
        score=why.score,
        cutoff=why.cutoff,
        signals=[SignalShown(one.name, one.value, one.adds, one.rank, one.last, one.needed) for one in why.signals],
    )


def _value(key: Key, value: float, named: Named) -> ValueShown:
    conversation, seq = named(key)
    return ValueShown(conversation, seq, round(value, _DIGITS))
