"""Turns whatever goes wrong while decoding into a FormatError that says where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.log.formats import FormatError


@contextmanager
def problems_at(path: Path, where: str) -> Iterator[None]:
    """Raise FormatError at `where` for malformed JSON or UTF-8, wrong types, absurd nesting, any other ValueError."""
    try:
        yield
    except FormatError:
        raise
    except RecursionError as error:
        raise FormatError(path, where, "nested too deeply: flatten it or leave it out") from error
    except ValueError as error:  # msgspec's errors and UnicodeDecodeError are ValueErrors
        raise FormatError(path, where, str(error)) from error


def numbered(name: str, seen: set[str]) -> str:
    """`name` the first time, then `name#2`, `name#3`: ids must be unique, and some files repeat one.

    `seen` is the caller's own record of what was given out, and grows.
    """
    candidate, count = name, 1
    while candidate in seen:
        count += 1
        candidate = f"{name}#{count}"
    seen.add(candidate)
    return candidate
