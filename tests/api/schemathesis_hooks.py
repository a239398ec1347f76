"""What Schemathesis must be told: how a body of JSON Lines is written."""

from __future__ import annotations

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def one_line(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    """Return the one line that the document describes."""
    return value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n"
