"""Ctrl-C and SIGTERM: once asks for a graceful stop, twice for one at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_STOP = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


class StopSignals:
    """Sends every request to stop to whatever part is in charge now.

    Until a part takes charge, a stop raises KeyboardInterrupt where the main thread is. Use it in the main thread.
    """

    def __init__(self) -> None:
        self._act: Callable[[], None] = _interrupt

    def install(self) -> None:
        """Handle the signals from now on; SIGHUP stays ignored under nohup."""
        for number in _STOP:
            if signal.getsignal(number) != signal.SIG_IGN or number is not signal.SIGHUP:
                signal.signal(number, self._received)

    @contextmanager
    def handled_by(self, act: Callable[[], None]) -> Iterator[None]:
        """Call ``act`` for each request to stop while the block runs; it runs between two instructions of any code."""
        before, self._act = self._act, act
        try:
            yield
        finally:
            self._act = before

    def _received(self, _number: int, _frame: FrameType | None) -> None:
        self._act()


def _interrupt() -> None:
    raise KeyboardInterrupt
