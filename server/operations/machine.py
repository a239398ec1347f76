"""What ``turnstone doctor`` looks at outside the database: the data directory, its disk, the admin key's file."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

from server.operations.checks import Finding, fail, ok, warn

_MIB = 1024 * 1024
_FREE_WARN, _FREE_FAIL = 5 * 1024, 512  # MiB; the log of a busy database alone takes two GiB


def directory(data_dir: Path) -> Finding:
    """Say whether the data directory is there and private."""
    try:
        mode = stat.S_IMODE(data_dir.stat().st_mode)
    except FileNotFoundError:
        return warn("directory", f"{data_dir} does not exist", "turnstone serve makes it")
    except OSError as error:
        return fail("directory", f"{data_dir}: {error.strerror}", "run this as the account that runs Turnstone")
    if mode & 0o022:
        return warn("directory", f"{data_dir} has mode {mode:04o}: others may write in it", f"chmod 700 {data_dir}")
    return ok("directory", f"{data_dir}, mode {mode:04o}")


def disk(data_dir: Path) -> Finding:
    """Say how much room the data directory's disk has."""
    place = next(parent for parent in (data_dir, *data_dir.parents) if parent.exists())
    usage = shutil.disk_usage(place)
    free = usage.free // _MIB
    detail = f"{free / 1024:.1f} GiB free of {usage.total / _MIB / 1024:.1f} at {place}"
    advice = "free some, or move the data directory: when it is full, appends are refused with 503"
    if free < _FREE_FAIL:
        return fail("disk", detail, advice)
    return warn("disk", detail, advice) if free < _FREE_WARN else ok("disk", detail)


def key_file(path: Path) -> Finding:
    """Say whether the admin key's file is there and readable by its owner only."""
    try:
        mode = stat.S_IMODE(path.lstat().st_mode)
    except FileNotFoundError:
        return warn("admin key", f"{path} does not exist", "the next turnstone serve makes one; or use TURNSTONE_KEY")
    except OSError as error:
        return fail("admin key", f"{path}: {error.strerror}", "run this as the account that runs Turnstone")
    if mode & 0o077:
        return fail(
            "admin key", f"{path} has mode {mode:04o}: others may read it", f"chmod 600 {path}; then revoke that key"
        )
    return ok("admin key", f"{path}, mode {mode:04o}")
