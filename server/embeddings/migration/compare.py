"""What `compare` measures: the candidate's answers against the old version's, and the old version against itself.

Two sources: the golden questions, which both versions are asked here, in turns, and which say what is right; and the
searches of the shadow, which say what callers do. For the noise floor the old version is asked a part of the golden
questions again, by indexes that are loaded anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import Any, Final, NamedTuple, Protocol

from msgspec import Struct, to_builtins

from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.embeddings.lifecycle.figures.labelled import Answered, recalls
from server.embeddings.lifecycle.figures.rankings import overlap, rank_biased_overlap
from server.embeddings.lifecycle.figures.scores import Distribution, Recalibrated, distribution, recalibrate
from server.embeddings.lifecycle.figures.segments import ALL, segments
from server.embeddings.lifecycle.figures.shadowed import K, Shadowed, agreements, disagreements, latency
from server.embeddings.lifecycle.gates import comparison as gates
from server.embeddings.lifecycle.gates.comparison import Compared, Limits
from server.embeddings.lifecycle.gates.gate import Gate
from server.embeddings.migration import comparisons, questions
from server.embeddings.migration.legs import Legs
from server.embeddings.migration.questions import Golden
from server.embeddings.serving import Serving
from server.errors import EmbeddingError, NotFound, Rebuilding
from server.operations import metrics

logger = logging.getLogger(__name__)

FLOOR: Final = 300  # questions that the old version is asked twice
EXAMPLES: Final = 10
_FAILURES: Final = 20  # in a row
_LONGEST_REST: Final = 1.0  # seconds
_SHOWN: Final = 5  # places of an example


class Asks(Protocol):
    """What asks one version on purpose: a searcher."""

    async def ask(self, tenant: Tenant, at: ConversationId, question: str, chosen: Serving, k: int) -> Legs:
        """Return what it answers; raises NotFound, Rebuilding, EmbeddingError and DatabaseUnavailable."""

    def rebuilt(self) -> AbstractAsyncContextManager[Asks]:
        """Give one whose indexes are loaded anew."""


class Example(Struct, frozen=True, kw_only=True):
    """A search whose answers differ much. ``question``: None where it is not kept. ``evidence``: of golden questions.

    Rankings are the first five of ``conv_…:seq``.
    """

    id: str
    question: str | None
    segments: tuple[str, ...]
    overlap: float
    rbo: float
    old: tuple[str, ...]
    new: tuple[str, ...]
    evidence: tuple[str, ...]


class Scores(Struct, frozen=True, kw_only=True):
    """The cosines of the questions with what each version found best."""

    old: Distribution
    new: Distribution


class Measured(Struct, frozen=True, kw_only=True):
    """All of it. ``since``: the epoch at which measuring began. ``thresholds``: of each that is registered.

    ``asked``: golden questions; ``failed``: those of them at which the new version's model failed, which count as
    questions that it found nothing for; ``shadowed``: searches of the shadow.
    """

    since: int
    old: str
    new: str
    compared: Compared
    gates: tuple[Gate, ...]
    examples: tuple[Example, ...]
    scores: Scores | None
    thresholds: tuple[Recalibrated, ...]
    asked: int
    failed: int
    shadowed: int

    @property
    def passed(self) -> bool:
        """Whether no gate fails."""
        return all(gate.outcome != "fail" for gate in self.gates)

    def recalibrated(self) -> dict[str, float]:
        """Return the thresholds on the new version's scale, as far as they could be told."""
        return {one.name: one.value for one in self.thresholds if one.value is not None}

    def figures(self) -> dict[str, float]:
        """Return the figures that the history keeps."""
        found: dict[str, float] = {"asked": self.asked, "failed": self.failed, "shadowed": self.shadowed}
        golden = self.compared.golden
        for one in golden.recalls if golden is not None else ():
            if one.segment == ALL:
                found |= {
                    "recall_old": one.interval.old,
                    "recall_new": one.interval.new,
                    "recall_low": one.interval.low,
                    "recall_high": one.interval.high,
                }
        if self.compared.agreements is not None:
            dense, final = self.compared.agreements.dense, self.compared.agreements.final
            found |= {f"overlap_{name}": leg[0].overlap for name, leg in (("dense", dense), ("final", final)) if leg}
        if self.compared.latency is not None:
            found |= {"p95_old_ms": self.compared.latency.old_p95, "p95_new_ms": self.compared.latency.new_p95}
        return found

    def report(self) -> dict[str, Any]:
        """Return all of it as what JSON can hold."""
        report: dict[str, Any] = to_builtins(self)
        return report | {"passed": self.passed, "figures": self.figures()}


class _Pair(NamedTuple):
    """``new`` None: the model failed."""

    golden: Golden
    old: Legs
    new: Legs | None
    segments: tuple[str, ...]


async def measure(
    asks: Asks,
    database: Database,
    old: Serving,
    new: Serving,
    *,
    limits: Limits = Limits(),  # noqa: B008
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Compare two versions, giving way to requests meanwhile; ``progress`` is told how many of how many were asked.

    Raises DatabaseUnavailable, and EmbeddingError where the old version or the whole of the new one does not answer.
    """
    assert old.version is not None
    assert new.version is not None
    golden = await questions.read(database)
    asked = [] if golden is None else sorted(golden.questions, key=lambda one: (one.tenant.id, one.at))
    pairs, floor = await _asked(asks, asked, old, new, progress)
    kept = await comparisons.read(database, old.version.id, new.version.id)
    rows = [row for of_tenant in kept.values() for row in of_tenant]
    searches = [row.shadowed for row in rows if row.error is None]
    both = [_shadowed(pair.golden.id, pair.segments, pair.old, pair.new) for pair in pairs if pair.new is not None]
    # Asked in turns, on one machine, at one moment: fairer than what was served against what came after it.
    timed = both if len(both) >= limits.searches else searches
    compared = Compared(
        golden=None if golden is None else _golden(golden, pairs),
        agreements=agreements([*both, *searches]) if both or searches else None,
        floor=agreements(floor) if floor else None,
        latency=latency(timed) if timed else None,
        shadowing=comparisons.shadowing(rows),
    )
    words = {pair.golden.id: pair.golden.text for pair in pairs} | {str(row.id): row.question for row in rows}
    evidence = {pair.golden.id: pair.golden.evidence for pair in pairs}
    return Measured(
        since=old.epoch,
        old=old.version.name,
        new=new.version.name,
        compared=compared,
        gates=gates.comparison(compared, limits),
        examples=tuple(_example(one, words, evidence) for one in disagreements([*both, *searches], EXAMPLES)),
        scores=_scores(pairs),
        thresholds=_thresholds(old, pairs),
        asked=len(pairs),
        failed=len(pairs) - len(both),
        shadowed=len(searches),
    )


async def _asked(
    asks: Asks, asked: Sequence[Golden], old: Serving, new: Serving, progress: Callable[[int, int], None] | None
) -> tuple[list[_Pair], list[Shadowed]]:
    """Ask both versions, and the old one again; questions of one conversation stand together, and load it once."""
    pairs: list[_Pair] = []
    again: list[Shadowed] = []
    every = max(1, -(-len(asked) // FLOOR))
    candidate = _Candidate(asks, new, len(asked))
    async with asks.rebuilt() as anew:
        for number, one in enumerate(asked):
            began = perf_counter()
            try:
                # Whoever is asked first finds less in the caches below: so each is, every other time.
                first = await candidate.ask(one) if number % 2 else None
                found = await asks.ask(one.tenant, one.at, one.text, old, K)
                second = first if number % 2 else await candidate.ask(one)
                named = segments(found.type, one.tenant.name, one.language, one.lengths)
                pairs.append(_Pair(one, found, second, named))
                if number % every == 0:
                    rebuilt = await anew.ask(one.tenant, one.at, one.text, old, K)
                    again.append(_shadowed(one.id, named, found, rebuilt))
            except (NotFound, Rebuilding) as problem:  # erased meanwhile, or larger than what loads in time
                logger.info("the golden question %s was not asked: %s", one.id, problem)
            if progress is not None:
                progress(number + 1, len(asked))
            await asyncio.sleep(min(_LONGEST_REST, perf_counter() - began) if metrics.is_busy() else 0)
    return pairs, again


class _Candidate:
    """Asks the new version; a question at which its model fails is one that it finds nothing for.

    A model that is down is not judged: it raises when so many in a row were not answered, or all of fewer.
    """

    def __init__(self, asks: Asks, new: Serving, questions: int) -> None:
        self._asks = asks
        self._new = new
        self._most = min(_FAILURES, questions)
        self._failed = 0

    async def ask(self, one: Golden) -> Legs | None:
        try:
            found = await self._asks.ask(one.tenant, one.at, one.text, self._new, K)
        except EmbeddingError as problem:
            self._failed += 1
            if self._failed >= self._most:
                raise
            logger.info("the golden question %s was not answered: %s", one.id, problem)
            return None
        self._failed = 0
        return found


def _golden(golden: questions.Sets, pairs: Sequence[_Pair]) -> gates.Golden:
    answers = [
        Answered(
            id=one.golden.id,
            group=f"{one.golden.tenant.id} {one.golden.at.user_key}",
            segments=one.segments,
            evidence=one.golden.evidence,
            old=one.old.final,
            new=() if one.new is None else one.new.final,
        )
        for one in pairs
    ]
    return gates.Golden(
        name=golden.name, version=golden.version, approved=golden.approved, recalls=recalls(answers) if answers else ()
    )


def _shadowed(name: str, named: tuple[str, ...], old: Legs, new: Legs) -> Shadowed:
    return Shadowed(
        id=name,
        segments=named,
        old_dense=old.dense,
        new_dense=new.dense,
        old_final=old.final,
        new_final=new.final,
        old_milliseconds=old.milliseconds,
        new_milliseconds=new.milliseconds,
    )


def _example(one: Shadowed, words: dict[str, str | None], evidence: dict[str, tuple[str, ...]]) -> Example:
    return Example(
        id=one.id,
        question=words.get(one.id),
        segments=tuple(name for name in one.segments if name != ALL),
        overlap=overlap(one.old_final, one.new_final, K),
        rbo=rank_biased_overlap(one.old_final, one.new_final),
        old=one.old_final[:_SHOWN],
        new=one.new_final[:_SHOWN],
        evidence=evidence.get(one.id, ()),
    )


def _scores(pairs: Sequence[_Pair]) -> Scores | None:
    old, new = _both(pairs)
    return Scores(old=distribution(old), new=distribution(new)) if old and new else None


def _thresholds(old: Serving, pairs: Sequence[_Pair]) -> tuple[Recalibrated, ...]:
    before, after = _both(pairs)
    if not before or not after:
        why = "no golden question was answered by both, so that there are no scores to tell it by"
        return tuple(
            Recalibrated(name=name, old=value, value=None, share=0.0, why=why) for name, value in old.thresholds.items()
        )
    return tuple(recalibrate(name, value, before, after) for name, value in sorted(old.thresholds.items()))


def _both(pairs: Sequence[_Pair]) -> tuple[list[float], list[float]]:
    """Return the scores of the questions that both answered."""
    answered = [(pair.old, pair.new) for pair in pairs if pair.new is not None]
    return [score for old, _ in answered for score in old.scores], [
        score for _, new in answered for score in new.scores
    ]
