"""Replay: which events are at hand when a question is asked, under a rule and a budget.

An *ask* is a question at a head: so many events after its last evidence, or at the end. Its budget is a share of the
tokens seen by then. A fold has a fixed budget, so each rule is folded once for each of a series of budgets in geometric
steps, and an ask is answered by the largest that does not exceed its own; at the end of the conversation the budget is
exact. A budget is at most `STEP` smaller than it could be, for all rules alike.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from benchmarks.eviction_data import Conversation, Question
from server.working_set.fold import Fold
from server.working_set.items import Touch

SHARES = (0.02, 0.05, 0.10, 0.25, 0.50)
LAGS = (8, 15, 30, 100)
END = 0  # the lag of questions at the end of the conversation
STEP = 1.05


class Ask(NamedTuple):
    """A question asked when the log's head was ``head``; ``lag`` in events since its last evidence, or END."""

    question: Question
    head: int
    lag: int


class Outcome(NamedTuple):
    """What was at hand for an ask: how many of its evidence events, of how many, and the context's tokens."""

    conversation: str
    category: str
    share: float
    lag: int
    found: int
    wanted: int
    tokens: int


class Rule(Protocol):
    """Residents event by event, under a fixed budget; a policy's fold, or a bound."""

    def append(self) -> None:
        """Take in the next event."""

    def touch(self, seq: int) -> None:
        """An event was used at this head."""

    def residents(self) -> Mapping[int, int]:
        """Return the tokens of each resident seq."""


MakeRule = Callable[[Conversation, int], Rule]
# Given a question, the head, the residents (seq -> tokens) and the tokens left for it: what to bring back, likewise.
FaultPath = Callable[[Conversation, Question, int, Mapping[int, int], int], Mapping[int, int]]


class Timing:
    """Seconds and counts of appends and assemblies."""

    def __init__(self) -> None:
        self.append_seconds = 0.0
        self.appends = 0
        self.assembly_seconds = 0.0
        self.assemblies = 0

    @property
    def append_us(self) -> float:
        """Microseconds an append."""
        return 1e6 * self.append_seconds / max(1, self.appends)

    @property
    def assembly_us(self) -> float:
        """Microseconds an assembly."""
        return 1e6 * self.assembly_seconds / max(1, self.assemblies)


class FoldRule:
    """A policy, folded."""

    def __init__(self, conversation: Conversation, fold: Fold) -> None:
        self._items = iter(conversation.items)
        self._fold = fold

    def append(self) -> None:
        self._fold.apply(next(self._items))

    def touch(self, seq: int) -> None:
        self._fold.touch(Touch(seq=seq, at=self._fold.head))

    def residents(self) -> Mapping[int, int]:
        found: dict[int, int] = {}
        for unit in self._fold.kept.residents:
            found.update(zip((part.seq for part in unit.parts), unit.charges(), strict=True))
        return found


def asks(conversation: Conversation) -> list[Ask]:
    """Return every ask of a conversation, in order of heads."""
    end = len(conversation.items)
    found = [Ask(question, end, END) for question in conversation.questions]
    for question in conversation.questions:
        found += [Ask(question, question.evidence[-1] + lag, lag) for lag in LAGS if question.evidence[-1] + lag <= end]
    return sorted(found, key=lambda ask: (ask.head, ask.lag))


def budgets(conversation: Conversation, wanted: Iterable[Ask]) -> dict[int, dict[int, list[tuple[Ask, float]]]]:
    """Return budget -> head -> the asks (and shares) that it answers."""
    seen = [0]
    for item in conversation.items:
        seen.append(seen[-1] + item.tokens)
    plan: dict[int, dict[int, list[tuple[Ask, float]]]] = defaultdict(lambda: defaultdict(list))
    for ask in wanted:
        for share in SHARES:
            budget = share * seen[ask.head]
            exact = ask.head == len(conversation.items)
            step = budget if exact else STEP ** math.floor(math.log(max(budget, 1), STEP))
            plan[max(1, int(step))][ask.head].append((ask, share))
    return plan


def replay(
    conversation: Conversation,
    make: MakeRule,
    timing: Timing,
    *,
    lags: Sequence[int] = (*LAGS, END),
    fault_path: FaultPath | None = None,
    resident_share: float = 1.0,
    touches: bool = False,
) -> list[Outcome]:
    """Answer every ask of a conversation under a rule.

    With a fault path, the rule gets ``resident_share`` of each budget and the fault path the rest, and what is left.
    With ``touches``, the evidence that was at hand is named as used after each ask, at every lag.
    """
    wanted = [ask for ask in asks(conversation) if ask.lag in lags]
    outcomes = []
    for budget, heads in budgets(conversation, wanted).items():
        rule = make(conversation, max(1, int(resident_share * budget)))
        used = _by_head(wanted) if touches else {}
        for head in range(1, max(heads) + 1):
            began = time.perf_counter()
            rule.append()
            timing.append_seconds += time.perf_counter() - began
            timing.appends += 1
            if head in heads:
                began = time.perf_counter()
                residents = rule.residents()
                resident_tokens = sum(residents.values())
                for ask, share in heads[head]:
                    context, tokens = residents, resident_tokens
                    if fault_path is not None:
                        faulted = fault_path(conversation, ask.question, head, residents, budget - tokens)
                        context, tokens = {**residents, **faulted}, tokens + sum(faulted.values())
                    assert tokens <= budget, f"{tokens} tokens in a budget of {budget}"
                    evidence = ask.question.evidence
                    found = sum(seq in context for seq in evidence)
                    outcomes.append(
                        Outcome(conversation.name, ask.question.category, share, ask.lag, found, len(evidence), tokens)
                    )
                timing.assembly_seconds += time.perf_counter() - began
                timing.assemblies += len(heads[head])
            for seq in used.get(head, ()):
                if seq in rule.residents():
                    rule.touch(seq)
    return outcomes


def _by_head(wanted: Iterable[Ask]) -> dict[int, list[int]]:
    used: dict[int, list[int]] = defaultdict(list)
    for ask in wanted:
        if ask.lag != END:
            used[ask.head] += ask.question.evidence
    return used
