"""What policies are judged against: chance, foresight, simple offline fills, and a search for the question.

None of these is a policy: they choose anew at every head, or know what will be asked.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import numpy as np

from benchmarks.eviction_data import Conversation, Question
from benchmarks.eviction_replay import Ask, asks

DRAWS = 20  # of chance
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def words(text: str) -> list[str]:
    """Return the lower-case words of a text."""
    return _WORD.findall(text.lower())


def sizes(conversation: Conversation) -> list[int]:
    """Return the tokens of each event, by seq - 1."""
    return [max(1, item.tokens) for item in conversation.items]


def fill(order: Iterable[int], tokens: Sequence[int], budget: int) -> dict[int, int]:
    """Take events (seqs) in an order, skipping what does not fit; returns seq -> tokens."""
    taken: dict[int, int] = {}
    used = 0
    for seq in order:
        size = tokens[seq - 1]
        if seq not in taken and used + size <= budget:
            taken[seq] = size
            used += size
    return taken


class Chosen:
    """Base of the rules that choose anew whenever they are looked at."""

    def __init__(self, conversation: Conversation, budget: int) -> None:
        self.conversation = conversation
        self.budget = budget
        self.tokens = sizes(conversation)
        self.head = 0

    def append(self) -> None:
        self.head += 1

    def touch(self, seq: int) -> None:
        """Nothing is learned from it."""

    def order(self) -> Iterable[int]:
        """Return seqs, the most wanted first."""
        raise NotImplementedError

    def residents(self) -> Mapping[int, int]:
        return fill(self.order(), self.tokens, self.budget)


class Random(Chosen):
    """Any events; the order is drawn once for each conversation and ``draw``."""

    def __init__(self, conversation: Conversation, budget: int, draw: int = 0) -> None:
        super().__init__(conversation, budget)
        self._order = shuffled(conversation.name, len(self.tokens), draw)

    def order(self) -> Iterable[int]:
        return [seq for seq in self._order if seq <= self.head]


@cache
def shuffled(name: str, length: int, draw: int) -> list[int]:
    """Return seqs in an order that is the same in every run."""
    order = list(range(1, length + 1))
    random.Random(f"{name} {length} {draw}").shuffle(order)
    return order


class Clairvoyant(Chosen):
    """The events that answer most of what is still to be asked, for their tokens: greedy, hence nearly the best set.

    At the end that is the bound. At a lag it also serves what is asked later, so Belady, who looks at what is asked
    next, may be ahead of it there.
    """

    def __init__(self, conversation: Conversation, budget: int) -> None:
        super().__init__(conversation, budget)
        self._asks = _asks(conversation)

    def residents(self) -> Mapping[int, int]:
        worth: dict[int, float] = defaultdict(float)
        for ask in self._asks:
            if ask.head >= self.head:
                for seq in ask.question.evidence:
                    if seq <= self.head:
                        worth[seq] += 1 / len(ask.question.evidence)
        order = sorted(worth, key=lambda seq: (-worth[seq] / self.tokens[seq - 1], seq))
        return fill(order, self.tokens, self.budget)


class Belady:
    """Evicts what will be touched latest, or never; sees nothing that was let go.

    It looks at the next touch, not at sizes or at how many touches follow, so it is no bound on recall at the end,
    where everything is asked at once.
    """

    def __init__(self, conversation: Conversation, budget: int) -> None:
        self.tokens = sizes(conversation)
        self.budget = budget
        self.head = 0
        self.used = 0
        self._resident = np.zeros(len(self.tokens) + 1, dtype=bool)
        self._next = np.full(len(self.tokens) + 1, np.inf)
        self._touches = {seq: list(heads) for seq, heads in _touch_trace(conversation).items()}

    def append(self) -> None:
        self.head += 1
        seq, size = self.head, self.tokens[self.head - 1]
        for one, heads in self._touches.items():
            if heads and heads[0] < self.head:
                while heads and heads[0] < self.head:
                    heads.pop(0)
                self._next[one] = heads[0] if heads else np.inf
        due = self._touches.get(seq)
        self._next[seq] = due[0] if due else np.inf
        if size > self.budget:
            return
        self._resident[seq] = True
        self.used += size
        while self.used > self.budget:
            resident = np.flatnonzero(self._resident)
            worst = int(resident[np.argmax(self._next[resident])])
            self._resident[worst] = False
            self.used -= self.tokens[worst - 1]

    def touch(self, seq: int) -> None:
        """It was known."""

    def residents(self) -> Mapping[int, int]:
        return {int(seq): self.tokens[seq - 1] for seq in np.flatnonzero(self._resident)}


_ASKS: dict[int, list[Ask]] = {}


def _asks(conversation: Conversation) -> list[Ask]:
    return _ASKS.setdefault(id(conversation), asks(conversation))


def _touch_trace(conversation: Conversation) -> dict[int, list[int]]:
    """Return seq -> the heads at which a question needs it, ascending: the trace of a perfect fault path."""
    trace: dict[int, list[int]] = {}
    for ask in _asks(conversation):
        for seq in ask.question.evidence:
            trace.setdefault(seq, []).append(ask.head)
    return trace


def rarities(conversation: Conversation) -> list[float]:
    """Return each event's summed inverse document frequency over the whole conversation, by seq - 1."""
    documents = [set(words(text)) for text in conversation.texts]
    counts = Counter(word for document in documents for word in document)
    total = len(documents)
    return [sum(math.log((total + 1) / (counts[word] + 0.5)) for word in document) for document in documents]


class Bm25:
    """BM25 over the events up to a head, for one conversation."""

    def __init__(self, conversation: Conversation, k1: float = 1.2, b: float = 0.75) -> None:
        self._counts = [Counter(words(text)) for text in conversation.texts]
        self._lengths = np.array([sum(counts.values()) for counts in self._counts], dtype=float)
        self._postings: dict[str, list[int]] = {}
        for index, counts in enumerate(self._counts):
            for word in counts:
                self._postings.setdefault(word, []).append(index)
        self._k1, self._b = k1, b

    def order(self, question: str, head: int) -> list[int]:
        """Return the seqs that share a word with the question, best first."""
        scores: dict[int, float] = defaultdict(float)
        mean = float(self._lengths[:head].mean())
        for word in set(words(question)):
            postings = [index for index in self._postings.get(word, ()) if index < head]
            idf = math.log(1 + (head - len(postings) + 0.5) / (len(postings) + 0.5))
            for index in postings:
                count = self._counts[index][word]
                norm = self._k1 * (1 - self._b + self._b * self._lengths[index] / mean)
                scores[index + 1] += idf * count * (self._k1 + 1) / (count + norm)
        return sorted(scores, key=lambda seq: (-scores[seq], seq))


_BM25: dict[int, Bm25] = {}
_ORDERS: dict[tuple[int, str, int], list[int]] = {}


def bm25_order(conversation: Conversation, question: Question, head: int) -> list[int]:
    """Return seqs by BM25 for the question, each followed by its neighbours, then the newest."""
    key = (id(conversation), question.text, head)
    if key not in _ORDERS:
        if id(conversation) not in _BM25:
            _BM25[id(conversation)] = Bm25(conversation)
        found = _with_neighbours(_BM25[id(conversation)].order(question.text, head), head)
        _ORDERS[key] = list(dict.fromkeys([*found, *range(head, 0, -1)]))
    return _ORDERS[key]


def bm25_fault_path(
    conversation: Conversation, question: Question, head: int, residents: Mapping[int, int], left: int
) -> Mapping[int, int]:
    """Bring back what BM25 finds for the question, with neighbours: a stand-in until retrieval is there."""
    tokens = sizes(conversation)
    missing = (seq for seq in bm25_order(conversation, question, head) if seq not in residents)
    return fill(missing, tokens, left)


def _with_neighbours(order: Iterable[int], head: int) -> Iterable[int]:
    for seq in order:
        yield from (one for one in (seq, seq - 1, seq + 1) if 1 <= one <= head)


def offline(conversation: Conversation, share: float) -> dict[str, Mapping[int, int]]:
    """Return the sets that DESIGN's evidence table compares, chosen at the end of a conversation."""
    tokens, end = sizes(conversation), len(conversation.items)
    budget = int(share * sum(tokens))
    newest = list(range(end, 0, -1))
    sink = _prefix(range(1, end + 1), tokens, int(0.1 * budget))
    rest = _prefix([seq for seq in newest if seq not in sink], tokens, budget - sum(sink.values()))
    salience = rarities(conversation)
    return {
        "FIFO window": _prefix(newest, tokens, budget),
        "first-10 % sink + window": {**sink, **rest},
        **{f"random {draw}": fill(shuffled(conversation.name, end, draw), tokens, budget) for draw in range(DRAWS)},
        "shortest first": fill(sorted(newest, key=lambda seq: tokens[seq - 1]), tokens, budget),
        "query-blind IDF salience": fill(sorted(newest, key=lambda seq: -salience[seq - 1]), tokens, budget),
    }


def _prefix(order: Iterable[int], tokens: Sequence[int], budget: int) -> dict[int, int]:
    """Take events in an order until one does not fit."""
    taken: dict[int, int] = {}
    for seq in order:
        if sum(taken.values()) + tokens[seq - 1] > budget:
            break
        taken[seq] = tokens[seq - 1]
    return taken
