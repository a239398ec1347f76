"""The unit vectors of a scope's events, searched exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from server.errors import InvalidInput
from server.retrieval.growing import Growing

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


class Vectors:
    """One vector a row, float32, of length 1; a row without one (not yet embedded, or removed) is all zeros."""

    def __init__(self) -> None:
        self._matrix: Growing | None = None
        self._present = Growing(np.bool_)

    @property
    def dimensions(self) -> int | None:
        """None as long as there is no vector."""
        return None if self._matrix is None else int(self._matrix.values.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._present.nbytes + (0 if self._matrix is None else self._matrix.nbytes)

    def extend(self, rows: int) -> None:
        """Make room for rows that have no vector yet."""
        self._present.extend(np.zeros(rows, np.bool_))
        if self._matrix is not None:
            self._matrix.extend(np.zeros((rows, self._matrix.values.shape[1]), np.float32))

    def check(self, rows: int, vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return as many vectors as there are rows, scaled to length 1 (zeros stay).

        Raises InvalidInput for another number of rows or dimensions, or for values that are no finite numbers.
        """
        given = np.asarray(vectors, np.float32)
        if given.ndim != 2 or len(given) != rows:
            raise InvalidInput(f"{rows} vectors are expected, not an array of shape {given.shape}.")
        return unit(given, self.dimensions)

    def put(self, rows: Rows, vectors: npt.ArrayLike) -> None:
        """Set the vectors of rows; raises InvalidInput as `check` says."""
        given = self.check(len(rows), vectors)
        if self._matrix is None:
            self._matrix = Growing(np.float32, given.shape[1])
            self._matrix.extend(np.zeros((len(self._present), given.shape[1]), np.float32))
        self._matrix.values[rows] = given
        self._present.values[rows] = given.any(axis=1)

    def clear(self, rows: Rows) -> None:
        """Forget the vectors of rows."""
        if self._matrix is not None:
            self._matrix.values[rows] = 0
            self._present.values[rows] = False

    def similarities(self, query: npt.ArrayLike, rows: Rows | None = None) -> Floats:
        """Return each row's cosine with the query: NaN for a row without a vector.

        ``rows``: None for all. Raises InvalidInput for a query of another number of dimensions.
        """
        present = self._present.values if rows is None else self._present.values[rows]
        if self._matrix is None:
            return np.full(len(present), np.nan)
        matrix = self._matrix.values
        vector = unit(np.asarray(query, np.float32).reshape(1, -1), self.dimensions)[0]
        if rows is None:
            found = matrix @ vector
        elif len(rows) * 4 > len(matrix):  # copying rows out costs more than multiplying them, once they are many
            found = (matrix @ vector)[rows]
        else:
            found = matrix[rows] @ vector
        similar: Floats = found.astype(np.float64)
        if not present.all():
            similar[~present] = np.nan
        return similar


def unit(vectors: npt.NDArray[np.float32], dimensions: int | None) -> npt.NDArray[np.float32]:
    """Return vectors scaled to length 1 (zeros stay); raises InvalidInput as `Vectors.check` says."""
    if dimensions is not None and vectors.shape[1] != dimensions:
        raise InvalidInput(f"A vector has {vectors.shape[1]} dimensions; this scope's have {dimensions}.")
    if not np.isfinite(vectors).all():
        raise InvalidInput("A vector holds a value that is no finite number.")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), np.float32)
