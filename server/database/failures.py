"""What a driver's error means to a caller."""

from __future__ import annotations

import psycopg
import psycopg_pool
import sqlalchemy.exc

from server.errors import DatabaseUnavailable

RETRY_AFTER = 1  # seconds; an embedded database is back within about one


def unavailable(error: BaseException) -> DatabaseUnavailable | None:
    """Return the error to answer with when the database is down, full, starting or overloaded; else None.

    A lost connection leaves the outcome of a commit unknown: the caller retries with the same Idempotency-Key.
    """
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        error = error.orig or error
    if isinstance(error, psycopg_pool.PoolTimeout | sqlalchemy.exc.TimeoutError):
        return DatabaseUnavailable("no database connection became free in time; try again", retry_after=RETRY_AFTER)
    if isinstance(error, psycopg.errors.DiskFull):
        return DatabaseUnavailable("the database's disk is full; nothing was stored", retry_after=30)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | psycopg.errors.ReadOnlySqlTransaction):
        return DatabaseUnavailable("the database cannot be reached or is starting; try again", retry_after=RETRY_AFTER)
    return None
