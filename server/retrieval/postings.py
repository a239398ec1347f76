"""Which events hold a term, and how often: an inverted index that grows by each event and never is rebuilt."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.intp]
Counts = npt.NDArray[np.float64]

# A posting is 32 bits: the row, and how often the term occurs there, up to 255 (BM25 is flat long before).
_COUNT_BITS: Final = 8
MOST_ROWS: Final = 1 << (32 - _COUNT_BITS)
_MOST: Final = (1 << _COUNT_BITS) - 1
_ITEM: Final = next(code for code in "IL" if array(code).itemsize == 4)


class Postings:
    """Rows by term, rows ascending. Half of a text's terms occur once: such a posting is a plain number.

    Not for use by several threads at once.
    """

    def __init__(self) -> None:
        self._rows_by_term: dict[str, int | array[int]] = {}

    def __len__(self) -> int:
        return len(self._rows_by_term)

    def __contains__(self, term: str) -> bool:
        return term in self._rows_by_term

    @property
    def nbytes(self) -> int:
        """Bytes held, in round figures: the dictionary, its terms, and the postings."""
        held = sys.getsizeof(self._rows_by_term)
        for term, postings in self._rows_by_term.items():
            held += sys.getsizeof(term) + sys.getsizeof(postings)
        return held

    def add(self, row: int, terms: Iterable[str]) -> None:
        """Index a row's terms; rows come in ascending order."""
        index = self._rows_by_term
        for term, count in Counter(terms).items():
            posting = row << _COUNT_BITS | min(count, _MOST)
            held = index.get(term)
            if held is None:
                index[term] = posting
            elif isinstance(held, int):
                index[term] = array(_ITEM, (held, posting))
            else:
                held.append(posting)

    def remove(self, rows: Sequence[int]) -> None:
        """Forget rows, and terms that only they held. Reads every posting: erasure is rare, and must leave nothing."""
        removed = frozenset(rows)
        gone = np.sort(np.asarray(rows, np.uint32))
        emptied = []
        for term, held in self._rows_by_term.items():
            if isinstance(held, int):
                if held >> _COUNT_BITS in removed:
                    emptied.append(term)
                continue
            packed = np.frombuffer(held, np.uint32)
            kept = packed[~_isin((packed >> _COUNT_BITS).astype(np.uint32), gone)]
            if len(kept) == 0:
                emptied.append(term)
            elif len(kept) < len(packed):
                self._rows_by_term[term] = array(_ITEM, kept.tobytes())
        for term in emptied:
            del self._rows_by_term[term]

    def find(self, terms: Sequence[str]) -> tuple[Rows, Counts]:
        """Return the rows that hold any of the terms, ascending, and how often they do, all terms together."""
        found = [self._find(term) for term in terms if term in self._rows_by_term]
        if not found:
            return np.empty(0, np.intp), np.empty(0)
        if len(found) == 1:
            return found[0]
        rows, places = np.unique(np.concatenate([rows for rows, _ in found]), return_inverse=True)
        counts = np.bincount(places, weights=np.concatenate([counts for _, counts in found]))
        return rows, counts.astype(np.float64)

    def _find(self, term: str) -> tuple[Rows, Counts]:
        held = self._rows_by_term[term]
        packed = np.array([held], np.uint32) if isinstance(held, int) else np.frombuffer(held, np.uint32)
        return (packed >> _COUNT_BITS).astype(np.intp), (packed & _MOST).astype(np.float64)


def _isin(rows: npt.NDArray[np.uint32], ascending: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    places = np.searchsorted(ascending, rows)
    return np.asarray(ascending[np.minimum(places, len(ascending) - 1)] == rows)
