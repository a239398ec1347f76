"""Figures from outcomes: recall three ways, with bootstrap intervals by conversation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from benchmarks.eviction_replay import Outcome

K = TypeVar("K")
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
    a, count_a = _by_conversation(list(ours))
    b, count_b = _by_conversation(list(theirs))
    draws = _draws(len(count_a))
    means_a, means_b = (draws @ a) / (draws @ count_a), (draws @ b) / (draws @ count_b)
    mean_a, mean_b = float(a.sum() / count_a.sum()), float(b.sum() / count_b.sum())
    # A resample in which the other rule found nothing counts as beaten without bound, not as missing.
    ratios = np.divide(means_a, means_b, out=np.full_like(means_a, np.inf), where=means_b > 0)
    ratio_low, ratio_high = np.quantile(ratios, (0.025, 0.975), method="nearest")
    low, high = np.quantile(means_a - means_b, (0.025, 0.975))
    return Ratio(
        ratio=mean_a / mean_b if mean_b else float("inf"),
        ratio_low=float(ratio_low),
        ratio_high=float(ratio_high),
        difference=mean_a - mean_b,
        low=float(low),
        high=float(high),
    )


def group(outcomes: Iterable[Outcome], key: Callable[[Outcome], K]) -> dict[K, list[Outcome]]:
    """Group outcomes."""
    groups: dict[K, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[key(outcome)].append(outcome)
    return dict(groups)


def _by_conversation(rows: list[Outcome]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    groups = group(rows, lambda row: row.conversation)
    names = sorted(groups)
    sums = [sum(row.found / row.wanted for row in groups[name]) for name in names]
    return np.array(sums, dtype=float), np.array([len(groups[name]) for name in names], dtype=float)


def _draws(conversations: int) -> npt.NDArray[np.float64]:
    """Return how often each conversation is drawn, in each resample."""
    generator = np.random.default_rng(_SEED)
    return generator.multinomial(conversations, np.full(conversations, 1 / conversations), RESAMPLES).astype(float)
