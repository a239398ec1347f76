"""Times as the sources write them; a time without a zone is UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

# Sources date a session, not a turn: this much between turns keeps their order and keeps sessions apart.
TURN = timedelta(seconds=5)


def as_utc(time: datetime) -> datetime:
    """The same instant in UTC; a naive time is taken to be UTC already. Raises ValueError outside years 1 to 9999."""
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{time.isoformat()} lies outside the years 1 to 9999 in UTC") from error


def from_unix(seconds: float) -> datetime:
    """The time of Unix `seconds`; raises ValueError outside the years 1 to 9999."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise ValueError(f"{seconds!r} is no time in Unix seconds") from error
