"""The server's configuration files.

`turnstone.conf`, `pg_hba.conf` and `pg_ident.conf` are Turnstone's and are rewritten at each start, so that an upgrade
takes effect. An operator's own settings go into `<data_dir>/postgres.conf` (copied into the cluster at each start,
since the database's account may not be able to read it there) or at the end of `postgresql.conf`; both win over ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from server.database.embedded.account import Account
from server.database.embedded.binaries import built_with
from server.errors import DatabaseRefused

_SETTINGS: tuple[tuple[str, str, str], ...] = (
    ("fsync", "on", "an acknowledged event survives a power cut"),
    ("synchronous_commit", "on", ""),
    ("full_page_writes", "on", ""),
    ("wal_level", "replica", "online physical backups"),
    ("max_connections", "100", ""),
    ("shared_buffers", "128MB", ""),
    ("max_wal_size", "2GB", "rarer checkpoints: each makes the next change of every page log the page whole"),
    ("checkpoint_timeout", "15min", ""),
    ("checkpoint_completion_target", "0.9", ""),
    ("random_page_cost", "1.1", "SSDs; the default of 4 prefers sequential scans where an index is faster"),
    ("jit", "off", "the queries are short: compiling them costs more than it saves"),
    ("autovacuum", "on", "what is erased leaves the heap at the next vacuum"),
    ("timezone", "UTC", ""),
    ("log_timezone", "UTC", ""),
    ("lc_messages", "C", ""),
    ("idle_in_transaction_session_timeout", "60s", "a stuck client must not hold row locks and stop vacuum"),
    ("log_destination", "stderr", "Turnstone bounds the file; the collector never bounds by size"),
    ("logging_collector", "off", ""),
    ("log_line_prefix", "%m [%p] ", ""),
    ("log_min_duration_statement", "-1", ""),
    ("log_error_verbosity", "terse", "DETAIL lines quote rows, and erased text must not live on in a log"),
    ("log_min_error_statement", "panic", "so do statements"),
    ("cluster_name", "turnstone", "shown in ps"),
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_INCLUDES = """
include 'turnstone.conf'   # Turnstone's settings, rewritten at each start
include 'operator.conf'    # a copy of <data directory>/postgres.conf, if that exists
# Settings below this line win over both.
"""
# The socket is the only way in, and the kernel says who is at its other end.
_HBA = """\
# Written by Turnstone at each start.
local all         all peer map=turnstone
local replication all peer map=turnstone
"""


def write_configuration(
    cluster: Path, *, account: Account, operator: Path, settings: Mapping[str, str], client: str
) -> None:
    """Write all configuration files into the cluster's directory.

    `operator` is the file with the operator's own settings (may be missing), `client` the account that Turnstone
    itself runs as, the only one let in. Raises DatabaseRefused for an unusable setting, OSError.
    """
    _write(cluster, "turnstone.conf", turnstone_conf(settings), account)
    own = _read(operator) if operator.exists() else ""
    _write(cluster, "operator.conf", f"# Copied from {str(operator)!r} at each start; edit it there.\n{own}\n", account)
    _write(cluster, "pg_hba.conf", _HBA, account)
    _write(cluster, "pg_ident.conf", _ident(client), account)
    main = _read(cluster / "postgresql.conf")
    if "include 'turnstone.conf'" not in main:
        _write(cluster, "postgresql.conf", main + _INCLUDES, account)
    synchronize(cluster)


def turnstone_conf(settings: Mapping[str, str]) -> str:
    """The text of turnstone.conf; `settings` come last and win."""
    lines = ["# Written by Turnstone at each start; your own settings go into postgres.conf in the data directory."]
    for name, value, reason in _SETTINGS:
        lines.append(_line(name, value) + (f"  # {reason}" if reason else ""))
    if built_with("--with-lz4"):
        lines.append(_line("wal_compression", "lz4") + "  # pglz, the other choice, costs more time than it saves")
    lines += [_line(name, value) for name, value in settings.items()]
    return "\n".join(lines) + "\n"


def _line(name: str, value: str) -> str:
    if not _NAME.fullmatch(name) or "\n" in value or "\0" in value:
        raise DatabaseRefused(f"not a PostgreSQL setting: {name!r} = {value!r}")
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"{name} = '{escaped}'"


def _ident(client: str) -> str:
    name = client.replace('"', '""')
    return f'# Written by Turnstone at each start.\nturnstone "{name}" "/^(postgres|turnstone_[a-z]+)$"\n'


def _read(file: Path) -> str:
    """Read a file that is not a link: root must not copy out what another account's link points at."""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), encoding="utf-8") as opened:
        return opened.read()


def _write(directory: Path, name: str, text: str, account: Account) -> None:
    """Replace a file as a whole: a crash leaves the old or the new one, and a link in its place is not followed."""
    part = directory / f".{name}.part"
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        if not account.is_ours:
            os.fchown(file.fileno(), account.uid, account.gid)
        os.fsync(file.fileno())
    part.replace(directory / name)


def synchronize(directory: Path) -> None:
    """Make renames in a directory durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
