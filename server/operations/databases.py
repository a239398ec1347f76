"""The database that a command works on: the external one, a running embedded one, or one started for the while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.database.address import Address, EmbeddedAddress, ExternalAddress
from server.database.embedded import EmbeddedPostgres, attach
from server.errors import Conflict


def running(data_dir: Path, database_url: str | None) -> Address | None:
    """Return the address of the database, or None when it is the embedded one and does not run."""
    if database_url is not None:
        return ExternalAddress(database_url)
    postgres = attach(data_dir)
    return EmbeddedAddress(postgres.conninfo) if postgres is not None else None


@contextmanager
def database(
    data_dir: Path, database_url: str | None, *, alone: bool = False, create: bool = False
) -> Iterator[Address]:
    """Yield the address of a database that runs, starting the embedded one for as long as the block runs if need be.

    ``alone`` refuses with Conflict an embedded one that a server runs; without ``create`` a data directory that holds
    no database is refused, too.
    """
    found = running(data_dir, database_url)
    if found is not None and not (alone and database_url is None):
        yield found
        return
    if found is not None:
        raise Conflict(f"a server runs on {data_dir}; stop it first (Ctrl-C, or SIGTERM)")
    if not create and not (data_dir / "postgres").is_dir():
        raise Conflict(f"{data_dir} holds no database; name another with --data-dir or TURNSTONE_DATA_DIR")
    postgres = EmbeddedPostgres(data_dir)
    postgres.start()
    try:
        yield EmbeddedAddress(postgres.conninfo)
    finally:
        postgres.stop()
