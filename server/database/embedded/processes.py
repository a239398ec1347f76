"""Server processes that an earlier run left behind."""

from __future__ import annotations

import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from server.database.embedded.account import Account, seeing_as
from server.database.embedded.sockets import remove_socket_directory
from server.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

POLL = 0.02  # seconds
FAST_SHUTDOWN = 60.0  # seconds until a shutdown that writes everything out is given up for one that recovers later
_IMMEDIATE_SHUTDOWN = 15.0  # seconds; the postmaster itself kills stubborn children after five
_ORPHANS = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class PidFile:
    """What postmaster.pid says. `pid` is None when a crash left the file empty or torn."""

    pid: int | None
    socket_dir: Path | None
    status: str


def read_pid_file(cluster: Path) -> PidFile | None:
    """Read the cluster's postmaster.pid, or None if there is none.

    Lines: pid, data directory, start time, port, socket directory, listen address, shared memory key, status
    (https://www.postgresql.org/docs/18/storage-file-layout.html; src/include/utils/pidfile.h).
    """
    try:
        lines = (cluster / "postmaster.pid").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return None
    lines += [""] * (8 - len(lines))
    pid = int(lines[0]) if lines[0].isdecimal() else None
    return PidFile(pid, Path(lines[4]) if lines[4] else None, lines[7].strip())


def servers_in(cluster: Path, account: Account) -> list[psutil.Process]:
    """The live PostgreSQL processes, postmaster or not, that have this cluster as their working directory."""
    place = cluster.stat()
    found = []
    candidates = [p for p in psutil.process_iter(["name", "status"]) if _is_postgres(p)]
    if not candidates:
        return []
    with seeing_as(account):
        for process in candidates:
            try:
                if os.path.samestat(_working_directory(process), place):
                    found.append(process)
            except (OSError, psutil.Error):
                continue  # it ended, or it is another account's and so not this cluster's
    return found


def _is_postgres(process: psutil.Process) -> bool:
    return bool(process.info["name"] == "postgres" and process.info["status"] != psutil.STATUS_ZOMBIE)


def _working_directory(process: psutil.Process) -> os.stat_result:
    if Path("/proc/self/cwd").exists():
        # Followed by the kernel: right also after a rename, and when directories above are closed to the account.
        return Path(f"/proc/{process.pid}/cwd").stat()
    return Path(process.cwd()).stat()


def clear_the_way(cluster: Path, account: Account, *, keep: Path | None = None) -> None:
    """End what an earlier run left of this cluster's server, so that a new one may start.

    The caller holds the data directory's lock, so a postmaster found here lost its Turnstone: it is stopped. Other
    processes are backends that outlived their postmaster; they may still write, so they are waited for, and
    postmaster.pid stays as long as one lives. The earlier run's temporary socket directory is removed, unless it is
    `keep`. Raises DatabaseUnavailable when they do not end.
    """
    record = read_pid_file(cluster)
    for process in servers_in(cluster, account):
        if record is not None and process.pid == record.pid:
            logger.warning("stopping PostgreSQL (process %d), which an earlier Turnstone left running", process.pid)
            _stop(process)
    deadline = time.monotonic() + _ORPHANS
    while left := servers_in(cluster, account):
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in left)
            raise DatabaseUnavailable(
                f"PostgreSQL processes of an earlier run still use {cluster} (process {pids}); starting beside them "
                f"would corrupt the database. Wait for them or end them with SIGTERM, then start again"
            )
        time.sleep(POLL)
    if record is None:
        return
    if record.socket_dir is not None and record.socket_dir != keep:
        remove_socket_directory(record.socket_dir, account)
    # PostgreSQL judges a stale file by itself, and checks shared memory too; but it gives up on an empty file, and on
    # one whose pid lives again as something else.
    if record.pid is None or psutil.pid_exists(record.pid):
        (cluster / "postmaster.pid").unlink(missing_ok=True)


def is_alive(process: psutil.Process) -> bool:
    """Whether it is still the same process, and more than an entry that nobody has collected."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _stop(process: psutil.Process) -> None:
    for how, patience in ((signal.SIGINT, FAST_SHUTDOWN), (signal.SIGQUIT, _IMMEDIATE_SHUTDOWN)):
        deadline = time.monotonic() + patience
        try:
            process.send_signal(how)
        except psutil.NoSuchProcess:
            return
        while time.monotonic() < deadline:
            if not is_alive(process):
                return
            time.sleep(POLL)
