"""What a difference between two versions may be by chance: a paired bootstrap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct

_RESAMPLES: Final = 4_000
_AT_ONCE: Final = 2_000_000  # numbers in memory
_LEAST_GROUPS: Final = 10


class Paired(NamedTuple):
    """One question's figure under both versions. ``group``: the user or conversation whom it belongs to."""

    group: str
    old: float
    new: float


class Interval(Struct, frozen=True, kw_only=True):
    """A mean difference, new minus old, with its 95 % interval.

    ``by``: what was drawn anew. Questions of one user resemble each other, so users are drawn, if there are at least
    ten; fewer would give an interval of chance, so then questions are, and the interval is somewhat too narrow.
    """

    questions: int
    groups: int
    old: float
    new: float
    difference: float
    low: float
    high: float
    by: Literal["group", "question"]


def paired(rows: Iterable[Paired], seed: int = 0) -> Interval:
    """Return the mean difference with its percentile interval; the same for the same rows, in any order.

    Raises ValueError without rows. Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    ordered = sorted(rows)
    if not ordered:
        raise ValueError("there are no questions to compare on")
    groups = len({row.group for row in ordered})
    by: Literal["group", "question"] = "group" if groups >= _LEAST_GROUPS else "question"
    differences = np.array([row.new - row.old for row in ordered])
    sums, counts = differences, np.ones(len(differences))
    if by == "group":
        member = np.unique([row.group for row in ordered], return_inverse=True)[1]
        sums, counts = np.bincount(member, differences), np.bincount(member).astype(np.float64)
    # By what is drawn, not by what it is called: keys differ from one database to the next, and figures must not.
    order = np.lexsort((counts, sums))
    means = _resampled(sums[order], counts[order], seed)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(
        questions=len(ordered),
        groups=groups,
        old=float(np.mean([row.old for row in ordered])),
        new=float(np.mean([row.new for row in ordered])),
        difference=float(differences.mean()),
        low=float(low),
        high=float(high),
        by=by,
    )


def _resampled(sums: npt.NDArray[np.float64], counts: npt.NDArray[Any], seed: int) -> npt.NDArray[np.float64]:
    random = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // len(sums))
    means = []
    for start in range(0, _RESAMPLES, step):
        drawn = random.integers(0, len(sums), (min(step, _RESAMPLES - start), len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)
