"""What was just said is asked about more often than its words tell: how much that counts in a context."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct, structs

from server.retrieval.ranking import Evidence, Ranking
from server.retrieval.turns import Rows, View

Floats = npt.NDArray[np.float64]


class Newness(Struct, frozen=True):
    """What the newest event gains in log-odds, and after how many events half of that is left."""

    weight: float = 1.5
    half_life: float = 20.0

    @property
    def name(self) -> str:
        """It in a few words, for stamps."""
        return f"newer +{self.weight:g} half-life {self.half_life:g}"


# A context alone has it: a search is as likely about what is old. Chosen on all LoCoMo conversations but one and judged
# on that one (benchmarks/newness_tuning.py), in a tenth of the tokens it is worth .020 of the evidence 8 events after
# that, .014 after 15, .002 after 30 and at the end, and costs .005 after 100. Shapes with a longer tail (1 / age, the
# logarithm of it) gain as much early and lose more of what is old; so does a larger share for the residents.
NEWNESS: Final = Newness()


def newer_first(ranking: Ranking, newness: Newness = NEWNESS) -> Ranking:
    """Return a ranking with what being new adds to the scores; its hits are as they were."""
    evidence = ranking.evidence
    added = newness.weight * 0.5 ** (ages(evidence.view)[evidence.pool] / newness.half_life)
    return structs.replace(ranking, evidence=structs.replace(evidence, scores=np.round(evidence.scores + added, 6)))


def age(evidence: Evidence, local: int) -> int:
    """Return how many events of the view are newer than one."""
    return int(ages(evidence.view)[local])


def ages(view: View) -> Rows:
    """Return how many events are newer than each of a view: by time, as several conversations have no other order."""

    def count() -> Rows:
        newest_first = np.lexsort((view.column("seq"), view.column("at")))[::-1]
        found = np.empty(view.size, np.intp)
        found[newest_first] = np.arange(view.size)
        return found

    return view.keep("ages", count)
