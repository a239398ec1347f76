"""Checkpoints for conversations that nobody reads, so that a first read never folds more than a little.

What grows is noted as it is appended, in memory only. Notes die with their process, so every conversation is looked
at now and then. Two servers that do the same work write the same rows; a lock in the database saves them that.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import psycopg

from server.context import checkpoints
from server.context.checkpoints import EVERY_EVENTS, Made
from server.context.folding import Folding, Outpaced
from server.context.reading import Reader
from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId, keyed_hash
from server.database.round_trip import SETTING_TENANT, Statement, round_trip
from server.database.tenant import Tenant
from server.errors import DatabaseUnavailable, NotFound
from server.log import retention
from server.log.append import Committed
from server.log.read import read_state
from server.operations import metrics
from server.working_set import tokens
from server.working_set.fold import Fold

logger = logging.getLogger(__name__)

SWEEP: Final = 3600.0  # seconds between two looks at every conversation
BEHIND: Final = 2 * EVERY_EVENTS  # events beyond the newest checkpoint, for a sweep to care
_GROWN_BYTES: Final = 4 * checkpoints.EVERY_TOKENS
_NOTED: Final = 20_000  # conversations; the one that was noted first is forgotten first
_PAGE: Final = 500
_RETRY: Final = 5.0  # seconds
# A fold holds the interpreter, and requests come first: a twentieth of the time while requests are answered, else half.
_BUSY, _IDLE = 19.0, 1.0

_BEHIND: Final = Statement("""
SELECT c.user_key, c.id FROM conversation c
LEFT JOIN LATERAL (
    SELECT k.head FROM checkpoint k WHERE k.user_key = c.user_key AND k.conversation = c.id
      AND k.tenant_id = %(tenant)s AND k.floor = c.floor ORDER BY k.head DESC LIMIT 1
) newest ON true
WHERE c.tenant_id = %(tenant)s AND c.id > %(after)s::uuid AND c.deleted_at IS NULL AND c.epoch >= 0
  AND c.head - c.floor > %(behind)s::bigint AND c.head - greatest(newest.head, c.floor) > %(behind)s::bigint
ORDER BY c.id LIMIT %(page)s
""")

Key = tuple[int, ConversationId]


class Keeper:
    """Folds on what has grown; one for each process."""

    def __init__(self, database: Database, executor: Executor, *, sweep: float = SWEEP) -> None:
        self._database = database
        self._executor = executor
        self._sweep = sweep
        self._noted: OrderedDict[Key, list[int]] = OrderedDict()  # events and bytes since the last checkpoint, about
        self._due: OrderedDict[Key, Tenant] = OrderedDict()
        self._woken = asyncio.Event()

    def grown(self, committed: Committed) -> None:
        """Note that a conversation has grown."""
        key = (committed.tenant.id, committed.conversation)
        noted = self._noted.get(key)
        if noted is None:
            noted = self._noted[key] = [0, 0]
            if len(self._noted) > _NOTED:
                self._noted.popitem(last=False)
        noted[0] += len(committed.events)
        noted[1] += sum(event.size for event in committed.events)
        if noted[0] >= EVERY_EVENTS or noted[1] >= _GROWN_BYTES:
            del self._noted[key]
            self._demand(committed.tenant, committed.conversation)

    async def run(self) -> None:
        """Keep checkpoints until cancelled."""
        # Loading the tokenizer takes a tenth of a second, which the first read need not wait for.
        await asyncio.get_running_loop().run_in_executor(self._executor, tokens.count, [""])
        sweeping = asyncio.create_task(self._sweep_forever(), name="sweep")
        try:
            while True:
                await self._woken.wait()
                while self._due:
                    (_, conversation), tenant = self._due.popitem(last=False)
                    await self._keep(tenant, conversation)
                self._woken.clear()
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)

    async def sweep(self) -> int:
        """Look at every conversation of every tenant; returns how many are far beyond their newest checkpoint."""
        found = 0
        for tenant in await retention.tenants(self._database):
            after = UUID(int=0)
            while True:
                values = {"tenant": tenant.id, "after": after, "behind": BEHIND, "page": _PAGE}
                async with hot_connection(self._database) as connection:
                    rows = await round_trip(connection, [SETTING_TENANT(values), _BEHIND(values)])
                for user_key, uuid in rows:
                    self._demand(tenant, ConversationId(user_key, uuid))
                    after = uuid
                found += len(rows)
                if len(rows) < _PAGE:
                    break
        return found

    def _demand(self, tenant: Tenant, conversation: ConversationId) -> None:
        if len(self._due) < _NOTED:  # the next sweep finds the others
            self._due[tenant.id, conversation] = tenant
            self._woken.set()

    async def _sweep_forever(self) -> None:
        while True:
            try:
                await self.sweep()
                wait = self._sweep
            except DatabaseUnavailable:
                wait = _RETRY
            except Exception:
                logger.exception("the look at every conversation failed; the next one is in %.0f s", self._sweep)
                wait = self._sweep
            # Spread out, so that servers that started together do not all look at once.
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311

    async def _keep(self, tenant: Tenant, conversation: ConversationId) -> None:
        try:
            async with self._claim(tenant, conversation) as mine:
                if mine:
                    await self.keep(tenant, conversation)
        except (NotFound, Outpaced):
            pass  # gone; or changed, and then it will be read or looked at again
        except (DatabaseUnavailable, psycopg.Error) as error:
            logger.info("checkpoints of %s were not kept: %s", conversation, str(error).strip())
            await asyncio.sleep(_RETRY)
        except Exception:
            logger.exception("checkpoints of %s were not kept", conversation)

    async def keep(self, tenant: Tenant, conversation: ConversationId) -> None:
        """Fold a conversation on from its newest checkpoint, storing those on the way; raises NotFound, Outpaced."""
        state = await read_state(self._database, tenant, conversation)
        reader = await Reader.open(self._database, tenant, conversation)
        fold = await checkpoints.nearest(reader, state.floor, state.head)
        writer = checkpoints.Writer(self._database)

        def made(checkpoint: Made) -> None:
            writer.write(tenant, conversation, state, checkpoint)

        folding = Folding(
            reader,
            fold or Fold(start=state.floor),
            executor=self._executor,
            made=made,
            pace=self._pace,
            keep_events=False,
        )
        try:
            await folding.advance(state)
        finally:
            await writer.drain()

    async def _pace(self, worked: float) -> None:
        await asyncio.sleep(worked * (_BUSY if metrics.is_busy() else _IDLE))

    @asynccontextmanager
    async def _claim(self, tenant: Tenant, conversation: ConversationId) -> AsyncIterator[bool]:
        """Hold the right to fold a conversation for all servers; says whether it is free."""
        number = int.from_bytes(keyed_hash(tenant.salt, "keeper", str(conversation))[:8], signed=True)
        conninfo = self._database.address.conninfo("turnstone_runtime")
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
            row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (number,))).fetchone()
            yield bool(row and row[0])  # closing the connection lets go of it
