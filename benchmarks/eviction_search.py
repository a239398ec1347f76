"""The fault path as the server has it: the plan of the question's type, over what had been said by then."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np

from benchmarks.eviction_data import Conversation, Question
from benchmarks.retrieval_tuning_models import Embed, embedder
from server.retrieval import planner
from server.retrieval.budget import neighbourhoods, preference
from server.retrieval.classify import classify
from server.retrieval.index import Index
from server.retrieval.newness import NEWNESS, Newness, newer_first
from server.retrieval.plan import PLANS
from server.retrieval.ranking import Ranking
from server.retrieval.turns import Key


class SearchFaultPath:
    """Brings back what the server's search would, best first, as far as there is room.

    ``model``: "static" or "minilm". ``newness``: what being new counts, the server's unless given; None for nothing.
    """

    def __init__(self, model: str, newness: Newness | None = NEWNESS) -> None:
        self._plan = PLANS[model]
        self._newness = newness
        self._embed: Embed = embedder(model)
        self._indexes: dict[str, Index] = {}
        self._vectors: dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]] = {}
        self._orders: dict[tuple[str, str, int, int], list[int]] = {}

    def __call__(
        self, conversation: Conversation, question: Question, head: int, residents: Mapping[int, int], left: int
    ) -> Mapping[int, int]:
        """Return the tokens of each seq that is brought back."""
        found: dict[int, int] = {}
        for seq in self._order(conversation, question, head, left + sum(residents.values())):
            tokens = conversation.items[seq - 1].tokens
            if seq not in residents and tokens <= left:
                found[seq] = tokens
                left -= tokens
        return found

    def _order(self, conversation: Conversation, question: Question, head: int, budget: int) -> list[int]:
        neighbours = neighbourhoods(self._plan, budget)
        known = (conversation.name, question.text, head, neighbours)
        if known not in self._orders:
            ranking, first = self._ranking(conversation, question, head)
            if self._newness is not None:
                ranking = newer_first(ranking, self._newness)
            order = dict.fromkeys([*first, *(key for key, _ in preference(ranking, neighbours))])
            self._orders[known] = [key.seq for key in order]
        return self._orders[known]

    def _ranking(self, conversation: Conversation, question: Question, head: int) -> tuple[Ranking, list[Key]]:
        index = self._index(conversation)
        if question.text not in self._vectors:
            self._vectors[question.text] = self._embed([question.text])[0]
        now = datetime.fromtimestamp(max(entry.at for entry in conversation.entries[:head]), UTC)
        classified = classify(question.text, now=now, speakers=index.turns.speakers)
        planned = planner.plan(classified, self._plan)
        within = index.turns["live"] & (index.turns["seq"] <= head)
        vector = self._vectors[question.text]
        ranking = index.search(question.text, vector, planned.plan, 50, within=within)
        replanned = planner.replan(ranking, planned, 50)
        first = [one.key for one in replanned.found if one.score is None]
        return replanned.ranking, first

    def _index(self, conversation: Conversation) -> Index:
        if conversation.name not in self._indexes:
            index = self._indexes[conversation.name] = Index()
            index.add(conversation.entries, self._embed([entry.text for entry in conversation.entries]))
        return self._indexes[conversation.name]
