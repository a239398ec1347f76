"""What a key and its id look like; free of the database, so that the command line starts at once."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final
from uuid import UUID

PREFIX_LENGTH: Final = 8

_SECRET = re.compile(r"ts_[A-Za-z0-9_-]{43}", re.ASCII)
_ID = re.compile(r"key_([0-9a-f]{32})", re.ASCII)


def new_secret() -> str:
    """Return a new key: ``ts_`` and 43 characters that carry 32 random bytes."""
    return f"ts_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> bytes | None:
    """Return the SHA-256 of a key, or None for a text that cannot be one.

    A plain, fast hash is right here: a key is 256 random bits, which no dictionary holds, unlike a password.
    """
    return hashlib.sha256(secret.encode("ascii")).digest() if _SECRET.fullmatch(secret) else None


def wire_id(key_id: UUID) -> str:
    """Return the id of a key as callers see it: ``key_`` and 32 hex digits."""
    return f"key_{key_id.hex}"


def parse_id(text: str) -> UUID | None:
    """Return the UUID of a wire id, or None for what is not one."""
    match = _ID.fullmatch(text)
    return UUID(hex=match[1]) if match else None
