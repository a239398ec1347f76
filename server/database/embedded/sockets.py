"""The private directory that holds the server's Unix socket."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from server.database.embedded.account import Account, can_reach, make_private

PORT = 5432  # only a part of the socket's file name: no network port is opened
_PREFIX = "turnstone-socket-"
_LONGEST = 107 if sys.platform == "linux" else 103  # bytes of sockaddr_un.sun_path without its final zero
# unix_socket_directories is a list: commas, quotes and surrounding blanks mean something there, and so in conninfo.
_PLAIN = re.compile(r"/[A-Za-z0-9_./+@-]*")


def fits(directory: Path) -> bool:
    """Whether a socket in this directory has a path that the kernel, the server and libpq all accept."""
    socket = f"{directory}/.s.PGSQL.{PORT}"
    return len(os.fsencode(socket)) <= _LONGEST and _PLAIN.fullmatch(socket) is not None


def make_socket_directory(data_dir: Path, account: Account, earlier: Path | None = None) -> Path:
    """Create the directory, mode 0700 and the account's: `data_dir/run` when that works, else a temporary one.

    `earlier`, if it still is as it was, is used again: clients that know it then find a restarted server. No server
    of this data directory may be alive.
    """
    run = data_dir / "run"
    if fits(run) and can_reach(account, data_dir):
        run.mkdir(mode=0o700, exist_ok=True)
        make_private(run, account)
        return _without_leftovers(run)
    if earlier is not None and _is_ours(earlier, account):
        return _without_leftovers(earlier)
    # XDG_RUNTIME_DIR second: it is removed at the user's last log-out, under a server that runs on.
    for parent in ("/tmp", os.environ.get("XDG_RUNTIME_DIR")):  # noqa: S108 - mkdtemp makes a private one inside
        if parent and Path(parent).is_dir() and os.access(parent, os.W_OK):
            place = Path(parent).resolve()
            if fits(place / f"{_PREFIX}12345678") and can_reach(account, place):  # mkdtemp adds eight characters
                break
    else:
        place = Path(tempfile.gettempdir()).resolve()
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    make_private(directory, account)
    return directory


def _is_ours(directory: Path, account: Account) -> bool:
    if not directory.name.startswith(_PREFIX) or directory.is_symlink() or not directory.is_dir():
        return False
    return directory.stat().st_uid == account.uid


def _without_leftovers(directory: Path) -> Path:
    # A killed server leaves its socket's lock file, and the pid in it may be another process's by now.
    for leftover in directory.glob(".s.PGSQL.*"):
        leftover.unlink()
    return directory


def remove_socket_directory(directory: Path, account: Account) -> None:
    """Remove a temporary socket directory, also one of an earlier run; `data_dir/run` and others' stay."""
    if _is_ours(directory, account):
        shutil.rmtree(directory, ignore_errors=True)
