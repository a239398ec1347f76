"""Events that were answers lately, as the log holds them: the same few are found again and again.

What is held is as true as the index beside it: an erasure raises an epoch, which no search overlooks, and with what is
gone all of this is let go.
"""

from __future__ import annotations

from typing import Final

from msgspec import UnsetType

from server.log.stored import StoredEvent
from server.retrieval.turns import Key

MOST_BYTES: Final = 1024 * 1024  # of a family
_EVENT_BYTES: Final = 700  # that an event takes besides its content and metadata


class Bodies:
    """The newest of them, up to a number of bytes."""

    def __init__(self) -> None:
        self._held: dict[Key, StoredEvent] = {}
        self.nbytes = 0

    def get(self, key: Key) -> StoredEvent | None:
        """Return an event, or None when it is not held."""
        return self._held.get(key)

    def put(self, key: Key, event: StoredEvent) -> None:
        """Hold an event in place of the oldest; one that takes more than a 32nd of the room is not held."""
        size = _size(event)
        if key in self._held or size > MOST_BYTES // 32:
            return
        self._held[key] = event
        self.nbytes += size
        while self.nbytes > MOST_BYTES:
            self.nbytes -= _size(self._held.pop(next(iter(self._held))))


def _size(event: StoredEvent) -> int:
    texts = [text for text in (event.content, event.metadata) if not isinstance(text, UnsetType)]
    return _EVENT_BYTES + sum(memoryview(text).nbytes for text in texts)
