"""Signals to one order: standardised, weighted, summed, and cut, the same way to the bit each time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from server.retrieval.turns import Rows, Turns, View

Floats = npt.NDArray[np.float64]

# Sums differ in their last bits between machines' linear algebra; scores equal to this many decimals are equal.
_DECIMALS = 6
_EQUAL = 1e-9  # a deviation below this is none


def standardise(values: Floats) -> Floats:
    """Return values with mean 0 and deviation 1; missing ones (NaN) are average, and so are all when all are equal."""
    if not len(values):
        return values
    mean = np.add.reduce(values) / len(values)
    if np.isnan(mean):
        return _standardise_known(values)
    centred: Floats = values - mean
    deviation = np.sqrt(np.add.reduce(centred * centred) / len(values))
    if deviation < _EQUAL:
        return np.zeros(len(values))
    centred /= deviation
    return centred


def _standardise_known(values: Floats) -> Floats:
    known = ~np.isnan(values)
    if not known.any():
        return np.zeros(len(values))
    mean, deviation = values[known].mean(), values[known].std()
    if deviation < _EQUAL:
        return np.zeros(len(values))
    return np.where(known, (values - mean) / deviation, 0.0)


def blend(view: View, similarities: Floats, share_before: float, share_after: float) -> Floats:
    """Return each event's similarity averaged with its neighbours'; NaN where it has none itself."""
    before, after = view.around(1)[1:, :-1]
    if not np.isnan(np.add.reduce(similarities)):
        weight = view.keep(("blend", share_before, share_after), lambda: _weights(view, share_before, share_after))
        padded = np.append(similarities, 0.0)
        total: Floats = similarities + share_before * padded[before]
        total += share_after * padded[after]
        total /= weight
        return total
    padded = np.append(similarities, np.nan)
    total, weight = similarities.copy(), np.ones(len(similarities))
    for places, share in ((before, share_before), (after, share_after)):
        near = padded[places]
        there = ~np.isnan(near)
        total[there] += share * near[there]
        weight[there] += share
    return total / weight


def _weights(view: View, share_before: float, share_after: float) -> Floats:
    before, after = view.around(1)[1:, :-1] < view.size
    return np.asarray(1.0 + share_before * before + share_after * after)


def pool(legs: list[Floats], allowed: Rows | None, size: int, most: int) -> Rows:
    """Return which events are worth ranking in full, ascending: all, else the best of each leg.

    ``allowed``: which may be answers, ascending; None for all ``size`` of a view. A leg says nothing of an event that
    it gives 0 or NaN. What the legs leave free goes to the newest events.
    """
    many = size if allowed is None else len(allowed)
    if many <= most:
        return np.arange(size) if allowed is None else allowed
    share = max(1, most // len(legs))
    chosen = np.zeros(many, np.bool_)
    for leg in legs:
        values = leg if allowed is None else leg[allowed]
        chosen[_best(values, share)] = True
    free = np.flatnonzero(~chosen)
    chosen[free[max(0, len(free) - (most - int(np.count_nonzero(chosen)))) :]] = True
    places = np.flatnonzero(chosen)
    return places if allowed is None else allowed[places]


def _best(values: Floats, most: int) -> Rows:
    """Return the places of the greatest values; of a tie the first, so that no choice is an accident of a partition."""
    spoken = np.flatnonzero(values)
    said = values if len(spoken) == len(values) else values[spoken]
    missing = np.isnan(said)
    if missing.any():
        spoken, said = spoken[~missing], said[~missing]
    if len(spoken) <= most:
        return spoken
    least = np.partition(said, -most)[-most]
    better, tied = np.flatnonzero(said > least), np.flatnonzero(said == least)
    return np.asarray(spoken[np.concatenate([better, tied[: most - len(better)]])])


def total(features: dict[str, Floats], weights: dict[str, float], size: int) -> Floats:
    """Return the weighted sum, rounded."""
    summed = np.zeros(size)
    for name, values in features.items():
        if weights[name]:
            summed += weights[name] * values
    return np.round(summed, _DECIMALS)


def order(scores: Floats, rows: Rows, turns: Turns, k: int) -> list[int]:
    """Return the places of the best ``k`` scores, best first; equal scores by conversation, then seq."""
    if k <= 0 or not len(scores):
        return []
    if k < len(scores):
        least = np.partition(scores, -k)[-k]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores))
    best: list[int] = places[by_score(scores[places], rows[places], turns)[:k]].tolist()
    return best


def by_score(scores: Floats, rows: Rows, turns: Turns) -> Rows:
    """Return the order of rows by score, best first; equal scores by conversation, then seq."""
    return np.lexsort((turns["seq"][rows], turns.ranks[turns["conversation"][rows]], -scores))
