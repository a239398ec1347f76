"""Several prepared statements in one round trip and one transaction, as cheaply as libpq allows.

psycopg's own pipeline flushes after every statement: a system call, and a wake of the database's process, for each.
Here all are written at once and the answers are awaited once. There is no BEGIN: in libpq's pipeline mode everything up
to the sync is one transaction, which has committed when the sync is answered, and has rolled back if anything failed.
Inside a transaction that was begun before, it is a part of that.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.generators import execute as execute_gen
from psycopg.generators import fetch_many, send

from server.errors import DatabaseUnavailable

_numbers = count(1)
_PARAMETER: Final = re.compile(r"%\((\w+)\)s")
_STALE: Final = ("0A000", "26000")  # the tables changed under a plan; a statement that is not (any more) prepared
_SYNC: Final = pq.ExecStatus.PIPELINE_SYNC
_FAILED: Final = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE)


class HotConnection(psycopg.AsyncConnection[Any]):
    """A connection that remembers which statements it has prepared."""

    def __init__(self, pgconn: pq.abc.PGconn, *args: Any, **kwargs: Any) -> None:
        super().__init__(pgconn, *args, **kwargs)
        self.prepared: set[bytes] = set()
        self.loader = Transformer(self)


class Statement:
    """SQL whose parameters are named as in psycopg, ``%(name)s``; the SQL must show the type of each.

    The parameters named in ``binary`` come as ``bytes`` in PostgreSQL's binary form, and with ``binary_rows`` so do the
    rows, which spares both sides the digits of large numbers of numbers.
    """

    def __init__(self, text: str, *, binary: Collection[str] = (), binary_rows: bool = False) -> None:
        self._names = list(dict.fromkeys(_PARAMETER.findall(text)))
        numbers = {name: f"${number}" for number, name in enumerate(self._names, 1)}
        self.text: Final = _PARAMETER.sub(lambda match: numbers[match[1]], text).encode()
        self.name: Final = b"turnstone_%d" % next(_numbers)
        self.formats: Final = [int(name in binary) for name in self._names] if binary else None
        self.row_format: Final = int(binary_rows)

    def __call__(self, values: Mapping[str, object]) -> Call:
        """Bind values, of which there may be more than are needed; ``bytes`` are PostgreSQL's text form already."""
        return self, [_text(values[name]) for name in self._names]


Call = tuple[Statement, list[bytes | None]]


SETTING_TENANT: Final = Statement("SELECT set_config('turnstone.tenant', %(tenant)s, true)")


def _text(value: object) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return str(value).encode()


def array(values: Iterable[object]) -> bytes:
    """Return an array of numbers or UUIDs in PostgreSQL's text form."""
    return b"{%b}" % ",".join(map(str, values)).encode()


def uuid_array(values: Iterable[UUID]) -> bytes:
    """Return an array of UUIDs in PostgreSQL's text form, a fifth of the time that ``array`` takes for them."""
    return b"{%b}" % ",".join([f"{value.int:032x}" for value in values]).encode()


_TEXT_OID: Final = 25
_BYTEA_OID: Final = 17
_length = struct.Struct(">i").pack
_array_head = struct.Struct(">iiiii").pack
_NULL: Final = _length(-1)


def text_array(values: Sequence[bytes | None]) -> bytes | None:
    """Return an array of texts (as UTF-8) in PostgreSQL's binary form, or NULL when all of them are."""
    return _binary_array(values, _TEXT_OID)


def bytea_array(values: Sequence[bytes | None]) -> bytes | None:
    """Return an array of bytea in PostgreSQL's binary form, or NULL when all of them are."""
    return _binary_array(values, _BYTEA_OID)


def _binary_array(values: Sequence[bytes | None], oid: int) -> bytes | None:
    # In text form each value would be quoted here and unquoted there.
    nulls = values.count(None)
    if nulls == len(values):
        return None
    parts = [_array_head(1, nulls > 0, oid, len(values), 1)]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts.append(_length(len(value)))
            parts.append(value)
    return b"".join(parts)


async def round_trip(connection: HotConnection, calls: Sequence[Call]) -> list[tuple[Any, ...]]:
    """Run statements as one transaction and return the rows of the last one, once all is durable.

    Raises psycopg.Error: then nothing was stored, unless the connection broke, which leaves that unknown.
    """
    pgconn = connection.pgconn
    prepared = connection.prepared
    try:
        pgconn.enter_pipeline_mode()
        new = set()
        for statement, parameters in calls:
            if statement.name not in prepared and statement.name not in new:
                pgconn.send_prepare(statement.name, statement.text)
                new.add(statement.name)
            pgconn.send_query_prepared(statement.name, parameters, statement.formats, statement.row_format)
        pgconn.pipeline_sync()
        results = await connection.wait(_results(pgconn))
        pgconn.exit_pipeline_mode()
    except BaseException:
        # Whatever is still under way must not meet the next borrower.
        await connection.close()
        raise
    for result in results:
        if result.status in _FAILED:
            error = error_from_result(result, encoding="utf-8")
            if error.sqlstate in _STALE or new:
                await connection.close()  # the pool replaces it with one that plans anew
            if error.sqlstate in _STALE:
                raise DatabaseUnavailable("the database's tables have changed; try again", retry_after=1) from error
            raise error
    prepared |= new
    connection.loader.set_pgresult(results[-1])
    return connection.loader.load_rows(0, results[-1].ntuples, tuple)


async def execute(connection: psycopg.AsyncConnection[Any], call: Call) -> None:
    """Run one statement in the transaction that a plain connection is in; raises psycopg.Error."""
    statement, parameters = call
    connection.pgconn.send_query_params(statement.text, parameters, param_formats=statement.formats)
    for result in await connection.wait(execute_gen(connection.pgconn)):
        if result.status in _FAILED:
            raise error_from_result(result, encoding="utf-8")


def _results(pgconn: pq.abc.PGconn) -> PQGen[list[pq.abc.PGresult]]:
    yield from send(pgconn)
    results: list[pq.abc.PGresult] = []
    while True:
        fetched = yield from fetch_many(pgconn)
        if not fetched:
            raise psycopg.OperationalError("the connection ended before the transaction was answered")
        for result in fetched:
            if result.status == _SYNC:
                return results
            results.append(result)
