"""Which conversation owns which seq: the ancestry of a fork, flat.

A lineage is two lists: ``owners[i]`` owns the seqs from ``ends[i - 1] + 1`` (1 for the first) to ``ends[i]``. The
conversation's own events follow the last end.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple
from uuid import UUID


class Lineage(NamedTuple):
    """The inherited part of a conversation; both lists are empty for one that is no fork."""

    owners: list[UUID]
    ends: list[int]

    @property
    def end(self) -> int:
        """The last inherited seq; 0 when nothing is inherited."""
        return self.ends[-1] if self.ends else 0

    def owner(self, conversation: UUID, seq: int) -> UUID:
        """Return who appended the event that ``conversation`` shows at ``seq``."""
        index = bisect_left(self.ends, seq)
        return self.owners[index] if index < len(self.owners) else conversation

    def at(self, conversation: UUID, fork_seq: int) -> Lineage:
        """Return the lineage of a fork of ``conversation`` that shares its first ``fork_seq`` events.

        An owner of nothing that is shared is left out, so a fork of an unchanged fork is no deeper than it.
        """
        owners, ends = [], []
        start = 0
        for owner, end in zip([*self.owners, conversation], [*self.ends, fork_seq], strict=True):
            if start < min(end, fork_seq):
                owners.append(owner)
                ends.append(min(end, fork_seq))
            start = max(start, end)
        return Lineage(owners, ends)
