"""The gates of `compare`: are the candidate's answers good enough to be served?

The golden set decides. That rankings differ proves nothing, since a better model should differ; so overlap only warns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from server.embeddings.lifecycle.figures.labelled import Recall
from server.embeddings.lifecycle.figures.segments import ALL
from server.embeddings.lifecycle.figures.shadowed import Agreement, Agreements, Latency
from server.embeddings.lifecycle.gates.gate import Gate, Outcome, at_most


class Golden(Struct, frozen=True, kw_only=True):
    """Recall on a golden set, of which gates accept only an approved one."""

    name: str
    version: int
    approved: bool
    recalls: tuple[Recall, ...]


class Shadowing(Struct, frozen=True, kw_only=True):
    """How the shadow went. ``dropped``: left out since the queue was full. ``errors``: of the candidate."""

    answered: int
    errors: int
    dropped: int


class Compared(Struct, frozen=True, kw_only=True):
    """What was measured. ``floor``: the agreement of the old version with its own rebuilt index."""

    golden: Golden | None = None
    agreements: Agreements | None = None
    floor: Agreements | None = None
    latency: Latency | None = None
    shadowing: Shadowing | None = None


class Limits(Struct, frozen=True, kw_only=True):
    """``worse``, ``worse_segment``: by how much recall may be worse at the interval's lower end.

    ``questions``: fewer in a segment cannot show that it is not worse, only that it is; ``searches``: fewer tell
    nothing of latency, errors or overlap. ``overlap``: how far below the noise floor is worth a look. ``slower``: by
    which factor; ``fast``: in milliseconds, what is quick enough whatever it was before. ``errors``: a share.
    """

    worse: float = 0.02
    worse_segment: float = 0.05
    questions: int = 20
    searches: int = 100
    overlap: float = 0.5
    slower: float = 2.0
    fast: float = 50.0
    errors: float = 0.001


def comparison(found: Compared, limits: Limits = Limits()) -> tuple[Gate, ...]:  # noqa: B008
    """Judge what was measured."""
    return (*_golden(found.golden, limits), *_overlap(found, limits), *_speed(found, limits))


def _golden(golden: Golden | None, limits: Limits) -> Iterator[Gate]:
    if golden is None or not golden.recalls:
        why = "there is no golden set to judge by: load one with `turnstone golden add`"
        yield Gate(name="recall", outcome="fail", why=why)
        return
    if not golden.approved:
        why = f"nobody has approved version {golden.version} of the golden set {golden.name!r}: have its owner do so"
        yield Gate(name="golden_approved", outcome="fail", why=why)
    else:
        yield Gate(name="golden_approved", outcome="pass", why=f"{golden.name!r} version {golden.version} is approved")
    for one in golden.recalls:
        yield _recall(one, limits)


def _recall(one: Recall, limits: Limits) -> Gate:
    interval, overall = one.interval, one.segment == ALL
    limit = -(limits.worse if overall else limits.worse_segment)
    figures = (
        f"recall@{one.k} is {interval.new:.3f} against {interval.old:.3f}: {interval.difference:+.3f}, 95 % interval "
        f"{interval.low:+.3f} to {interval.high:+.3f} over {interval.questions} questions, drawn by {interval.by}"
    )

    def gate(outcome: Outcome, why: str) -> Gate:
        return Gate(
            name="recall",
            outcome=outcome,
            why=f"{figures}; {why}",
            value=interval.low,
            limit=limit,
            segment=one.segment,
        )

    if interval.high < 0 and interval.difference < limit:
        return gate("fail", f"it is worse, by more than {-limit:.3f}")
    if interval.questions < limits.questions:
        return gate("fail" if overall else "warn", f"too few questions to tell: {limits.questions} are needed")
    if interval.low < limit:
        return gate("fail", f"it may be worse by more than {-limit:.3f}: more questions may tell")
    return gate("pass", f"it is not worse by more than {-limit:.3f}")


def _overlap(found: Compared, limits: Limits) -> Iterator[Gate]:
    if found.agreements is None or found.floor is None:
        why = "overlap was not compared with the noise floor: shadow some searches"
        yield Gate(name="overlap", outcome="warn", why=why)
        return
    for leg, agreements, floor in (
        ("vectors", found.agreements.dense, found.floor.dense),
        ("final ranking", found.agreements.final, found.floor.final),
    ):
        yield from _overlaps(leg, agreements, floor, limits)


def _overlaps(leg: str, agreements: Iterable[Agreement], floor: Iterable[Agreement], limits: Limits) -> Iterator[Gate]:
    noise = {one.segment: one for one in floor}
    for one in agreements:
        still = noise.get(one.segment) or noise.get(ALL)
        if still is None or (one.searches < limits.searches and one.segment != ALL):
            continue
        limit = still.overlap - limits.overlap
        why = (
            f"{leg}: overlap {one.overlap:.3f} and rank-biased overlap {one.rbo:.3f} over {one.searches} searches; the "
            f"old version agrees with itself by {still.overlap:.3f} and {still.rbo:.3f}"
        )
        if one.overlap < limit:
            why += "; that is far from it: look at the largest disagreements, and let the golden set decide"
        yield Gate(
            name="overlap",
            outcome="pass" if one.overlap >= limit else "warn",
            why=why,
            value=one.overlap,
            limit=limit,
            segment=one.segment,
        )


def _speed(found: Compared, limits: Limits) -> Iterator[Gate]:
    latency, shadowing = found.latency, found.shadowing
    if latency is None or latency.searches < limits.searches:
        seen = 0 if latency is None else latency.searches
        why = f"{seen} searches were timed; {limits.searches} are needed"
        yield Gate(name="latency", outcome="fail", why=why, value=seen, limit=limits.searches)
    else:
        limit = max(limits.slower * latency.old_p95, limits.fast)
        why = (
            f"p95 is {latency.new_p95:.1f} ms against {latency.old_p95:.1f} ms over {latency.searches} searches; "
            f"{limits.slower:g} times that or {limits.fast:g} ms may be"
        )
        yield at_most("latency", latency.new_p95, limit, why)
    if shadowing is None:
        yield Gate(name="shadow_errors", outcome="fail", why="no search was shadowed: `shadow` some first")
        return
    tried = shadowing.answered + shadowing.errors
    share = shadowing.errors / tried if tried else 1.0
    why = f"{shadowing.errors:,} of {tried:,} shadowed searches failed ({share:.2%}); {limits.errors:.2%} may fail"
    yield at_most("shadow_errors", share, limits.errors, why)
    missed = shadowing.dropped / (tried + shadowing.dropped) if tried + shadowing.dropped else 0.0
    why = f"{shadowing.dropped:,} of {tried + shadowing.dropped:,} samples were dropped, at busy times most of all"
    yield Gate(name="shadow_dropped", outcome="warn" if missed > 0.5 else "pass", why=why, value=missed, limit=0.5)
