"""The operating-system account that runs PostgreSQL, and what that account can reach.

PostgreSQL refuses to run as root. An ordinary user runs it as itself; root runs it as the account that owns the
cluster already, else as the system account `turnstone`. The modes of parent directories are never changed: what the
account cannot reach is worked around (see `can_reach`'s callers).
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from server.errors import DatabaseRefused

SYSTEM_ACCOUNT = "turnstone"

# Nothing of our own environment: it holds secrets, and PG* variables would change what initdb and postgres do.
# LC_ALL keeps messages in one language; macOS refuses to start a postmaster without a locale.
_ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Account:
    """An operating-system account by name, user id and primary group id."""

    name: str
    uid: int
    gid: int

    @property
    def is_ours(self) -> bool:
        """Whether this process runs as the account already."""
        return self.uid == os.geteuid()


def by_uid(uid: int) -> Account:
    """Look an account up. Raises DatabaseRefused for a uid without a name, which peer authentication needs."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise DatabaseRefused(
            f"user id {uid} has no entry in the user database, and PostgreSQL identifies accounts by name: "
            f"add one (for example in /etc/passwd), run as another user, or set TURNSTONE_DATABASE_URL"
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def account_for(cluster: Path) -> Account:
    """Choose the account that runs the cluster in this directory (which need not exist yet).

    Raises DatabaseRefused when the cluster belongs to someone else, or root finds no account to run it under.
    """
    try:
        owner = cluster.stat().st_uid
    except FileNotFoundError:
        owner = os.geteuid()
    if os.geteuid() == 0:
        return by_uid(owner) if owner != 0 else _system_account()
    if owner != os.geteuid():
        raise DatabaseRefused(
            f"the database in {cluster} belongs to user id {owner}, not to this process's {os.geteuid()}: "
            f"start Turnstone as that account, or choose another data directory"
        )
    return by_uid(owner)


def _system_account() -> Account:
    try:
        return _existing_system_account()
    except KeyError:
        pass
    name = SYSTEM_ACCOUNT
    # The search path of a root shell entered by plain `su` lacks the system directories.
    search = f"{os.environ.get('PATH', '')}:{_ENVIRONMENT['PATH']}"
    attempts: list[list[str]] = []
    if useradd := shutil.which("useradd", path=search):
        home, shell = ("--no-create-home", "--home-dir", "/nonexistent"), ("--shell", "/usr/sbin/nologin")
        attempts.append([useradd, "--system", "--user-group", *home, *shell, name])
    elif (adduser := shutil.which("adduser", path=search)) and (addgroup := shutil.which("addgroup", path=search)):
        attempts += [  # busybox
            [addgroup, "-S", name],
            [adduser, "-S", "-D", "-H", "-h", "/nonexistent", "-s", "/sbin/nologin", "-G", name, name],
        ]
    said = "neither useradd nor adduser is installed" if not attempts else ""
    for command in attempts:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        said = done.stderr.strip() or said
    try:  # whatever the commands said: another start may have created it meanwhile
        return _existing_system_account()
    except KeyError:
        raise DatabaseRefused(
            f"PostgreSQL does not run as root, and the account {SYSTEM_ACCOUNT!r} could not be created ({said}): "
            f"create a system account of that name, start Turnstone as an ordinary user, or set TURNSTONE_DATABASE_URL"
        ) from None


def _existing_system_account() -> Account:
    entry = pwd.getpwnam(SYSTEM_ACCOUNT)
    if entry.pw_uid == 0:
        raise DatabaseRefused(f"the account {SYSTEM_ACCOUNT!r} is root under another name; PostgreSQL refuses root")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def can_reach(account: Account, directory: Path) -> bool:
    """Whether the account may search this resolved directory and all above it, by their permission bits."""
    if account.is_ours:
        return True
    for place in (directory, *directory.parents):
        status = place.stat()
        if status.st_uid == account.uid:
            search = status.st_mode & 0o100
        elif status.st_gid == account.gid:
            search = status.st_mode & 0o010
        else:
            search = status.st_mode & 0o001
        if not search:
            return False
    return True


def spawn(
    account: Account, command: Sequence[str | Path], *, directory: Path, output: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a program as the account in `directory`, both its streams to `output`, in a session of its own.

    A session of its own keeps the terminal's Ctrl-C from it: the server ends it after its last request. The working
    directory is entered before privileges are dropped, so the account need not reach the directories above.
    """
    return subprocess.Popen(
        command,
        cwd=directory,
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        user=None if account.is_ours else account.uid,
        group=None if account.is_ours else account.gid,
        extra_groups=None if account.is_ours else [],
    )


def make_private(directory: Path, account: Account) -> None:
    """Give an existing directory to the account, mode 0700. A symbolic link in its place raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(handle, 0o700)
        if not account.is_ours:
            os.fchown(handle, account.uid, account.gid)
    finally:
        os.close(handle)


def give_tree(directory: Path, account: Account) -> None:
    """Make the account own a directory and all in it; the directory itself last, so that a crash is seen."""
    for entry in directory.rglob("*"):
        os.chown(entry, account.uid, account.gid, follow_symlinks=False)
    make_private(directory, account)


@contextmanager
def seeing_as(account: Account) -> Iterator[None]:
    """In this thread only, look at files and at /proc as the account does.

    Root in a container usually lacks CAP_SYS_PTRACE and may not see another account's working directories in /proc;
    the account itself may. Changing the effective ids instead would reach every thread of a server that is serving.
    """
    if account.is_ours or sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None)
    own_uid, own_gid = os.geteuid(), os.getegid()
    libc.setfsgid(account.gid)  # first: the user id's change takes the right to do so away
    libc.setfsuid(account.uid)
    try:
        yield
    finally:
        libc.setfsuid(own_uid)
        libc.setfsgid(own_gid)
