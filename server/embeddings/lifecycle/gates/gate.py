"""What a gate says."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from server.embeddings.lifecycle.figures.segments import ALL

Outcome = Literal["pass", "warn", "fail"]


class Gate(Struct, frozen=True, kw_only=True):
    """One judgement. ``value`` against ``limit``, None where there is no figure. ``why``: in words."""

    name: str
    outcome: Outcome
    why: str
    value: float | None = None
    limit: float | None = None
    segment: str = ALL

    @property
    def title(self) -> str:
        """Its name, with the segment if it is about one."""
        return self.name if self.segment == ALL else f"{self.name} [{self.segment}]"


def at_most(name: str, value: float, limit: float, why: str, segment: str = ALL) -> Gate:
    """Return a gate that fails above its limit."""
    return Gate(
        name=name, outcome="pass" if value <= limit else "fail", why=why, value=value, limit=limit, segment=segment
    )


def at_least(name: str, value: float, limit: float, why: str, segment: str = ALL) -> Gate:
    """Return a gate that fails below its limit, and for NaN."""
    return Gate(
        name=name, outcome="pass" if value >= limit else "fail", why=why, value=value, limit=limit, segment=segment
    )
