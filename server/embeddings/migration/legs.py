"""What one version answered to one question, as far as it is compared."""

from __future__ import annotations

from typing import Final, NamedTuple

KEPT: Final = 20  # places of a ranking: what lies below has 3 % of the weight in rank-biased overlap


class Legs(NamedTuple):
    """Rankings are of event ids, best first: ``conv_…:seq``, by the conversation that appended the event.

    ``dense``: by the vectors alone, with neighbours as the ranking has them; ``final``: as it is served. ``scores``:
    the cosines of the question with the ``dense`` ones. ``milliseconds``: without loading what memory lacked.
    """

    type: str
    dense: tuple[str, ...]
    final: tuple[str, ...]
    scores: tuple[float, ...]
    milliseconds: float
