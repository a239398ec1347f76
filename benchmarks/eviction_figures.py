"""Figures from outcomes: recall three ways, with bootstrap intervals by conversation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.eviction_replay import Outcome

RESAMPLES: Final = 2000
_SEED: Final = 20240311


class Figure(NamedTuple):
    """Means over questions; the interval is of the fractional recall, 95 %, resampling whole conversations."""

    fractional: float
    any: float
    all: float
    low: float
    high: float
    tokens: float
    questions: int


class Ratio(NamedTuple):
    """One rule's fractional recall over another's, and their paired difference, each with a 95 % interval."""

    ratio: float
    ratio_low: float
    ratio_high: float
    difference: float
    low: float
    high: float


def figure(outcomes: Iterable[Outcome]) -> Figure:
    """Summarise the outcomes of one rule at one share and lag."""
    rows = list(outcomes)
    sums, counts = _by_conversation(rows)
    draws = _draws(len(counts))
    means = (draws @ sums) / (draws @ counts)
    low, high = np.quantile(means, (0.025, 0.975))
    return Figure(
        fractional=float(sums.sum() / counts.sum()),
        any=float(np.mean([row.found > 0 for row in rows])),
        all=float(np.mean([row.found == row.wanted for row in rows])),
        low=float(low),
        high=float(high),
        tokens=float(np.mean([row.tokens for row in rows])),
        questions=len(rows),
    )


def compare(ours: Iterable[Outcome], theirs: Iterable[Outcome]) -> Ratio:
    """Compare two rules on the same asks."""
    a, counts = _by_conversation(list(ours))
    b, _ = _by_conversation(list(theirs))
    draws = _draws(len(counts))
    totals = draws @ counts
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (draws @ a) / (draws @ b)
    differences = (draws @ a - draws @ b) / totals
    return Ratio(
        float(a.sum() / b.sum()) if b.sum() else float("inf"),
        *(float(bound) for bound in np.nanquantile(ratios, (0.025, 0.975))),
        float((a.sum() - b.sum()) / counts.sum()),
        *(float(bound) for bound in np.quantile(differences, (0.025, 0.975))),
    )


def group(outcomes: Iterable[Outcome], key: Callable[[Outcome], object]) -> dict[object, list[Outcome]]:
    """Group outcomes."""
    groups: dict[object, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[key(outcome)].append(outcome)
    return dict(groups)


def _by_conversation(rows: list[Outcome]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    groups = group(rows, lambda row: row.conversation)
    names = sorted(groups, key=str)
    sums = [sum(row.found / row.wanted for row in groups[name]) for name in names]
    return np.array(sums, dtype=float), np.array([len(groups[name]) for name in names], dtype=float)


def _draws(conversations: int) -> npt.NDArray[np.float64]:
    """Return how often each conversation is drawn, in each resample."""
    generator = np.random.default_rng(_SEED)
    return generator.multinomial(conversations, np.full(conversations, 1 / conversations), RESAMPLES).astype(float)
