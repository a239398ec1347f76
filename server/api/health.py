"""``/healthz``, ``/readyz`` and ``/metrics``, for orchestrators and Prometheus; none needs a key or names a tenant."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from typing import Annotated

import msgspec
import psycopg
from litestar import Response, get

from server.api.documentation import Answer, document
from server.api.edge import Call, reply, services
from server.database.connections import Database
from server.database.failures import unavailable
from server.database.upgrade import newest_revision
from server.errors import DatabaseUnavailable
from server.operations import metrics

_ANSWERS_FOR = 0.5  # seconds; needing no key, it must not be a way to keep the database busy
_PATIENCE = 2.0  # seconds
_TAG = "Operations"
_FRESH = {"cache-control": "no-store"}


class Health(msgspec.Struct, frozen=True):
    """That the server works."""

    status: Annotated[str, msgspec.Meta(description="Always `ok`; anything else is an error.", examples=["ok"])] = "ok"


@get(
    "/healthz",
    sync_to_thread=False,
    **document(
        summary="Is the process alive?",
        tag=_TAG,
        description="Answers as long as the process does, whatever the state of the database.",
        responses={200: Health},
        public=True,
    ),
)
def healthz() -> Response[bytes]:
    """Answer as long as the process does, whatever the state of the database."""
    return reply(_OK, headers=_FRESH)


@get(
    "/readyz",
    **document(
        summary="Can it serve requests?",
        tag=_TAG,
        description="200 when the database answers and holds this release's schema; else, and while stopping, 503.",
        responses={200: Health},
        errors=[DatabaseUnavailable],
        public=True,
    ),
)
async def readyz(request: Call) -> Response[bytes]:
    """Answer 200 when the database answers and holds this release's schema; 503 otherwise, and while stopping."""
    if request.app.state.stopping.is_set():
        raise DatabaseUnavailable("the server is stopping; ask another", retry_after=1)
    await _readiness(request).check()
    return reply(_OK, headers=_FRESH)


@get(
    "/metrics",
    sync_to_thread=False,
    **document(
        summary="Figures for Prometheus",
        tag=_TAG,
        description="Request times by route, appends, streams, connections and memory; no tenant is named.",
        responses={200: Answer(media_type="text/plain", description="Figures in Prometheus' text format.")},
        public=True,
    ),
)
def get_metrics(request: Call) -> Response[bytes]:
    """Answer with request times by route, appends, streams, connections, memory; no tenant is named."""
    several = services(request).settings.workers > 1
    return Response(metrics.exposition(several_processes=several), media_type=metrics.CONTENT_TYPE)


_OK = Health()


class _Readiness:
    """Asks the database at most once in a while, however many ask."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = asyncio.Lock()
        self._until = 0.0
        self._problem: DatabaseUnavailable | None = None

    async def check(self) -> None:
        """Raise DatabaseUnavailable unless the database is ready."""
        async with self._lock:
            if time.monotonic() > self._until:
                self._problem = await self._ask()
                self._until = time.monotonic() + _ANSWERS_FOR
        if self._problem is not None:
            raise DatabaseUnavailable(self._problem.message, retry_after=self._problem.retry_after)

    async def _ask(self) -> DatabaseUnavailable | None:
        try:
            async with asyncio.timeout(_PATIENCE):
                try:
                    found = await self._revision()
                except psycopg.OperationalError:
                    # An idle connection that broke says nothing about now: drop all that did, and ask on a new one.
                    await self._database.hot.check()
                    found = await self._revision()
        except TimeoutError:
            return DatabaseUnavailable("the database does not answer in time", retry_after=1)
        except psycopg.errors.UndefinedTable:
            found = "none"
        except Exception as error:
            if answer := unavailable(error):
                return answer
            raise
        if found == _newest():
            return None
        return DatabaseUnavailable(
            f"the schema is at revision {found}, and this release needs {_newest()}; run turnstone migrate, or wait "
            "for the upgrade that another server runs",
            retry_after=5,
        )

    async def _revision(self) -> str:
        async with self._database.hot.connection(_PATIENCE) as connection:
            cursor = await connection.execute("SELECT version_num FROM alembic_version")
            row = await cursor.fetchone()
        return str(row[0]) if row else "none"


_newest = cache(newest_revision)


def _readiness(request: Call) -> _Readiness:
    state = request.app.state
    if "readiness" not in state:
        state.readiness = _Readiness(services(request).database)
    found: _Readiness = state.readiness
    return found


HANDLERS = [healthz, readyz, get_metrics]
