"""What a step of the fold did."""

from __future__ import annotations

import msgspec


class Departure(msgspec.Struct, frozen=True):
    """Events that left together (or, with ``placeholder``, only their tool results), when the head was ``head``."""

    seqs: tuple[int, ...]
    head: int
    why: str
    policy: str
    policy_version: int
    placeholder: bool = False


class Changes(msgspec.Struct):
    """What one event or touch did: seqs that came in, what left, and why nothing happened, if so."""

    entered: list[int] = []
    left: list[Departure] = []
    refused: str | None = None
