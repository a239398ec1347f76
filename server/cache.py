"""A map bounded in bytes, whose victims SIEVE chooses (Zhang et al., NSDI 2024).

One queue and a hand: a hit only sets a bit. To make room the hand moves from the tail towards the head, clears set
bits, and takes the first entry whose bit is not set. A hit moves nothing, so it costs a look-up and a store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class _Entry(Generic[K, V]):
    __slots__ = ("key", "newer", "older", "size", "value", "visited")

    def __init__(self, key: K, value: V, size: int, older: _Entry[K, V] | None) -> None:
        self.key = key
        self.value = value
        self.size = size
        self.visited = False
        self.newer: _Entry[K, V] | None = None
        self.older = older


class Cache(Generic[K, V]):
    """Keeps values while their sizes add up to at most ``limit_bytes``; every operation is O(1), amortised.

    Sizes are what callers say. A value that is in use may be evicted meanwhile: it is only forgotten. ``on_evict`` is
    told of what is pushed out, not of what is discarded or replaced, and must not change the cache.
    ``hits`` and ``misses`` count calls of ``get``.
    """

    def __init__(self, limit_bytes: int, on_evict: Callable[[K, V], None] | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._on_evict = on_evict
        self._entries: dict[K, _Entry[K, V]] = {}
        self._head: _Entry[K, V] | None = None
        self._tail: _Entry[K, V] | None = None
        self._hand: _Entry[K, V] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        """Say whether a key is held, which counts as no use of it."""
        return key in self._entries

    def get(self, key: K) -> V | None:
        """Return what is held under a key, or None."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        entry.visited = True
        return entry.value

    def peek(self, key: K) -> V | None:
        """Return what is held under a key, which counts as no use of it: for writers, who only keep it current."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def put(self, key: K, value: V, size: int) -> None:
        """Hold a value, in place of what the key held before; one that is larger than the limit is not kept."""
        if key in self._entries:
            self._entries[key].value = value
            self.resize(key, size)
            return
        if size > self.limit_bytes:
            return
        self._make_room(self.limit_bytes - size)
        entry = _Entry(key, value, size, self._head)
        if self._head is None:
            self._tail = entry
        else:
            self._head.newer = entry
        self._head = self._entries[key] = entry
        self.bytes += size

    def resize(self, key: K, size: int) -> None:
        """Say that a value has grown or shrunk; whatever has to leave for that may be the value itself."""
        entry = self._entries.get(key)
        if entry is None:
            return
        if size > self.limit_bytes:
            self.discard(key)
            return
        self.bytes += size - entry.size
        entry.size = size
        self._make_room(self.limit_bytes)

    def discard(self, key: K) -> None:
        """Forget a key, if it is held."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._unlink(entry)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._head = self._tail = self._hand = None
        self.bytes = 0

    def _make_room(self, limit: int) -> None:
        while self.bytes > limit:
            entry = self._hand or self._tail
            assert entry is not None, "bytes are held by entries"
            while entry.visited:
                entry.visited = False
                entry = entry.newer or self._tail
                assert entry is not None
            self._hand = entry
            del self._entries[entry.key]
            self._unlink(entry)
            self.evictions += 1
            if self._on_evict is not None:
                self._on_evict(entry.key, entry.value)

    def _unlink(self, entry: _Entry[K, V]) -> None:
        if entry.newer is None:
            self._head = entry.older
        else:
            entry.newer.older = entry.older
        if entry.older is None:
            self._tail = entry.newer
        else:
            entry.older.newer = entry.newer
        if self._hand is entry:
            self._hand = entry.newer
        self.bytes -= entry.size
