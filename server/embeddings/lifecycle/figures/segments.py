"""The groups in which figures are looked at apart: a mean hides the group that a new model is bad at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

ALL: Final = "all"
_SHORTEST, _LONGEST = 64, 4096


def segments(query_type: str, tenant: str, language: str, lengths: Iterable[int]) -> tuple[str, ...]:
    """Return the segments of one question, as ``field=value``, after that of all.

    ``language``: empty where it is not known. ``lengths``: in characters, of the texts that are sought: the evidence of
    a question, or what the old version found for it. A question with texts of several bands is in each.
    """
    named = [f"type={query_type}", f"tenant={tenant}"]
    if language:
        named.append(f"language={language}")
    bands = sorted({_ceiling(length) for length in lengths})
    return (ALL, *named, *(f"length={band(ceiling)}" for ceiling in bands))


def apart(sizes: Mapping[str, int]) -> list[str]:
    """Return the segments to show of those with so many members, that of all first; no other that is all there is."""
    return sorted((name for name in sizes if name == ALL or sizes[name] != sizes.get(ALL)), key=lambda n: (n != ALL, n))


def band(characters: int) -> str:
    """Return the band of a text's length. Each is twice as wide as the one before: models truncate at some length."""
    ceiling = _ceiling(characters)
    if ceiling == _SHORTEST:
        return f"1-{_SHORTEST}"
    if ceiling > _LONGEST:
        return f"{_LONGEST + 1}+"
    return f"{ceiling // 2 + 1}-{ceiling}"


def _ceiling(characters: int) -> int:
    ceiling = _SHORTEST
    while ceiling < characters and ceiling <= _LONGEST:
        ceiling *= 2
    return ceiling
