"""What JSON text must be before it is stored verbatim: Unicode, and of bounded depth."""

from __future__ import annotations

import re

import numpy as np

from server.errors import BadRequest, InvalidInput

MAX_DEPTH = 100

_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_MANY_QUOTES = 100_000  # splitting at them is ten times faster, but takes fifty bytes for each
_STEP = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def check_text(body: bytes) -> None:
    """Raise BadRequest for bytes that are not UTF-8, InvalidInput for a lone surrogate or too deep a nesting."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8 at byte {error.start}") from None
    if b"\\u" in body:
        _check_surrogates(body)
    # Counting all brackets is cheap and nearly always enough; only a suspect body is measured exactly.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _check_depth(body)


def _check_surrogates(body: bytes) -> None:
    high_end = -1  # where a high surrogate ended that still lacks its low one
    for match in _ESCAPE.finditer(body):
        unit = int(match[1], 16) if match[1] else 0
        paired = high_end == match.start()
        if high_end >= 0 and not (paired and 0xDC00 <= unit <= 0xDFFF):
            break
        if 0xDC00 <= unit <= 0xDFFF and not paired:
            high_end = match.end()
            break
        high_end = match.end() if 0xD800 <= unit <= 0xDBFF else -1
    if high_end >= 0:
        raise InvalidInput(f"byte {high_end - 6} holds a lone surrogate (\\ud800 to \\udfff), which is not Unicode")


def _check_depth(body: bytes) -> None:
    if body.count(b'"') > _MANY_QUOTES:
        bare = _STRING.sub(b"", body)
    else:
        if b"\\" in body:
            body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
        bare = b"".join(body.split(b'"')[::2])  # without escapes, every other part between quotes is a string
    steps = np.frombuffer(bare.translate(_STEP, _NO_BRACKETS), dtype=np.int8)
    if np.cumsum(steps, dtype=np.int32).max(initial=0) > MAX_DEPTH:
        raise InvalidInput(f"the body is nested deeper than {MAX_DEPTH} levels")
