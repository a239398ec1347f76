"""JSON as callers wrote it, read for its meaning."""

from __future__ import annotations

from typing import Any

import msgspec

_lenient: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=str)


def value(text: bytes | str | msgspec.Raw) -> Any:
    """Return the value of stored JSON; a number beyond what a float holds (``1e400``) stays text, with all others."""
    try:
        return msgspec.json.decode(text)
    except msgspec.ValidationError:
        return _lenient.decode(text)
