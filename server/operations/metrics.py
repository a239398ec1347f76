"""What is counted, for Prometheus.

Every label takes its values from a closed set (routes, methods, status classes, pools), never from a caller: no tenant
is named, so ``/metrics`` needs no key. With several server processes each keeps its figures in a file of its own, in
the directory that the supervisor names in PROMETHEUS_MULTIPROC_DIR, and any of them answers for all.
"""

from __future__ import annotations

import platform
from collections import deque
from functools import cache
from importlib.metadata import version
from time import perf_counter
from typing import Protocol
from weakref import WeakKeyDictionary

import psutil
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from server.database.connections import Database

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
UNMATCHED = "unmatched"
_RECENT = 0.25  # seconds
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use to Prometheus
# Ours alone: the library's default registry would add the platform's collectors to some of the ways to run, not to all.
REGISTRY = CollectorRegistry()

REQUESTS = Histogram(
    "turnstone_request_seconds",
    "Time from a request to the start of its answer.",
    ("route", "method", "status"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
APPENDS = Counter("turnstone_appends_total", "Append calls that stored events.", registry=REGISTRY)
EVENTS = Counter("turnstone_events_appended_total", "Events stored.", registry=REGISTRY)
REPLAYS = Counter(
    "turnstone_append_replays_total", "Appends answered again by their Idempotency-Key.", registry=REGISTRY
)
STREAMS = Gauge("turnstone_streams", "Event streams that are open.", multiprocess_mode="livesum", registry=REGISTRY)
_POOL = Gauge(
    "turnstone_pool",
    "Database connections of the hot pool: open, free, and requests that wait for one.",
    ("state",),
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
_CACHE_HITS = Counter("turnstone_cache_hits_total", "Reads answered from memory.", ("cache",), registry=REGISTRY)
_CACHE_MISSES = Counter(
    "turnstone_cache_misses_total",
    "Reads that memory could not answer, or not as fresh as it must.",
    ("cache",),
    registry=REGISTRY,
)
_CACHE_EVICTIONS = Counter(
    "turnstone_cache_evictions_total", "Conversations that made room for others.", ("cache",), registry=REGISTRY
)
_CACHE_BYTES = Gauge(
    "turnstone_cache_bytes", "What is held.", ("cache",), multiprocess_mode="livesum", registry=REGISTRY
)
_REBUILDS = Histogram(
    "turnstone_working_set_rebuild_seconds",
    "Time to fold a conversation from its newest checkpoint, or from its first event.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100),
    registry=REGISTRY,
)
_EVICTED = Counter(
    "turnstone_working_set_evicted_events_total",
    "Events that left a working set as it was folded on, by eviction policy.",
    ("policy",),
    registry=REGISTRY,
)
_MEMORY = Gauge(
    "turnstone_resident_bytes",
    "Resident memory of the server processes, without PostgreSQL's.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
_BUILD = Gauge(
    "turnstone_build_info",
    "1, labelled with what runs.",
    ("release", "python"),
    multiprocess_mode="max",
    registry=REGISTRY,
)


@cache
def release() -> str:
    """Return the version of Turnstone that runs."""
    return version("turnstone")


# Looking a child up by its labels costs more than observing; the set of them is bounded as the labels are.
_children: dict[tuple[str, str, int], Histogram] = {}


_answered = 0.0
# Nobody's chat waits for these, and some of them take minutes: they say nothing of what callers see.
_OPERATIONS = ("/v1/embeddings", "/v1/golden", "/v1/export", "/v1/import", "/healthz", "/readyz", "/metrics")
_window: deque[float] = deque(maxlen=20_000)


def is_busy() -> bool:
    """Whether a request was answered in the last quarter of a second: then work that nobody waits for gives way."""
    return perf_counter() - _answered < _RECENT


def observe_request(route: str, method: str, status: int, seconds: float) -> None:
    """Count one request; ``status`` is the code, of which the class is kept."""
    global _answered
    _answered = perf_counter()
    key = (route, method, status // 100)
    child = _children.get(key)
    if child is None:
        # A made-up method must not make a series of its own, nor an entry here.
        key = (route, method if method in _METHODS else "other", status // 100)
        child = _children[key] = REQUESTS.labels(key[0], key[1], f"{key[2]}xx")
    child.observe(seconds)
    if not route.startswith(_OPERATIONS):
        _window.append(seconds)


def take_window() -> list[float]:
    """Return the seconds of the requests that callers waited for since the last call, the newest 20,000."""
    taken = list(_window)
    _window.clear()
    return taken


def observe_append(events: int, *, replayed: bool) -> None:
    """Count one append that was answered, with how many events it named."""
    if replayed:
        REPLAYS.inc()
    else:
        APPENDS.inc()
        EVENTS.inc(events)


def observe_rebuild(seconds: float) -> None:
    """Count one fold that was made anew."""
    _REBUILDS.observe(seconds)


def observe_evicted(policy: str, events: int) -> None:
    """Count events that left a working set; ``policy`` is the name of one that exists."""
    _EVICTED.labels(policy).inc(events)


class Watched(Protocol):
    """A cache, which counts for itself: the library's counters cost more than a look-up."""

    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...
    @property
    def evictions(self) -> int: ...
    @property
    def bytes(self) -> int: ...


_watched: WeakKeyDictionary[Watched, tuple[str, list[int]]] = WeakKeyDictionary()


def watch_cache(name: str, watched: Watched) -> None:
    """Show a cache's figures under a name, for as long as it lives."""
    _watched[watched] = (name, [0, 0, 0])


def _observe_caches() -> None:
    held: dict[str, int] = {}
    for watched, (name, seen) in _watched.items():
        counted = (watched.hits, watched.misses, watched.evictions)
        for index, counter in enumerate((_CACHE_HITS, _CACHE_MISSES, _CACHE_EVICTIONS)):
            counter.labels(name).inc(counted[index] - seen[index])
        seen[:] = counted
        held[name] = held.get(name, 0) + watched.bytes
    for name, size in held.items():
        _CACHE_BYTES.labels(name).set(size)


def observe_process(database: Database) -> None:
    """Take the figures that are read rather than counted; called every few seconds in each process."""
    _observe_caches()
    stats = database.hot.get_stats()
    _POOL.labels("open").set(stats.get("pool_size", 0))
    _POOL.labels("free").set(stats.get("pool_available", 0) + database.at_hand)
    _POOL.labels("waiting").set(stats.get("requests_waiting", 0))
    _MEMORY.set(psutil.Process().memory_info().rss)
    _BUILD.labels(release(), platform.python_version()).set(1)


def exposition(*, several_processes: bool) -> bytes:
    """Return the figures of all server processes in Prometheus' text format."""
    _observe_caches()
    if not several_processes:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
