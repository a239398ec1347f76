"""A map bounded in bytes: never over its limit, and its victims are SIEVE's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cache import Cache

LIMIT = 10
KEYS = st.integers(0, 7)
SIZES = st.integers(0, LIMIT + 2)
OPERATIONS = st.lists(
    st.tuples(st.just("get"), KEYS, st.just(0))
    | st.tuples(st.sampled_from(["put", "put", "resize"]), KEYS, SIZES)
    | st.tuples(st.just("discard"), KEYS, st.just(0)),
    max_size=80,
)


class Model:
    """SIEVE as the paper words it, over a list from tail to head."""

    def __init__(self) -> None:
        self.queue: list[int] = []
        self.sizes: dict[int, int] = {}
        self.visited: set[int] = set()
        self.hand: int | None = None

    def drop(self, key: int) -> None:
        if key not in self.sizes:
            return
        if self.hand == key:
            following = self.queue.index(key) + 1
            self.hand = self.queue[following] if following < len(self.queue) else None
        self.queue.remove(key)
        self.visited.discard(key)
        del self.sizes[key]

    def make_room(self, limit: int) -> None:
        while sum(self.sizes.values()) > limit:
            at = 0 if self.hand is None else self.queue.index(self.hand)
            while self.queue[at] in self.visited:
                self.visited.discard(self.queue[at])
                at = (at + 1) % len(self.queue)
            self.hand = self.queue[at]
            self.drop(self.hand)

    def put(self, key: int, size: int) -> None:
        if key in self.sizes:
            self.resize(key, size)
        elif size <= LIMIT:
            self.make_room(LIMIT - size)
            self.queue.append(key)
            self.sizes[key] = size

    def resize(self, key: int, size: int) -> None:
        if key not in self.sizes:
            return
        if size > LIMIT:
            self.drop(key)
            return
        self.sizes[key] = size
        self.make_room(LIMIT)


@given(OPERATIONS)
def test_it_holds_what_sieve_would_hold(operations: list[tuple[str, int, int]]) -> None:
    cache: Cache[int, str] = Cache(LIMIT)
    model = Model()
    for operation, key, size in operations:
        if operation == "get":
            assert (cache.get(key) is not None) == (key in model.sizes)
            if key in model.sizes:
                model.visited.add(key)
        elif operation == "put":
            cache.put(key, f"value {key}", size)
            model.put(key, size)
        elif operation == "resize":
            cache.resize(key, size)
            model.resize(key, size)
        else:
            cache.discard(key)
            model.drop(key)
        assert {key for key in range(8) if key in cache} == set(model.sizes)
        assert cache.bytes == sum(model.sizes.values()) <= LIMIT
        assert len(cache) == len(model.sizes)


def test_what_is_used_outlives_what_is_not() -> None:
    evicted: list[tuple[str, int]] = []
    cache: Cache[str, int] = Cache(3, on_evict=lambda key, value: evicted.append((key, value)))
    for key in "abc":
        cache.put(key, ord(key), 1)
    cache.get("a")
    cache.put("d", 4, 1)
    cache.put("e", 5, 1)
    assert evicted == [("b", 98), ("c", 99)]
    assert [cache.get(key) for key in "abcde"] == [97, None, None, 4, 5]
    assert (cache.hits, cache.misses, cache.evictions) == (4, 2, 2)


def test_peeking_is_no_use() -> None:
    cache: Cache[str, int] = Cache(2)
    cache.put("a", 1, 1)
    cache.put("b", 2, 1)
    assert cache.peek("a") == 1
    cache.put("c", 3, 1)
    assert "a" not in cache
    assert (cache.hits, cache.misses) == (0, 0)


def test_what_is_too_large_is_not_kept() -> None:
    cache: Cache[str, int] = Cache(2)
    cache.put("a", 1, 1)
    cache.put("b", 2, 3)
    assert "b" not in cache
    assert "a" in cache, "nothing had to leave for what is not kept"
    cache.put("a", 3, 3)
    assert (len(cache), cache.bytes) == (0, 0)


def test_clearing_forgets_everything() -> None:
    cache: Cache[str, int] = Cache(2)
    cache.put("a", 1, 1)
    cache.get("a")
    cache.clear()
    assert (len(cache), cache.bytes, cache.get("a")) == (0, 0, None)
    for key in "bcd":
        cache.put(key, 1, 1)
    assert cache.bytes == 2


@pytest.mark.parametrize("count", [10, 10_000])
def test_a_full_cache_works_as_well_as_a_small_one(count: int) -> None:
    """Everything was used, so that the hand goes round once and then finds a victim at every step."""
    cache: Cache[int, int] = Cache(count)
    for key in range(count):
        cache.put(key, key, 1)
        cache.get(key)
    for key in range(count, 3 * count):
        cache.put(key, key, 1)
    assert len(cache) == count
    assert cache.evictions == 2 * count
