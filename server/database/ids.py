"""Ids that route themselves: every id carries the key of the user whose rows it names.

A conversation id is ``conv_`` + 48 hex digits: 8 bytes of ``user_key``, then 16 bytes of UUIDv7. An event id is
``evt_`` + the 32 hex digits of its conversation's UUID + ``_`` + its seq: an event that a fork shares keeps its id.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import threading
import time
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

_CONVERSATION = re.compile(r"conv_([0-9a-f]{16})([0-9a-f]{32})", re.ASCII)
_CONVERSATION_LENGTH = len("conv_") + 48
_EVENT = re.compile(r"evt_([0-9a-f]{32})_([1-9][0-9]{0,17})", re.ASCII)
_lock = threading.Lock()
_last = 0


class ConversationId(NamedTuple):
    """Where a conversation lives: ``user_key`` is a signed 64-bit integer, ``uuid`` a UUIDv7."""

    user_key: int
    uuid: UUID

    def __str__(self) -> str:
        return f"conv_{self.user_key & 0xFFFF_FFFF_FFFF_FFFF:016x}{self.uuid.hex}"


class EventId(NamedTuple):
    """An event by the conversation that appended it and its seq there."""

    conversation: UUID
    seq: int

    def __str__(self) -> str:
        return f"evt_{self.conversation.hex}_{self.seq}"


def parse_conversation_id(text: str) -> ConversationId | None:
    """Return the parts of a conversation id, or None when it is not one."""
    return _parsed(text) if len(text) == _CONVERSATION_LENGTH else None


@lru_cache(4096)  # conversations are asked for again and again
def _parsed(text: str) -> ConversationId | None:
    match = _CONVERSATION.fullmatch(text)
    if match is None:
        return None
    return ConversationId(int.from_bytes(bytes.fromhex(match[1]), signed=True), UUID(hex=match[2]))


def parse_event_id(text: str) -> EventId | None:
    """Return the parts of an event id, or None when it is not one that the server made."""
    match = _EVENT.fullmatch(text)
    return EventId(UUID(hex=match[1]), int(match[2])) if match else None


def uuid7(after: UUID | None = None) -> UUID:
    """Return a UUIDv7 (RFC 9562, method 3): 48 bits of milliseconds, 12 bits of sub-millisecond, random bits.

    Within one process each is greater than the one before, so ids sort as they were made; and greater than ``after``,
    which a server whose clock is ahead may have made.
    """
    global _last
    nanoseconds = time.time_ns()
    stamp = (nanoseconds // 1_000_000) << 12 | (nanoseconds % 1_000_000) * 4096 // 1_000_000
    with _lock:
        _last = stamp = max(stamp, _last + 1)
    if after is not None:
        stamp = max(stamp, ((after.int >> 80) << 12 | (after.int >> 64 & 0xFFF)) + 1)
    random = int.from_bytes(os.urandom(8))
    return UUID(int=(stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62 | random & (1 << 62) - 1)


def keyed_hash(salt: bytes, purpose: str, *parts: str | bytes) -> bytes:
    """Return 16 bytes of HMAC-SHA256 over the parts, under a tenant's salt.

    ``purpose`` keeps hashes of different things apart; each part is preceded by its length, so that no two lists of
    parts read the same.
    """
    mac = hmac.new(salt, purpose.encode(), hashlib.sha256)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        mac.update(len(data).to_bytes(8))
        mac.update(data)
    return mac.digest()[:16]


def user_key(salt: bytes, purpose: str, text: str) -> int:
    """Return the signed 64-bit placement key of a user (or of whatever stands in for one)."""
    return int.from_bytes(keyed_hash(salt, purpose, text)[:8], signed=True)
