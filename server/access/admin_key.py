"""The admin key of the operator's tenant, kept in the data directory for the command line of this machine."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from server.access.key_format import digest


def path(data_dir: Path) -> Path:
    """Return where the key is kept."""
    return data_dir / "admin-key"


def read(data_dir: Path) -> str | None:
    """Return the key that is kept, or None when there is none or it is not one; raises OSError as ``open`` does."""
    try:
        text = path(data_dir).read_text("ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if digest(text) else None


def write(data_dir: Path, secret: str) -> None:
    """Keep a key, readable by its owner only; after a crash the file is the old one or the new one, whole."""
    temporary = data_dir / f".admin-key.{secrets.token_hex(8)}"
    # Mode 0600 from the first instant: a chmod afterwards would leave a moment to open it.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path(data_dir))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        directory = os.open(data_dir, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
