"""Scores of two models: their distributions, and what a threshold on the one scale is on the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

_QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_LEAST: Final = 200  # scores
_DECIMALS: Final = 9  # more are noise in single precision

Floats = npt.NDArray[np.float64]


class Distribution(Struct, frozen=True, kw_only=True):
    """``quantiles``: at 1, 5, 25, 50, 75, 95 and 99 %."""

    scores: int
    mean: float
    deviation: float
    quantiles: tuple[float, ...]


class Recalibrated(Struct, frozen=True, kw_only=True):
    """``value``: the threshold on the new scale, None where it cannot be told. ``share``: of scores at or above it."""

    name: str
    old: float
    value: float | None
    share: float
    why: str


def distribution(scores: Sequence[float]) -> Distribution:
    """Summarise scores; raises ValueError when there are none, or some are no finite numbers."""
    values = _finite(scores)
    quantiles = tuple(float(value) for value in np.quantile(values, _QUANTILES))
    return Distribution(
        scores=len(values), mean=float(values.mean()), deviation=float(values.std()), quantiles=quantiles
    )


def recalibrate(name: str, threshold: float, old: Sequence[float], new: Sequence[float]) -> Recalibrated:
    """Return the value that as large a share of the new scores reaches as of the old ones reach ``threshold``.

    ``old``, ``new``: scores of the same searches, of the kind that the threshold is for. Beyond the scores that were
    seen nothing is guessed.
    """
    before, after = np.sort(_finite(old)), np.sort(_finite(new))
    if min(len(before), len(after)) < _LEAST:
        why = f"{min(len(before), len(after))} scores were seen; {_LEAST} are needed"
        return Recalibrated(name=name, old=threshold, value=None, share=float(np.mean(before >= threshold)), why=why)
    if not before[0] <= threshold <= before[-1]:
        side = "below" if threshold < before[0] else "above"
        why = f"{threshold:g} is {side} all {len(before)} scores of the old version: no share of them tells its value"
        return Recalibrated(name=name, old=threshold, value=None, share=float(threshold < before[0]), why=why)
    at = float(np.interp(threshold, *_places(before)))
    scores, places = _places(after)
    value = float(np.interp(at, places, scores))
    why = f"{1 - at:.1%} of {len(before)} old scores reach {threshold:.4g}, and as many of the new ones {value:.4g}"
    return Recalibrated(name=name, old=threshold, value=value, share=1 - at, why=why)


def _places(scores: Floats) -> tuple[Floats, Floats]:
    """Return each different score, ascending, and the middle of its places, from 0 to 1."""
    values, counts = np.unique(np.round(scores, _DECIMALS), return_counts=True)
    return values, (np.cumsum(counts) - counts / 2) / len(scores)


def _finite(scores: Sequence[float]) -> Floats:
    values = np.asarray(scores, np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("scores must be finite numbers, and there must be some")
    return values
