"""Which rows of an index carry a session's label or a member of metadata: for filters that must match exactly."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Raw, UnsetType

from server import verbatim
from server.retrieval.turns import Mask

# 16 bytes stand for a label, however long: what is held is bounded by the number of events, and is no text.
_DIGEST: Final = 16
_ENTRY: Final = 150  # bytes that a label takes besides its rows

Label = bytes

_encode: Final = msgspec.json.Encoder(order="sorted").encode


def session_label(session: str) -> Label:
    """Return the label of a session."""
    return _digest("session", session)


def member_label(name: str, value: Any) -> Label:
    """Return the label of a member of metadata; values are equal as JSON, whatever the order of their members."""
    return _digest("member", name, value)


def member_labels(metadata: Raw | UnsetType) -> set[Label]:
    """Return the labels of all members of an event's metadata."""
    if isinstance(metadata, UnsetType):
        return set()
    members = verbatim.value(metadata)
    return {member_label(name, value) for name, value in members.items()} if isinstance(members, dict) else set()


class Labels:
    """Rows by label, ascending; rows are added in ascending order."""

    def __init__(self) -> None:
        self._rows: dict[Label, array[int]] = {}
        self.nbytes = 0

    def add(self, row: int, session: str | None, metadata: Raw | UnsetType) -> None:
        """Note what a row carries."""
        labels = member_labels(metadata) | (set() if session is None else {session_label(session)})
        for label in labels:
            rows = self._rows.get(label)
            if rows is None:
                rows = self._rows[label] = array("q")
                self.nbytes += _ENTRY
            rows.append(row)
            self.nbytes += rows.itemsize

    def remove(self, rows: Iterable[int]) -> None:
        """Forget rows, and labels that only they carried."""
        gone = np.fromiter(rows, np.int64)
        if not len(gone):
            return
        for label, held in list(self._rows.items()):
            before = np.frombuffer(held, np.int64)
            kept = before[~np.isin(before, gone)]
            if len(kept) == len(before):
                continue
            self.nbytes -= held.itemsize * (len(before) - len(kept))
            if len(kept):
                self._rows[label] = array("q", kept.tobytes())
            else:
                del self._rows[label]
                self.nbytes -= _ENTRY

    def carrying(self, labels: Sequence[Label], size: int) -> Mask:
        """Return which of ``size`` rows carry any of the labels."""
        found: npt.NDArray[np.bool_] = np.zeros(size, np.bool_)
        for label in labels:
            if label in self._rows:
                found[np.frombuffer(self._rows[label], np.int64)] = True
        return found


def _digest(*parts: Any) -> Label:
    return hashlib.blake2b(_encode(parts), digest_size=_DIGEST).digest()
