"""Signals to one order: standardised, weighted, summed, and cut, the same way to the bit each time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from server.retrieval.turns import Key, Rows, Turns

Floats = npt.NDArray[np.float64]

# Sums differ in their last bits between machines' linear algebra; scores equal to this many decimals are equal.
_DECIMALS = 6


def standardise(values: Floats) -> Floats:
    """Return values with mean 0 and deviation 1; missing ones (NaN) are average, and so are all when all are equal."""
    known = ~np.isnan(values)
    if not known.any():
        return np.zeros(len(values))
    mean, deviation = values[known].mean(), values[known].std()
    if deviation < 1e-9:
        return np.zeros(len(values))
    return np.where(known, (values - mean) / deviation, 0.0)


def blend(similarities: Floats, before: Rows, after: Rows, weight_before: float, weight_after: float) -> Floats:
    """Return each event's similarity averaged with its neighbours'; NaN where it has none itself.

    ``before``, ``after``: the neighbours' places, past the end for none.
    """
    padded = np.append(similarities, np.nan)
    total, weight = similarities.copy(), np.ones(len(similarities))
    for places, share in ((before, weight_before), (after, weight_after)):
        near = padded[places]
        there = ~np.isnan(near)
        total[there] += share * near[there]
        weight[there] += share
    return total / weight


def pool(legs: list[Floats], allowed: Rows, most: int) -> Rows:
    """Return which of the allowed events are worth ranking in full, ascending: all, else the best of each leg.

    A leg says nothing of an event that it gives 0 or NaN. What the legs leave free goes to the newest events.
    """
    if len(allowed) <= most:
        return allowed
    share = max(1, most // len(legs))
    chosen = np.zeros(len(allowed), np.bool_)
    for leg in legs:
        values = leg[allowed]
        spoken = np.flatnonzero((values != 0) & ~np.isnan(values))
        if len(spoken) > share:
            least = np.partition(values[spoken], -share)[-share]
            better = spoken[values[spoken] > least]
            # Of a tie the first in the log, so that the choice is no accident of the partition.
            tied = spoken[values[spoken] == least]
            spoken = np.concatenate([better, tied[: share - len(better)]])
        chosen[spoken] = True
    free = np.flatnonzero(~chosen)
    chosen[free[max(0, len(free) - (most - int(chosen.sum()))) :]] = True
    return allowed[np.flatnonzero(chosen)]


def total(features: dict[str, Floats], weights: dict[str, float], size: int) -> Floats:
    """Return the weighted sum, rounded."""
    summed = np.zeros(size)
    for name, values in features.items():
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

    def rank(place: int) -> tuple[float, Key]:
        return -float(scores[place]), turns.key(int(rows[place]))

    return sorted((int(place) for place in places), key=rank)[:k]
