"""What of a search is compared with another version's: the vector leg and the final ranking, by ids."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import numpy.typing as npt

from server.database.ids import ConversationId
from server.embeddings.migration.legs import KEPT, Legs
from server.retrieval import fusion
from server.retrieval.index import Index
from server.retrieval.planner import Replanned
from server.retrieval.turns import Key


def legs_of(
    index: Index, vector: npt.NDArray[np.float32], kind: str, replanned: Replanned, user_key: int | None
) -> Legs:
    """Return both rankings, that by the vectors empty where no event has one. Valid until the index changes.

    ``user_key``: of the family, whose index names conversations by their UUIDs alone; None where it names them whole.
    """
    evidence = replanned.ranking.evidence
    known: list[tuple[Key, float]] = []
    if "dense" in evidence.features:
        rows = evidence.view.rows[evidence.pool]
        best = fusion.order(evidence.features["dense"], rows, evidence.turns, KEPT)
        keys = [evidence.turns.key(int(rows[place])) for place in best]
        cosines = index.cosines(vector, keys)
        # An event that has no vector yet ranks as the average does; it is no finding of the vectors.
        known = [(key, float(cosine)) for key, cosine in zip(keys, cosines, strict=True) if not np.isnan(cosine)]
    return Legs(
        type=kind,
        dense=tuple(event_name(key, user_key) for key, _ in known),
        final=tuple(event_name(one.key, user_key) for one in replanned.found[:KEPT]),
        scores=tuple(cosine for _, cosine in known),
        milliseconds=0.0,
    )


def event_name(key: Key, user_key: int | None) -> str:
    """Return ``conv_…:seq`` of an event, by the conversation that appended it."""
    at = key.conversation if user_key is None else str(ConversationId(user_key, UUID(hex=key.conversation)))
    return f"{at}:{key.seq}"
