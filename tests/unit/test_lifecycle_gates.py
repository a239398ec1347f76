"""The gates against candidates that were sabotaged, each in one way: the gate that names the sabotage must fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest
from msgspec import structs

from server.embeddings.lifecycle.figures.labelled import Answered, recalls
from server.embeddings.lifecycle.figures.segments import segments
from server.embeddings.lifecycle.figures.shadowed import Agreements, Latency, Shadowed, agreements
from server.embeddings.lifecycle.figures.vectors import cosines, inspect
from server.embeddings.lifecycle.gates import comparison as compare
from server.embeddings.lifecycle.gates import verification as verify
from server.embeddings.lifecycle.gates.gate import Gate

Floats = npt.NDArray[np.float64]
EVENTS, DIMENSIONS, ASKED = 600, 32, 300
_random = np.random.default_rng(3)
MEANINGS: Final = _random.normal(size=(EVENTS, DIMENSIONS))
# One text in eight is long; evidence is drawn from all.
LENGTHS: Final = np.where(np.arange(EVENTS) % 8 == 0, 900, 100)
QUESTIONS: Final = MEANINGS[:ASKED] + _random.normal(scale=0.9, size=(ASKED, DIMENSIONS))
# Each model turns meanings into a frame of its own; the old one also bends them, so the new one is a little better.
_frames = np.linalg.qr(_random.normal(size=(3, DIMENSIONS, DIMENSIONS)))[0]
OLD_WEIGHTS: Final = _frames[0] * _random.lognormal(sigma=0.5, size=DIMENSIONS)
NEW_WEIGHTS: Final = _frames[1]
OTHER_WEIGHTS: Final = _frames[2]
HASHES: Final = [f"text {number}".encode() for number in range(EVENTS)]
NAMES: Final = np.array([f"evt_{number}" for number in range(EVENTS)])


def unit(values: Floats) -> Floats:
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float64)


def embed(meanings: Floats, weights: Floats) -> Floats:
    return unit(meanings @ weights)


OLD: Final = embed(MEANINGS, OLD_WEIGHTS)
NEW: Final = embed(MEANINGS, NEW_WEIGHTS)
NOISE: Final = unit(_random.normal(size=(EVENTS, DIMENSIONS)))


def rankings(stored: Floats, weights: Floats) -> list[tuple[str, ...]]:
    scores = embed(QUESTIONS, weights) @ np.nan_to_num(stored).T
    return [tuple(NAMES[np.argsort(-row, kind="stable")[:10]]) for row in scores]


def compared(stored: Floats) -> compare.Compared:
    old, new = rankings(OLD, OLD_WEIGHTS), rankings(stored, NEW_WEIGHTS)
    named = [segments("fact", "acme", "en", [int(LENGTHS[number])]) for number in range(ASKED)]
    answers = [
        Answered(
            id=str(number),
            group=f"user {number % 30}",
            segments=named[number],
            evidence=(str(NAMES[number]),),
            old=old[number],
            new=new[number],
        )
        for number in range(ASKED)
    ]
    return compare.Compared(
        golden=compare.Golden(name="ours", version=1, approved=True, recalls=recalls(answers)),
        agreements=agreed(old, new, named),
        floor=agreed(old, old, named),
        latency=Latency(searches=ASKED, old_p50=5, old_p95=9, new_p50=6, new_p95=12),
        shadowing=compare.Shadowing(answered=ASKED, errors=0, dropped=3),
    )


def agreed(old: list[tuple[str, ...]], new: list[tuple[str, ...]], named: list[tuple[str, ...]]) -> Agreements:
    return agreements(
        [
            Shadowed(
                id=str(number),
                segments=named[number],
                old_dense=old[number],
                new_dense=new[number],
                old_final=old[number],
                new_final=new[number],
                old_milliseconds=1,
                new_milliseconds=1,
            )
            for number in range(len(old))
        ]
    )


def verified(stored: Floats, weights: Floats = NEW_WEIGHTS) -> verify.Verified:
    """``weights``: of the model that answers now; it was added with NEW_WEIGHTS."""
    again = cosines(stored, embed(MEANINGS, weights))
    probe = cosines(embed(QUESTIONS[:8], NEW_WEIGHTS), embed(QUESTIONS[:8], weights))
    return verify.Verified(
        coverage=(verify.Coverage(tenant="acme", texts=EVENTS),),
        vectors=inspect(stored, HASHES),
        probe=float(probe.min()),
        sample=verify.Sample(vectors=EVENTS, worst=float(np.nan_to_num(again, nan=-1.0).min())),
        index=verify.Index(valid=True, rows=EVENTS, visible=EVENTS, queries=50, recall=0.99),
    )


def failing(gates: tuple[Gate, ...]) -> set[str]:
    assert all(gate.why for gate in gates)
    return {gate.title for gate in gates if gate.outcome == "fail"}


def changed(rows: npt.NDArray[np.bool_], value: Floats | float) -> Floats:
    stored = NEW.copy()
    stored[rows] = value
    return stored


LONG: Final = LENGTHS > 500
SOME: Final = np.arange(EVENTS) == 5


def test_a_sound_candidate_passes_every_gate() -> None:
    assert failing(verify.verification(verified(NEW))) == set()
    assert failing(compare.comparison(compared(NEW))) == set()


def test_random_vectors_fail_where_they_are_compared_with_anything() -> None:
    assert "re_embedded" in failing(verify.verification(verified(NOISE)))
    # A model that is itself random says the same again: only the golden set knows.
    assert "recall" in failing(compare.comparison(compared(NOISE)))


def test_a_model_that_is_broken_on_long_texts_fails_by_its_segment() -> None:
    found = compared(changed(LONG, NOISE[LONG]))
    lenient = compare.Limits(worse=0.25)
    assert failing(compare.comparison(found, lenient)) == {"recall [length=513-1024]"}
    gate = next(one for one in compare.comparison(found, lenient) if one.segment == "length=513-1024")
    assert "it is worse, by more than 0.050" in gate.why


def test_a_broken_segment_shows_even_where_the_mean_gains() -> None:
    """It gains more on short texts than it loses on long ones: the mean alone would let it in."""
    worse_old = unit(OLD + 1.2 * NOISE[::-1])
    broken = changed(LONG, NOISE[LONG])
    old, new = rankings(worse_old, OLD_WEIGHTS), rankings(broken, NEW_WEIGHTS)
    answers = [
        Answered(
            id=str(number),
            group=f"user {number % 30}",
            segments=segments("fact", "acme", "en", [int(LENGTHS[number])]),
            evidence=(str(NAMES[number]),),
            old=old[number],
            new=new[number],
        )
        for number in range(ASKED)
    ]
    golden = compare.Golden(name="ours", version=1, approved=True, recalls=recalls(answers))
    gates = compare.comparison(structs.replace(compared(NEW), golden=golden))
    assert next(one.outcome for one in gates if one.title == "recall") == "pass"
    assert failing(gates) == {"recall [length=513-1024]"}


def test_other_weights_under_the_same_name_and_dimensions_fail() -> None:
    assert failing(verify.verification(verified(NEW, OTHER_WEIGHTS))) == {"fingerprint", "re_embedded"}
    # Some vectors made while the other weights answered, the right ones being back since.
    stored = changed(SOME, embed(MEANINGS[SOME], OTHER_WEIGHTS))
    assert failing(verify.verification(verified(stored))) == {"re_embedded"}


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (changed(SOME, np.nan), {"not_finite", "re_embedded"}),
        (changed(SOME, np.inf), {"not_finite", "re_embedded"}),
        (changed(SOME, 0.0), {"zero", "re_embedded"}),
        (changed(SOME, NEW[SOME] * 3), {"norm"}),
        (np.repeat(NEW[:1], EVENTS, axis=0), {"constant", "duplicates", "re_embedded"}),
        (changed(LONG, NEW[0]), {"duplicates", "re_embedded"}),
    ],
    ids=["nan", "infinity", "zero", "length", "constant", "constant when long"],
)
def test_vectors_that_are_none_fail_by_name(stored: Floats, expected: set[str]) -> None:
    assert failing(verify.verification(verified(stored))) == expected


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ({"visible": EVENTS // 2, "recall": 0.52}, {"index_complete", "index_exact"}),
        ({"visible": EVENTS - 1}, {"index_complete"}),
        ({"valid": False}, {"index_valid"}),
        ({"recall": 0.9}, {"index_exact"}),
        ({"queries": 0}, {"index_exact"}),
    ],
    ids=["half", "but one", "invalid", "inexact", "not compared"],
)
def test_an_index_that_misses_vectors_fails(index: dict[str, float], expected: set[str]) -> None:
    found = verified(NEW)
    assert found.index is not None
    assert failing(verify.verification(structs.replace(found, index=structs.replace(found.index, **index)))) == expected


def test_no_index_is_fine() -> None:
    assert failing(verify.verification(structs.replace(verified(NEW), index=None))) == set()


@pytest.mark.parametrize(
    ("coverage", "expected"),
    [
        ({"missing": 1}, {"coverage"}),
        ({"extra": 1}, {"orphans"}),
        ({"wrong_text": 1}, {"text_hash"}),
        ({"dead": 6}, {"dead_letters"}),
        ({"dead": 0}, set()),
    ],
)
def test_coverage_is_looked_at_both_ways_and_by_tenant(coverage: dict[str, int], expected: set[str]) -> None:
    tenants = (verify.Coverage(tenant="one", texts=0), verify.Coverage(tenant="two", texts=EVENTS, **coverage))
    gates = verify.verification(structs.replace(verified(NEW), coverage=tenants))
    assert failing(gates) == expected
    assert all("two" in gate.why for gate in gates if gate.title in expected - {"dead_letters"})


def test_what_was_not_measured_does_not_pass() -> None:
    found = structs.replace(verified(NEW), sample=verify.Sample(vectors=7, worst=1.0))
    assert failing(verify.verification(found)) == {"re_embedded"}
    assert failing(compare.comparison(compare.Compared())) == {"recall", "latency", "shadow_errors"}


def test_an_empty_database_may_migrate() -> None:
    found = verify.Verified(
        coverage=(),
        vectors=inspect(NEW[:0], []),
        probe=1.0,
        sample=verify.Sample(vectors=0, worst=1.0),
        index=None,
    )
    assert failing(verify.verification(found)) == set()


def with_golden(change: Callable[[compare.Golden], compare.Golden]) -> compare.Compared:
    found = compared(NEW)
    assert found.golden is not None
    return structs.replace(found, golden=change(found.golden))


def test_a_golden_set_that_nobody_approved_decides_nothing() -> None:
    found = with_golden(lambda golden: structs.replace(golden, approved=False))
    assert failing(compare.comparison(found)) == {"golden_approved"}


@pytest.mark.parametrize(("found_by_new", "outcome"), [("e", "warn"), ("x", "fail")])
def test_few_questions_can_show_that_it_is_worse_but_not_that_it_is_not(found_by_new: str, outcome: str) -> None:
    rows = [
        Answered(id=str(number), group=str(number), segments=("all", kind), evidence=("e",), old=("e",), new=(answer,))
        for number, (kind, answer) in enumerate([("type=fact", "e")] * 400 + [("type=state", found_by_new)] * 8)
    ]
    found = with_golden(lambda golden: structs.replace(golden, recalls=recalls(rows)))
    outcomes = {gate.title: gate.outcome for gate in compare.comparison(found, compare.Limits(worse=0.05))}
    assert (outcomes["recall"], outcomes["recall [type=state]"]) == ("pass", outcome)

    few = with_golden(lambda golden: structs.replace(golden, recalls=recalls(rows[-8:])))
    assert "recall" in failing(compare.comparison(few))


def test_a_difference_that_chance_may_hide_fails() -> None:
    """Of 40 questions, as many are found anew as are lost: the mean is the same, and shows nothing."""
    rows = [
        Answered(id=str(n), group=str(n), segments=("all",), evidence=("e",), old=("ex"[n % 2],), new=("xe"[n % 2],))
        for n in range(40)
    ]
    found = with_golden(lambda golden: structs.replace(golden, recalls=recalls(rows)))
    gate = next(one for one in compare.comparison(found) if one.name == "recall")
    assert (gate.outcome, gate.limit) == ("fail", -0.02)
    assert "it may be worse" in gate.why


def test_overlap_only_warns() -> None:
    other = rankings(NOISE, NEW_WEIGHTS)
    old = rankings(OLD, OLD_WEIGHTS)
    named: list[tuple[str, ...]] = [("all",)] * ASKED
    found = structs.replace(compared(NEW), agreements=agreed(old, other, named), floor=agreed(old, old, named))
    gates = compare.comparison(found)
    assert failing(gates) == set()
    warned = [gate for gate in gates if gate.name == "overlap" and gate.outcome == "warn"]
    assert len(warned) == 2
    assert "largest disagreements" in warned[0].why


def test_latency_and_errors_of_the_shadow() -> None:
    found = compared(NEW)
    slow = Latency(searches=ASKED, old_p50=40, old_p95=60, new_p50=90, new_p95=121)
    assert failing(compare.comparison(structs.replace(found, latency=slow))) == {"latency"}
    quick = structs.replace(slow, old_p95=1.0, new_p95=49.0)
    assert failing(compare.comparison(structs.replace(found, latency=quick))) == set()
    errors = compare.Shadowing(answered=990, errors=10, dropped=5_000)
    gates = compare.comparison(structs.replace(found, shadowing=errors))
    assert failing(gates) == {"shadow_errors"}
    assert next(gate.outcome for gate in gates if gate.name == "shadow_dropped") == "warn"


def test_gates_say_the_same_every_time() -> None:
    assert compare.comparison(compared(NEW)) == compare.comparison(compared(NEW))
    assert verify.verification(verified(NEW)) == verify.verification(verified(NEW))
