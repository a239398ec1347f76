"""One Turnstone process per data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from server.errors import DatabaseRefused


class DirectoryLock:
    """An advisory lock on a file; the kernel releases it when the process ends, however it ends.

    The descriptor is closed on exec, so PostgreSQL does not inherit the lock and an orphaned one does not hold it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise DatabaseRefused naming the process that holds it."""
        if self._handle is not None:
            return
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise DatabaseRefused(
                f"another Turnstone (process {holder}) is using {self._path.parent}: stop it first, or give this one "
                f"another data directory"
            ) from None
        except OSError:
            os.close(handle)
            raise
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle

    def release(self) -> None:
        """Let go of the lock. The file stays: removing it would let two processes lock two files of one name."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
