"""A tenant as every layer knows it."""

from __future__ import annotations

from typing import NamedTuple


class Tenant(NamedTuple):
    """An isolated customer of one server; ``salt`` (32 bytes) keys every hash of its content."""

    id: int
    name: str
    salt: bytes
    operator: bool
    retention_days: int | None
