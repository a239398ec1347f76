"""The token bucket: exact, with time passed in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.access.limits import TokenBucket
from server.errors import RateLimited


def allowed(bucket: TokenBucket, now: float) -> bool:
    try:
        bucket.take(now)
    except RateLimited:
        return False
    return True


def test_a_full_bucket_lets_one_second_through_at_once() -> None:
    bucket = TokenBucket(3, now=10.0)
    assert [allowed(bucket, 10.0) for _ in range(5)] == [True, True, True, False, False]


def test_it_fills_at_the_rate_and_no_further() -> None:
    bucket = TokenBucket(2, now=0.0)
    assert [allowed(bucket, 0.0) for _ in range(3)] == [True, True, False]
    assert [allowed(bucket, 0.5) for _ in range(2)] == [True, False]
    assert [allowed(bucket, 1000.0) for _ in range(3)] == [True, True, False]


def test_a_share_of_a_small_limit_still_lets_single_requests_through() -> None:
    bucket = TokenBucket(1 / 4, now=0.0)
    assert allowed(bucket, 0.0)
    with pytest.raises(RateLimited) as refused:
        bucket.take(1.0)
    assert refused.value.retry_after == 3
    assert allowed(bucket, 4.0)


def test_refused_requests_cost_nothing() -> None:
    bucket = TokenBucket(1, now=0.0)
    served = sum(allowed(bucket, tenth / 10) for tenth in range(101))
    assert served in (10, 11)


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        TokenBucket(0, now=0.0)


@given(
    rate=st.integers(1, 50),
    steps=st.lists(st.floats(0, 2, allow_nan=False), min_size=1, max_size=200),
)
def test_never_more_than_the_rate_and_one_burst_and_waiting_as_told_helps(rate: int, steps: list[float]) -> None:
    bucket, now, served = TokenBucket(rate, now=0.0), 0.0, 0
    for step in steps:
        now += step
        try:
            bucket.take(now)
            served += 1
        except RateLimited as refused:
            now += refused.retry_after or 0
            bucket.take(now)
            served += 1
    assert served <= rate + rate * now + 1e-6
