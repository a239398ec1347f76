"""One run, with what it cost: processor time by who used it, and peak memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec

from benchmarks.load import Figures
from benchmarks.serving import Serving


class Measured(msgspec.Struct):
    """A run's figures; ``python`` and ``postgres`` are cores used by the server, ``memory`` its peak in MiB."""

    figures: Figures
    python: float
    postgres: float
    memory: float


def measure(serving: Serving, run: Callable[[], Figures]) -> Measured:
    """Run a load while watching what the server uses."""
    peak, done = serving.memory().total, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(1.0):
            peak = max(peak, serving.memory().total)

    watching = threading.Thread(target=watch)
    watching.start()
    before, began = serving.cpu(), time.perf_counter()
    try:
        figures = run()
    finally:
        done.set()
        watching.join()
    wall, after = time.perf_counter() - began, serving.cpu()
    if figures.errors or not figures.answers:
        raise SystemExit(f"{figures.errors} of {figures.answers} requests failed: {figures.sample}")
    return Measured(figures, (after.python - before.python) / wall, (after.postgres - before.postgres) / wall, peak)
