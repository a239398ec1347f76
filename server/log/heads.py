"""How far conversations have come, asked by many at once in one round trip.

What a process holds in memory is compared with this on every read, so that it is never staler than the database. A
request that arrives while a look-up is in flight joins the next one, never that one: its answer is then at least as new
as the request itself, and so shows every append that was acknowledged, and no text whose erasure was, before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId
from server.database.round_trip import SETTING_TENANT, Statement, array, round_trip, uuid_array
from server.database.tenant import Tenant
from server.errors import NotFound
from server.log.read import STATE_COLUMNS, State

MAX_BATCH: Final = 256

# LIMIT makes it one look-up for each key. As a join it may be planned, while the tables are small and for as long as
# the connection lives, as a walk through all conversations of the tenant.
LOOKING_UP: Final = Statement(f"""
SELECT k.place, c.*
FROM unnest(%(keys)s::bigint[], %(ids)s::uuid[]) WITH ORDINALITY AS k(user_key, id, place)
CROSS JOIN LATERAL (
    SELECT {STATE_COLUMNS} FROM conversation c
    WHERE c.user_key = k.user_key AND c.id = k.id AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL LIMIT 1
) c
""")


@dataclass(eq=False, slots=True)
class _Request:
    tenant: Tenant
    conversation: ConversationId
    answer: asyncio.Future[State]


class Heads:
    """Looks up states for one process; ``lanes`` is how many look-ups may be in flight at once."""

    def __init__(self, database: Database, *, lanes: int = 2) -> None:
        self._database = database
        self._lanes = lanes
        self._waiting: deque[_Request] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(self, tenant: Tenant, conversation: ConversationId) -> State:
        """Return a conversation's state as of some moment after this call; raises NotFound, DatabaseUnavailable."""
        future: asyncio.Future[State] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(tenant, conversation, future))
        if len(self._tasks) < self._lanes:
            task = asyncio.create_task(self._run_lane())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _run_lane(self) -> None:
        while batch := self._take():
            try:
                await self._look_up(batch)
            except Exception as error:
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(error)

    def _take(self) -> list[_Request]:
        """Take the next batch: one tenant's requests, the oldest first."""
        batch: list[_Request] = []
        left: deque[_Request] = deque()
        while self._waiting and len(batch) < MAX_BATCH:
            request = self._waiting.popleft()
            if request.answer.done():  # its client has gone
                continue
            if batch and request.tenant.id != batch[0].tenant.id:
                left.append(request)
            else:
                batch.append(request)
        left.extend(self._waiting)
        self._waiting = left
        return batch

    async def _look_up(self, batch: list[_Request]) -> None:
        keys, ids = zip(*[request.conversation for request in batch], strict=True)
        values = {"tenant": batch[0].tenant.id, "keys": array(keys), "ids": uuid_array(ids)}
        async with hot_connection(self._database) as connection:
            rows = await round_trip(connection, [SETTING_TENANT(values), LOOKING_UP(values)])
        for place, *state in rows:
            answer = batch[place - 1].answer
            if not answer.done():
                answer.set_result(State(*state))
        for request in batch:
            if not request.answer.done():
                request.answer.set_exception(NotFound("no such conversation"))
