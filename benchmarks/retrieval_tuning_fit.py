"""Weights by maximum likelihood: a softmax over a conversation's events, to which the labelled evidence is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Pulls weights to 0, per question: it decides only what the data leaves open.
_RIDGE: Final = 0.002
_STEPS: Final = 50


class Example(NamedTuple):
    """One question: features by event and signal, and the places of its evidence."""

    fold: str
    features: Floats
    evidence: npt.NDArray[np.intp]


def fit(examples: Sequence[Example], ridge: float = _RIDGE) -> Floats:
    """Return one weight a signal: the maximum of the mean log-likelihood, by Newton's method.

    The problem is concave, so there is one maximum, and every run finds it.
    """
    size = examples[0].features.shape[1]
    weights = np.zeros(size)
    for _ in range(_STEPS):
        gradient = -ridge * weights * len(examples)
        curvature = ridge * np.eye(size) * len(examples)
        for example in examples:
            scores = example.features @ weights
            chances = np.exp(scores - scores.max())
            chances /= chances.sum()
            expected = chances @ example.features
            gradient += example.features[example.evidence].mean(axis=0) - expected
            spread = (example.features * chances[:, None]).T @ example.features
            curvature += spread - np.outer(expected, expected)
        step = np.linalg.solve(curvature, gradient)
        largest = float(np.abs(step).max())
        weights += step / max(1.0, largest)
        if largest < 1e-6:
            break
    return weights
