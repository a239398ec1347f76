"""Connections by role, and the transactions that name their tenant.

Two ways in: ``transaction`` gives a SQLAlchemy connection, for the statements that are composed; ``hot`` is a bare
psycopg pool, for the few statements that run on every append and read, where SQLAlchemy's share would be most of the
time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final

import psycopg
import psycopg_pool
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from server.database.address import Address
from server.database.failures import unavailable
from server.database.round_trip import HotConnection
from server.database.tenant import Tenant

_SET = text(
    "SELECT set_config('turnstone.tenant', :tenant, true), set_config('turnstone.operator', :operator, true), "
    "set_config('turnstone.key_digest', :digest, true)"
)
SET_TENANT = "SELECT set_config('turnstone.tenant', %s, true)"

# Every hot statement looks rows up by key. A plan cached while a table was small would scan it for as long as the
# connection lives, so the plans that scan whole tables are not on offer there.
_HOT_OPTIONS = (
    "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c plan_cache_mode=force_generic_plan"
)
_TIMEZONE = "-c timezone=UTC"

# To borrow from the pool and to give back takes as long as a short statement, so a few connections stay at hand.
_AT_HAND: Final = 4
_AT_HAND_SECONDS: Final = 1.0  # then the pool has it again: for who asks there, and to end connections by their age


class Database:
    """The database as the server sees it: one pool for each role in use."""

    def __init__(self, address: Address, *, pool_size: int = 10) -> None:
        self.address = address
        self._engines: dict[str, AsyncEngine] = {}
        self._checking: asyncio.Task[None] | None = None
        self.hot = psycopg_pool.AsyncConnectionPool(
            address.conninfo("turnstone_runtime"),
            connection_class=HotConnection,
            # psycopg prepares nothing itself: after a ROLLBACK it would DEALLOCATE ALL, our statements with its own.
            kwargs={"autocommit": True, "prepare_threshold": None, "options": _options(address, _HOT_OPTIONS)},
            min_size=2,
            max_size=pool_size,
            timeout=5,
            max_lifetime=3600,
            name="hot",
            open=False,
        )
        self._at_hand: list[tuple[HotConnection, float]] = []  # with when to give it back
        self._most_at_hand = min(_AT_HAND, pool_size - 1)  # who asks the pool itself must find one there
        self._asking = 0
        self._closed = False

    async def open(self) -> None:
        """Start the pools; the database need not be up yet."""
        await self.hot.open()

    async def close(self) -> None:
        """Close every connection; those in use when they are given back."""
        self._closed = True
        await self._give_back()
        await self.hot.close()
        for engine in self._engines.values():
            await engine.dispose()

    @asynccontextmanager
    async def transaction(
        self,
        tenant: Tenant | int | None,
        *,
        role: str = "turnstone_runtime",
        operator: bool = False,
        key_digest: bytes = b"",
        repeatable_read: bool = False,
    ) -> AsyncIterator[AsyncConnection]:
        """Run a transaction as ``role`` that sees only ``tenant``'s rows, committed when the block ends.

        ``operator`` opens the tenants and keys of all tenants; ``key_digest`` the one key with that digest. Raises
        DatabaseUnavailable when the database is down, full or overloaded.
        """
        number = tenant.id if isinstance(tenant, Tenant) else tenant
        values = {
            "tenant": "" if number is None else str(number),
            "operator": "on" if operator else "off",
            "digest": key_digest.hex(),
        }
        try:
            async with self._engine(role).connect() as connection:
                if repeatable_read:
                    await connection.execution_options(isolation_level="REPEATABLE READ")
                async with connection.begin():
                    await connection.execute(_SET, values)
                    yield connection
        except Exception as error:
            if answer := unavailable(error):
                raise answer from error
            raise

    async def connect(self, role: str, *, options: str = "") -> HotConnection:
        """Open a bare connection of one's own, as a role; the caller closes it. Raises DatabaseUnavailable.

        ``options`` are further ones, as of libpq.
        """
        try:
            return await HotConnection.connect(
                self.address.conninfo(role),
                autocommit=True,
                prepare_threshold=None,
                options=_options(self.address, f"{_HOT_OPTIONS} {options}", role),
            )
        except psycopg.Error as error:
            if answer := unavailable(error):
                raise answer from error
            raise

    def suspect(self) -> None:
        """Look at every idle connection, since one has just failed: after a crash all are dead, one failure each."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check(), name="check connections")
            self._checking.add_done_callback(lambda done: done.cancelled() or done.exception())

    @property
    def at_hand(self) -> int:
        """How many bare connections are free without being in the pool."""
        return len(self._at_hand)

    async def _check(self) -> None:
        await self._give_back()
        await self.hot.check()

    async def _give_back(self) -> None:
        while self._at_hand:
            await self.hot.putconn(self._at_hand.pop()[0])

    async def borrow(self) -> tuple[HotConnection, float]:
        """Return a bare connection, and until when it may stay at hand."""
        if self._at_hand:
            return self._at_hand.pop()
        self._asking += 1
        try:
            return await self.hot.getconn(), time.monotonic() + _AT_HAND_SECONDS
        finally:
            self._asking -= 1

    async def give_back(self, connection: HotConnection, until: float) -> None:
        """Keep a connection that works at hand, unless somebody waits for the pool; else give it back."""
        idle = connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
        wanted = not self._asking and not self._closed
        if idle and wanted and len(self._at_hand) < self._most_at_hand and time.monotonic() < until:
            self._at_hand.append((connection, until))
        else:
            await self.hot.putconn(connection)

    def _engine(self, role: str) -> AsyncEngine:
        if role not in self._engines:
            conninfo = self.address.conninfo(role)
            options = _options(self.address, "", role)

            async def connect() -> psycopg.AsyncConnection:
                return await psycopg.AsyncConnection.connect(conninfo, options=options)

            self._engines[role] = create_async_engine(
                "postgresql+psycopg://",
                async_creator=connect,
                pool_size=4,
                max_overflow=4,
                pool_timeout=5,
                pool_pre_ping=True,
                hide_parameters=True,  # an error's text goes to the log, and what users wrote must not
            )
        return self._engines[role]


def _options(address: Address, extra: str, role: str = "turnstone_runtime") -> str:
    """Return the ``options`` of a connection: the address's own (which name the role) and ours."""
    given = psycopg.conninfo.conninfo_to_dict(address.conninfo(role)).get("options") or ""
    return f"{given} {_TIMEZONE} {extra}".strip()


class hot_connection:  # noqa: N801 - used as a function is: ``async with hot_connection(database) as connection``
    """Borrow a bare connection; raises DatabaseUnavailable when there is none or it breaks."""

    __slots__ = ("_connection", "_database", "_until")

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __aenter__(self) -> HotConnection:
        try:
            self._connection, self._until = await self._database.borrow()
        except Exception as error:
            self._translate(error)
            raise
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._database.give_back(self._connection, self._until if error is None else 0)
        if error is not None:
            self._translate(error)

    def _translate(self, error: BaseException) -> None:
        if answer := unavailable(error):
            self._database.suspect()
            raise answer from error


async def driver_connection(connection: AsyncConnection) -> psycopg.AsyncConnection:
    """Return the bare connection of a transaction, for a hot statement that belongs in it."""
    bare = (await connection.get_raw_connection()).driver_connection
    assert isinstance(bare, psycopg.AsyncConnection)
    return bare
