"""The figures of a migration, against their papers and against cases that can be worked out by hand."""

from __future__ import annotations

import itertools
import math
import string

import numpy as np
import pytest

from server.embeddings.lifecycle.figures.intervals import Paired, paired
from server.embeddings.lifecycle.figures.labelled import Answered, recalls
from server.embeddings.lifecycle.figures.rankings import overlap, rank_biased_overlap, recall, swaps, weight_of_first
from server.embeddings.lifecycle.figures.scores import distribution, recalibrate
from server.embeddings.lifecycle.figures.segments import band, segments
from server.embeddings.lifecycle.figures.shadowed import Shadowed, agreements, disagreements, latency
from server.embeddings.lifecycle.figures.vectors import cosines, inspect

RANDOM = np.random.default_rng(11)


@pytest.mark.parametrize(
    ("other", "p", "expected"),
    [
        # What the implementation of the paper's first author answers, for the alphabet and another ranking of letters.
        ("av", 0.2, 0.900000),
        ("afdqwtvehcpubinloygrs", 0.4, 0.782330),
        ("karfvodcjmwgzlypebunq", 0.9, 0.468431),
        ("f", 0.9, 0.053090),
        ("zclx", 0.9, 0.233312),
        ("nxqyk", 0.9, 0.049050),
    ],
)
def test_rank_biased_overlap_is_the_papers(other: str, p: float, expected: float) -> None:
    assert rank_biased_overlap(string.ascii_lowercase, other, p) == pytest.approx(expected, abs=1e-6)
    assert rank_biased_overlap(other, string.ascii_lowercase, p) == pytest.approx(expected, abs=1e-6)


def test_rank_biased_overlap_goes_from_0_to_1_and_weighs_the_top() -> None:
    assert rank_biased_overlap("abcdef", "abcdef") == pytest.approx(1)
    assert rank_biased_overlap("abc", "xyz") == 0
    assert rank_biased_overlap("", "") == 1
    assert rank_biased_overlap("", "abc") == 0
    assert rank_biased_overlap("abcdef", "abcdfe") > rank_biased_overlap("abcdef", "bacdef")
    assert all(0 <= rank_biased_overlap("abcde", one) <= 1 + 1e-12 for one in itertools.permutations("abcde"))
    assert weight_of_first(10, 0.9) == pytest.approx(0.8556, abs=1e-4)
    with pytest.raises(ValueError, match=r"between 0 and 1"):
        rank_biased_overlap("a", "b", 1.0)


def test_overlap_swaps_and_recall() -> None:
    assert overlap("abcd", "badx", 3) == pytest.approx(2 / 3)
    assert overlap("ab", "ab", 10) == 1
    assert overlap("", "", 10) == 1
    assert overlap("ab", "", 10) == 0
    assert swaps("abcd", "dcba") == 1
    assert swaps("abcd", "bacd") == pytest.approx(1 / 6)
    assert swaps("abc", "xay") == 0
    assert recall("abcd", "az", 3) == 0.5
    with pytest.raises(ValueError, match="no"):
        recall("abcd", "", 3)


def test_lengths_have_bands_that_double() -> None:
    assert [band(n) for n in (0, 64, 65, 128, 129, 4096, 4097, 10**6)] == [
        *("1-64", "1-64", "65-128", "65-128", "129-256", "2049-4096", "4097+", "4097+")
    ]
    assert segments("fact", "acme", "", [10, 3000, 20]) == (
        *("all", "type=fact", "tenant=acme", "length=1-64", "length=2049-4096"),
    )


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    held = 0
    for run in range(60):
        random = np.random.default_rng(run)
        effects = random.normal(0.05, 0.1, 40)
        rows = [
            Paired(f"user {user}", 0.5, 0.5 + effects[user] + random.normal(0, 0.1)) for user in range(40) for _ in "12"
        ]
        interval = paired(rows)
        assert interval.by == "group"
        held += interval.low <= 0.05 <= interval.high
    assert 52 <= held <= 60


def test_an_interval_is_wider_when_questions_of_a_user_are_alike() -> None:
    effects = RANDOM.normal(0, 0.2, 20)
    alike = [Paired(f"user {user}", 0.5, 0.5 + effects[user]) for user in range(20) for _ in range(20)]
    apart = [Paired(f"user {row}", *values) for row, (_, *values) in enumerate(alike)]
    together, single = paired(alike), paired(apart)
    assert together.difference == pytest.approx(single.difference)
    assert together.high - together.low > 3 * (single.high - single.low)


def test_an_interval_is_the_same_every_time_and_says_what_was_drawn() -> None:
    rows = [Paired(f"chat {number % 3}", 0.2, RANDOM.random()) for number in range(50)]
    assert paired(rows) == paired(rows[::-1])
    assert (paired(rows).by, paired(rows).groups, paired(rows).questions) == ("question", 3, 50)
    same = paired([Paired("a", 0.5, 0.5)])
    assert (same.low, same.difference, same.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="no questions"):
        paired([])


def test_a_threshold_moves_to_the_same_share_of_the_new_scores() -> None:
    old = RANDOM.normal(0.4, 0.1, 5000)
    moved = recalibrate("near", 0.55, old.tolist(), (0.5 * old + 0.3).tolist())
    assert moved.value == pytest.approx(0.5 * 0.55 + 0.3, abs=1e-4)
    assert moved.share == pytest.approx(0.067, abs=0.01)
    others = RANDOM.beta(8, 2, 3000)
    bent = recalibrate("near", 0.55, old.tolist(), others.tolist())
    assert bent.value is not None
    assert float(np.mean(others >= bent.value)) == pytest.approx(moved.share, abs=0.002)


@pytest.mark.parametrize(("threshold", "count", "why"), [(2.0, 1000, "above all"), (-2.0, 1000, "below all")])
def test_a_threshold_that_no_score_reaches_is_not_guessed(threshold: float, count: int, why: str) -> None:
    scores = RANDOM.random(count).tolist()
    moved = recalibrate("near", threshold, scores, scores)
    assert moved.value is None
    assert why in moved.why
    assert "200 are needed" in recalibrate("near", 0.5, scores[:50], scores).why


def test_a_distribution_is_summed_up() -> None:
    summed = distribution([float(value) for value in range(101)])
    assert (summed.scores, summed.mean, summed.quantiles[3]) == (101, 50, 50)
    with pytest.raises(ValueError, match="finite"):
        distribution([1.0, math.nan])


def unit(rows: int, dimensions: int = 16) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    values = RANDOM.normal(size=(rows, dimensions))
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


def test_what_is_wrong_with_vectors_is_counted() -> None:
    matrix = unit(100)
    matrix[0, 3] = np.nan
    matrix[1, 0] = np.inf
    matrix[2] = 0
    matrix[3] *= 2
    matrix[4] = matrix[5] = matrix[6]
    hashes = [f"text {row}".encode() for row in range(100)]
    hashes[5] = hashes[4]
    found = inspect(matrix, hashes)
    assert (found.rows, found.not_finite, found.zero, found.off_norm, found.alike) == (100, 2, 1, 1, 3)
    assert found.concentration < 0.3
    # One text said twice rightly has one vector.
    assert inspect(matrix[4:6], hashes[4:6]).alike == 0
    constant = np.repeat(unit(1), 50, axis=0)
    assert inspect(constant, hashes[:50]).concentration == pytest.approx(1)
    assert inspect(matrix[:0], []).rows == 0


def test_cosines_are_by_row_and_nan_where_there_is_none() -> None:
    matrix = unit(3)
    other = matrix.copy()
    other[1] = -other[1]
    other[2] = 0
    assert cosines(matrix, other)[:2] == pytest.approx([1, -1])
    assert math.isnan(cosines(matrix, other)[2])


def shadowed(number: int, old: str, new: str, kind: str = "fact") -> Shadowed:
    return Shadowed(
        id=f"s{number}",
        segments=("all", f"type={kind}"),
        old_dense=tuple(old),
        new_dense=tuple(new),
        old_final=tuple(old),
        new_final=tuple(old),
        old_milliseconds=float(number),
        new_milliseconds=2.0 * number,
    )


def test_agreement_is_by_leg_and_segment() -> None:
    searches = [shadowed(1, "abcd", "abcd"), shadowed(2, "abcd", "wxyz", "temporal")]
    found = agreements(searches)
    assert [(one.segment, one.searches, one.overlap) for one in found.dense] == [
        *(("all", 2, 0.5), ("type=fact", 1, 1.0), ("type=temporal", 1, 0.0))
    ]
    assert {one.overlap for one in found.final} == {1.0}
    assert agreements([]).dense == ()
    assert latency(searches).new_p50 == 3.0


def test_the_largest_disagreements_come_first() -> None:
    searches = [
        Shadowed(
            id=f"s{number}",
            segments=("all",),
            old_dense=(),
            new_dense=(),
            old_final=tuple("abcd"),
            new_final=tuple(new),
            old_milliseconds=1,
            new_milliseconds=1,
        )
        for number, new in enumerate(["abcd", "wxyz", "abdc"])
    ]
    assert [one.id for one in disagreements(searches, 2)] == ["s1", "s2"]


def test_recall_is_by_segment() -> None:
    answers = [
        Answered(
            id=str(number),
            group=f"user {number % 4}",
            segments=("all", f"length={'long' if number % 2 else 'short'}"),
            evidence=("e",),
            old=("e",),
            new=("x",) if number % 2 else ("e",),
        )
        for number in range(40)
    ]
    found = {one.segment: one.interval for one in recalls(answers)}
    assert list(found) == ["all", "length=long", "length=short"]
    assert found["length=long"].high == -1
    assert found["length=short"].difference == 0
    assert found["all"].low < -0.5 < found["all"].high
