"""Arrays that grow at their end, in amortised constant time."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_FIRST: Final = 64


class Growing:
    """A numpy array of rows, each a value or ``width`` values, with room to grow."""

    def __init__(self, dtype: npt.DTypeLike, width: int | None = None) -> None:
        self._room = np.zeros((_FIRST,) if width is None else (_FIRST, width), dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> npt.NDArray[Any]:
        """The rows so far: a view that writes through, valid until the next extend."""
        return self._room[: self._size]

    @property
    def nbytes(self) -> int:
        """Bytes held, room included."""
        return self._room.nbytes

    def extend(self, rows: npt.ArrayLike) -> None:
        """Append rows."""
        new = np.asarray(rows, self._room.dtype)
        self._make_room(self._size + len(new))
        self._room[self._size : self._size + len(new)] = new
        self._size += len(new)

    def append(self, value: Any) -> None:
        """Append one row."""
        self._make_room(self._size + 1)
        self._room[self._size] = value
        self._size += 1

    def _make_room(self, needed: int) -> None:
        if needed <= len(self._room):
            return
        # Half as much again: at most a third of the memory is room, and each row is copied three times.
        room = np.zeros((max(needed, len(self._room) * 3 // 2), *self._room.shape[1:]), self._room.dtype)
        room[: self._size] = self.values
        self._room = room
