"""Whether stored vectors are sound, whatever they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

_UNIT: Final = 1e-2  # half precision keeps three digits
_NOTHING: Final = 1e-6

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class Vectors(Struct, frozen=True, kw_only=True):
    """Counts over ``rows`` vectors.

    ``not_finite``: with NaN or infinity. ``zero``: without length. ``off_norm``: of another length than 1. ``alike``:
    equal to the vector of another text. ``concentration``: the length of the mean direction, from 0 to 1, where 1 says
    that all are the same; over sound vectors only.
    """

    rows: int = 0
    not_finite: int = 0
    zero: int = 0
    off_norm: int = 0
    alike: int = 0
    concentration: float = 0.0


def inspect(matrix: Floats, text_hashes: Sequence[bytes]) -> Vectors:
    """Count what is wrong in a matrix (n, d) of vectors, each with the hash of its text.

    Vectors are compared with each other within one call: give it a sample across users, not one conversation.
    """
    if len(matrix) != len(text_hashes):
        raise ValueError(f"{len(matrix)} vectors and {len(text_hashes)} hashes do not belong together")
    values = np.asarray(matrix, np.float64)
    finite = np.asarray(np.isfinite(values).all(axis=1))
    norms = np.linalg.norm(np.where(finite[:, None], values, 0.0), axis=1)
    zero = finite & (norms < _NOTHING)
    sound = finite & ~zero
    off = sound & (np.abs(norms - 1) > _UNIT)
    texts: dict[bytes, set[bytes]] = {}
    rows = [(values[row].tobytes(), text_hashes[row]) for row in np.flatnonzero(sound).tolist()]
    for vector, text in rows:
        texts.setdefault(vector, set()).add(text)
    directions = values[sound] / norms[sound, None]
    return Vectors(
        rows=len(values),
        not_finite=int((~finite).sum()),
        zero=int(zero.sum()),
        off_norm=int(off.sum()),
        alike=sum(len(texts[vector]) > 1 for vector, _ in rows),
        concentration=float(np.linalg.norm(directions.mean(axis=0))) if len(directions) > 1 else 0.0,
    )


def cosines(stored: Floats, embedded: Floats) -> npt.NDArray[np.float64]:
    """Return the cosine of each stored vector to the one that was made of its text again; NaN where either is none."""
    one, other = np.asarray(stored, np.float64), np.asarray(embedded, np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        return np.asarray((one * other).sum(axis=1) / lengths, np.float64)
