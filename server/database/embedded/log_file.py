"""PostgreSQL's log: one file of bounded size and one older one beside it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

_LIMIT = 16 * 1024 * 1024  # bytes
_LOOK_EVERY = 30.0  # seconds


class LogFile:
    """A file that the server appends to as its standard error.

    PostgreSQL's own collector rotates by size only into ever more files, so the bound is kept here: what is over the
    limit moves to `<name>.1` and the file is cut to nothing in place, which an appending writer does not notice.
    """

    def __init__(self, path: Path, limit: int = _LIMIT) -> None:
        self._path = path
        self._limit = limit
        self._start = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> int:
        """Bound the file, then open it for appending; the caller closes the descriptor."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(self._path, flags, 0o600)
        self.bound()
        self._start = os.fstat(handle).st_size
        return handle

    def bound(self) -> None:
        """Move what was written to `<name>.1` if the file is over its limit."""
        size = self._path.stat().st_size
        if size <= self._limit:
            return
        older = self._path.with_name(self._path.name + ".1")
        part = self._path.with_name(self._path.name + ".part")
        part.unlink(missing_ok=True)
        with self._path.open("rb") as source:
            source.seek(size - self._limit)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
                target.write(source.read(self._limit))
        part.replace(older)
        os.truncate(self._path, 0)

    def watch(self) -> None:
        """Keep the file bounded from a thread until `unwatch`."""
        if self._thread is None:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._keep_bounded, name="postgres-log", daemon=True)
            self._thread.start()

    def unwatch(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _keep_bounded(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY):
            try:
                self.bound()
            except OSError:  # a full disk must not end the watch: the next look may succeed
                continue

    def last_lines(self, count: int = 12) -> str:
        """The last lines written since `open`, or a word that there are none."""
        with self._path.open("rb") as source:
            end = source.seek(0, os.SEEK_END)
            source.seek(max(self._start if self._start <= end else 0, end - 64 * 1024))
            lines = source.read().decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-count:]) or "(it wrote nothing)"
