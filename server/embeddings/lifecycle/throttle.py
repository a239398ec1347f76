"""Paces a backfill by what live requests feel, so that their p99 stays within a factor of the quiet server's.

The controller raises the share of time that a worker embeds by steps and lowers it by a factor, as TCP does: it finds
the rate that this machine bears, and keeps finding it. It has no clock: who runs it says how long its windows are.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from msgspec import Struct, structs

_FEW: Final = 20  # requests: the p99 of fewer is one request's accident


class Limits(Struct, frozen=True, kw_only=True):
    """``factor``: of the quiet p99 that live requests may take. ``floor``: in ms, below which nobody notices.

    ``ease``: the share of the limit from which on to slow down, before it is reached. ``resume``: the share under which
    a pause ends. ``patience``: windows of a pause after which a high p99 is not the backfill's doing. ``least``: the
    lowest duty but none. ``step``, ``cut``: how duty rises and falls. ``learn``: how fast a lower p99 is believed.
    """

    factor: float = 2.0
    floor: float = 5.0
    ease: float = 0.75
    resume: float = 0.65
    patience: int = 12
    least: float = 0.05
    step: float = 0.05
    cut: float = 0.6
    learn: float = 0.1


class Observed(NamedTuple):
    """One window of live requests: their p99 in ms, None without any; and fresh events that wait for their vectors."""

    requests: int
    p99: float | None
    fresh_waiting: int = 0


class Pace(Struct, frozen=True, kw_only=True):
    """The controller's state, and what it says of the next window.

    ``duty``: the share of its time that a worker embeds, 0 while paused. ``quiet``: the p99 without a backfill in ms.
    ``before``: the duty to come back to. ``paused``: for how many windows in a row the p99 has made it wait.
    """

    quiet: float
    duty: float
    before: float
    why: str
    paused: int = 0

    def rest(self, busy: float) -> float | None:
        """Return the seconds to rest after ``busy`` seconds of embedding; None: until the next window."""
        return None if self.duty <= 0 else busy * (1 - self.duty) / self.duty


def begin(quiet: float | None, limits: Limits = Limits()) -> Pace:  # noqa: B008
    """Return where a backfill starts: gently where requests were seen, in full where none are made.

    ``quiet``: the p99 before it began, None on a server without requests.
    """
    if quiet is None:
        return Pace(quiet=limits.floor, duty=1.0, before=1.0, why="no live requests: at full speed")
    why = f"live p99 is {quiet:.1f} ms without the backfill: begins at {2 * limits.least:.0%} of full speed"
    return Pace(quiet=max(quiet, limits.floor), duty=2 * limits.least, before=2 * limits.least, why=why)


def advance(pace: Pace, seen: Observed, limits: Limits = Limits()) -> Pace:  # noqa: B008
    """Return the pace for the next window, after what was seen in this one."""
    if seen.fresh_waiting:
        why = f"waits: {seen.fresh_waiting:,} fresh events come first"
        return structs.replace(pace, duty=0.0, why=why)
    limit = pace.quiet * limits.factor
    if seen.p99 is None or seen.requests < _FEW:
        # The p99 of a handful is that of its slowest; only a gross one is believed.
        if seen.p99 is None or seen.p99 <= limit:
            return _rise(pace, limits, f"{seen.requests} live requests", step=4 * limits.step)
        return _fall(pace, limits, f"{seen.requests} live requests, of which one took {seen.p99:.1f} ms")
    said = f"live p99 is {seen.p99:.1f} ms, the limit {limit:.1f} ms ({limits.factor:g} times the quiet server's)"
    if seen.p99 < pace.quiet:
        # Without the backfill it would be no more than with it.
        pace = structs.replace(pace, quiet=max(limits.floor, pace.quiet + limits.learn * (seen.p99 - pace.quiet)))
    if pace.paused:
        return _paused(pace, seen.p99, limit, limits, said)
    if seen.p99 > limit:
        before = max(limits.least, (pace.duty or pace.before) * limits.cut / 2)
        return structs.replace(pace, duty=0.0, before=before, paused=1, why=f"pauses: {said}")
    if seen.p99 > limit * limits.ease:
        return _fall(pace, limits, said)
    return _rise(pace, limits, said, step=limits.step)


def _paused(pace: Pace, p99: float, limit: float, limits: Limits, said: str) -> Pace:
    if p99 <= limit * limits.resume:
        duty = max(limits.least, pace.before)
        return structs.replace(pace, duty=duty, before=duty, paused=0, why=f"goes on at {duty:.0%}: {said}")
    if pace.paused < limits.patience:
        return structs.replace(pace, duty=0.0, paused=pace.paused + 1, why=f"waits: {said}")
    # Requests are this slow with the backfill standing still: the server is busier than it was, and that is its quiet.
    why = (
        f"goes on at {limits.least:.0%}: live p99 stayed at {p99:.1f} ms through {pace.paused} windows of pause, so "
        "that is what it is without the backfill"
    )
    return structs.replace(
        pace, quiet=max(p99, limits.floor), duty=limits.least, before=limits.least, paused=0, why=why
    )


def _rise(pace: Pace, limits: Limits, said: str, step: float) -> Pace:
    duty = min(1.0, (pace.duty or pace.before) + step)
    return structs.replace(pace, duty=duty, before=duty, paused=0, why=f"at {duty:.0%}: {said}")


def _fall(pace: Pace, limits: Limits, said: str) -> Pace:
    duty = max(limits.least, (pace.duty or pace.before) * limits.cut)
    return structs.replace(pace, duty=duty, before=duty, paused=0, why=f"slows to {duty:.0%}: {said}")
