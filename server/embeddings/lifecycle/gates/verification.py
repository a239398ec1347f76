"""The gates of `verify`: is every text embedded, by this very model, and does the index find it?

They speak of facts, so no reason overrides them; their limits can be set, and are part of the record.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from server.embeddings.lifecycle.figures.vectors import Vectors
from server.embeddings.lifecycle.gates.gate import Gate, at_least, at_most


class Coverage(Struct, frozen=True, kw_only=True):
    """One tenant's texts and vectors.

    ``texts``: events that bear a text. ``missing``: of these, without a vector, though no dead letter. ``dead``: dead
    letters. ``extra``: vectors without such an event, erased ones above all. ``wrong_text``: of another text's hash.
    """

    tenant: str
    texts: int
    missing: int = 0
    dead: int = 0
    extra: int = 0
    wrong_text: int = 0


class Sample(Struct, frozen=True, kw_only=True):
    """Stored vectors against those that the model makes of the same texts now: the worst cosine, NaN counting as it."""

    vectors: int
    worst: float


class Index(Struct, frozen=True, kw_only=True):
    """The candidate's index. ``visible``: the rows that it can find; ``recall``: at 10 against exact search."""

    valid: bool
    rows: int
    visible: int
    queries: int
    recall: float


class Verified(Struct, frozen=True, kw_only=True):
    """What was measured. ``probe``: the model's worst cosine to how it answered when it was added.

    ``index``: None where there is none, since all searches are exact.
    """

    coverage: tuple[Coverage, ...]
    vectors: Vectors
    probe: float
    sample: Sample
    index: Index | None = None


class Limits(Struct, frozen=True, kw_only=True):
    """``dead``, ``alike``, ``visible``: shares. ``same``: cosine. ``sample``: how many vectors must be compared.

    Short replies in other letters may well have one vector, hence ``alike``. The same weights on another machine differ
    in the last bits, hence ``same``; other weights differ by far more.
    """

    dead: float = 0.001
    alike: float = 0.05
    same: float = 0.999
    sample: int = 100
    concentration: float = 0.999
    visible: float = 1.0
    index_recall: float = 0.95


def verification(found: Verified, limits: Limits = Limits()) -> tuple[Gate, ...]:  # noqa: B008
    """Judge what was measured."""
    return (
        *_coverage(found.coverage, limits),
        *_vectors(found.vectors, limits),
        *_model(found, limits),
        *_index(found.index, limits),
    )


def _coverage(tenants: tuple[Coverage, ...], limits: Limits) -> Iterator[Gate]:
    texts = sum(one.texts for one in tenants)
    for name, field, wrong in (
        ("coverage", "missing", "have no vector"),
        ("orphans", "extra", "vectors belong to no event that is still there"),
        ("text_hash", "wrong_text", "vectors were made of another text than the event has"),
    ):
        counts = {one.tenant: int(getattr(one, field)) for one in tenants}
        total = sum(counts.values())
        noun = f"of {texts:,} texts " if field == "missing" else ""
        where = "; by tenant: " + ", ".join(f"{key} {count:,}" for key, count in counts.items() if count)
        yield at_most(name, total, 0, f"{total:,} {noun}{wrong}{where if total else ''}")
    dead = sum(one.dead for one in tenants)
    share = dead / texts if texts else 0.0
    why = f"{dead:,} of {texts:,} texts were refused by the model ({share:.2%}); {limits.dead:.2%} may be"
    yield at_most("dead_letters", share, limits.dead, why)


def _vectors(found: Vectors, limits: Limits) -> Iterator[Gate]:
    rows = max(1, found.rows)
    yield at_most("not_finite", found.not_finite, 0, f"{found.not_finite:,} of {found.rows:,} hold NaN or infinity")
    yield at_most("zero", found.zero, 0, f"{found.zero:,} of {found.rows:,} have no length: no search finds them")
    yield at_most("norm", found.off_norm, 0, f"{found.off_norm:,} of {found.rows:,} have another length than 1")
    share = found.alike / rows
    why = f"{found.alike:,} of {found.rows:,} equal the vector of another text ({share:.1%}); {limits.alike:.1%} may do"
    yield at_most("duplicates", share, limits.alike, why)
    why = f"the mean direction has length {found.concentration:.4f}; near 1, all vectors are the same"
    yield at_most("constant", found.concentration, limits.concentration, why)


def _model(found: Verified, limits: Limits) -> Iterator[Gate]:
    why = (
        f"the model answers its probe texts with cosine {found.probe:.4f} to how it did when it was added; under "
        f"{limits.same} it is another model under the same name"
    )
    yield at_least("fingerprint", found.probe, limits.same, why)
    sample = found.sample
    wanted = min(limits.sample, sum(one.texts - one.missing - one.dead for one in found.coverage))
    if sample.vectors < wanted:
        why = f"{sample.vectors} vectors were compared with their texts embedded anew; {wanted} must be"
        yield Gate(name="re_embedded", outcome="fail", why=why, value=sample.vectors, limit=wanted)
    elif sample.vectors:
        why = (
            f"of {sample.vectors} texts embedded anew, the farthest has cosine {sample.worst:.4f} to its stored "
            f"vector; under {limits.same} that was not made by this model of this text"
        )
        yield at_least("re_embedded", sample.worst, limits.same, why)
    else:
        yield Gate(name="re_embedded", outcome="pass", why="there is no vector to compare")


def _index(index: Index | None, limits: Limits) -> Iterator[Gate]:
    if index is None:
        yield Gate(name="index_valid", outcome="pass", why="there is no index: every search is exact")
        return
    why = "the index is valid" if index.valid else "the index is marked invalid: its build failed; drop and rebuild it"
    yield Gate(name="index_valid", outcome="pass" if index.valid else "fail", why=why)
    share = index.visible / index.rows if index.rows else 1.0
    why = f"the index finds {index.visible:,} of {index.rows:,} vectors ({share:.1%}); built by half, it loses the rest"
    yield at_least("index_complete", share, limits.visible, why)
    if not index.queries and index.rows:
        yield Gate(name="index_exact", outcome="fail", why="the index was not compared with exact search")
        return
    why = (
        f"over {index.queries} queries the index gives {index.recall:.3f} of exact search's ten best; "
        f"{limits.index_recall} is wanted"
    )
    yield at_least("index_exact", index.recall if index.queries else 1.0, limits.index_recall, why)
