"""One run, with what it cost: processor time by who used it, and memory."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from benchmarks.load import Figures
from benchmarks.serving import Serving


class Measured(msgspec.Struct):
    """A run's figures, the processor time that the server spent on each request (microseconds), and its MiB after."""

    figures: Figures
    python: float
    postgres: float
    memory: float


def measure(serving: Serving, run: Callable[[], Figures]) -> Measured:
    """Run a load and see what the server used for it."""
    before = serving.cpu()
    figures = run()
    after = serving.cpu()
    if figures.errors or not figures.answers:
        raise SystemExit(f"{figures.errors} of {figures.answers} requests failed: {figures.sample}")
    python, postgres = ((b - a) * 1e6 / figures.total for a, b in zip(before, after, strict=True))
    # Not during the run: adding up the shared pages of forty processes takes a tenth of a second of a processor.
    return Measured(figures, python, postgres, serving.memory().total)
