"""The pace of a backfill, on a server that is made up: live requests queue behind what the backfill takes of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from server.embeddings.lifecycle.throttle import Observed, Pace, advance, begin

QUIET = 10.0  # ms


def simulate(
    windows: int, load: Callable[[int], float], cost: float, seed: int = 0, quiet: float = QUIET
) -> list[tuple[Pace, float]]:
    """Return the pace and the p99 of each window. ``load``: by live requests; ``cost``: of a backfill."""
    random = np.random.default_rng(seed)
    pace = begin(quiet)
    seen = []
    for window in range(windows):
        used = min(0.97, load(window) + cost * pace.duty)
        p99 = QUIET * (1 - load(0)) / (1 - used) * random.lognormal(sigma=0.08)
        seen.append((pace, p99))
        pace = advance(pace, Observed(requests=500, p99=p99))
    return seen


@pytest.mark.parametrize("cost", [0.2, 0.5, 0.9])
def test_live_requests_stay_within_the_limit_and_the_backfill_gets_on(cost: float) -> None:
    seen = simulate(400, lambda _: 0.3, cost)
    slow = [p99 for _, p99 in seen if p99 > 2 * QUIET]
    assert len(slow) <= 4
    duties = [pace.duty for pace, _ in seen[50:]]
    # Of what fits: utilisation may reach 0.65 before the p99 doubles.
    assert np.mean(duties) > 0.5 * min(1.0, 0.35 / cost)


def test_a_quiet_server_is_used_in_full() -> None:
    pace = begin(None)
    for _ in range(10):
        assert pace.rest(1.0) == 0
        pace = advance(pace, Observed(requests=0, p99=None))
    pace = begin(QUIET)
    for _ in range(10):
        pace = advance(pace, Observed(requests=3, p99=8.0))
    assert pace.duty == 1


def test_a_rush_pauses_it_and_it_goes_on_afterwards() -> None:
    seen = simulate(200, lambda window: 0.75 if 80 <= window < 86 else 0.2, 0.5)
    rush = [pace for pace, _ in seen[81:86]]
    assert all(pace.duty == 0 for pace in rush)
    assert rush[0].why.startswith("pauses: live p99 is ")
    assert "the limit" in rush[0].why
    assert rush[0].rest(1.0) is None
    assert np.mean([pace.duty for pace, _ in seen[110:]]) > 0.3


def test_slowness_that_is_not_its_own_does_not_stop_it_for_good() -> None:
    seen = simulate(300, lambda window: 0.1 if window < 50 else 0.7, 0.1)
    said = [pace.why for pace, _ in seen]
    assert any("that is what it is without the backfill" in why for why in said)
    assert np.mean([pace.duty for pace, _ in seen[100:]]) > 0.3
    # And once requests are quick again, the limit comes down with them.
    pace = seen[-1][0]
    raised = pace.quiet
    for _ in range(60):
        pace = advance(pace, Observed(requests=500, p99=QUIET))
    assert raised > 2 * QUIET
    assert pace.quiet == pytest.approx(QUIET, rel=0.1)


def test_fresh_events_come_first() -> None:
    pace = begin(QUIET)
    for _ in range(20):
        pace = advance(pace, Observed(requests=100, p99=9.0))
    waiting = advance(pace, Observed(requests=100, p99=9.0, fresh_waiting=7))
    assert waiting.duty == 0
    assert "7 fresh events" in waiting.why
    assert advance(waiting, Observed(requests=100, p99=9.0)).duty >= pace.duty


def test_one_slow_request_of_a_few_does_not_pause_it() -> None:
    pace = advance(begin(QUIET), Observed(requests=2, p99=500.0))
    assert pace.duty > 0
    assert "one took 500.0 ms" in pace.why


def test_resting_gives_the_share_of_time_that_is_meant() -> None:
    pace = begin(QUIET)
    rest = pace.rest(0.2)
    assert rest is not None
    assert 0.2 / (0.2 + rest) == pytest.approx(pace.duty)
    assert all(pace.why for pace, _ in simulate(50, lambda _: 0.3, 0.9))
