"""No clear cue: the strong hybrid plan as it is."""

from __future__ import annotations

from server.retrieval.query_types.query_type import QueryType, Question
from server.retrieval.query_types.wish import Wish


def _wish(_: Question) -> Wish:
    return Wish()


TYPE = QueryType(
    name="default",
    summary="The strong hybrid plan, whenever no cue is clear: the best single plan over all kinds of questions, and "
    "loses to a fitting type where order, time or completeness is asked for.",
    determinism="exact",
    budget="Exact while the scope is searched whole; above the size threshold the vector leg reads an HNSW index and "
    "may miss a neighbour.",
    precedence=100,
    wish=_wish,
)
