"""How far families have come, asked by many searches at once in one round trip.

As with ``server.log.heads``, a request never joins a look-up that is in flight, but the next one: what it is told is at
least as new as the request itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId, user_key
from server.database.round_trip import SETTING_TENANT, Statement, array, round_trip, text_array, uuid_array
from server.database.tenant import Tenant
from server.errors import NotFound
from server.search.family import EMBEDDED, STATE, Family, Stamp

MAX_BATCH: Final = 64

# A query of aggregates alone is run for each key, whatever the plan.
_OF: Final = f"""
CROSS JOIN LATERAL (
    SELECT {STATE} FROM conversation c
    WHERE c.user_key = k.user_key AND c.tenant_id = %(tenant)s AND c.user_id IS NOT DISTINCT FROM {{user}}
) s
CROSS JOIN LATERAL ({EMBEDDED.replace("%(user_key)s", "k.user_key")}) v
"""
_OF_USERS: Final = Statement(
    f"""
SELECT k.place, k.user_id, s.*, v.* FROM unnest(%(keys)s::bigint[], %(users)s::text[]) WITH ORDINALITY
    AS k(user_key, user_id, place) {_OF.format(user="k.user_id")}
""",
    binary=("users",),
)
_OF_CONVERSATIONS: Final = Statement(f"""
SELECT k.place, n.user_id, s.*, v.* FROM unnest(%(keys)s::bigint[], %(ids)s::uuid[]) WITH ORDINALITY
    AS k(user_key, id, place)
CROSS JOIN LATERAL (
    SELECT c.user_id FROM conversation c
    WHERE c.user_key = k.user_key AND c.id = k.id AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL LIMIT 1
) n {_OF.format(user="n.user_id")}
""")


@dataclass(eq=False, slots=True)
class _Request:
    """``id`` None: a user is asked for."""

    tenant: Tenant
    version: int
    user_key: int
    id: UUID | None
    user: str | None
    answer: asyncio.Future[tuple[Family, Stamp]]

    def goes_with(self, other: _Request) -> bool:
        """Whether one statement asks for both."""
        same = self.tenant.id == other.tenant.id and self.version == other.version
        return same and (self.id is None) == (other.id is None)


class Stamps:
    """Looks up the states of families for one process; ``lanes`` is how many look-ups may be in flight at once."""

    def __init__(self, database: Database, *, lanes: int = 2) -> None:
        self._database = database
        self._lanes = lanes
        self._waiting: deque[_Request] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def of_user(self, tenant: Tenant, user: str, version: int) -> tuple[Family, Stamp]:
        """Return a user's family and its state; one that nobody knows has no conversations.

        Raises DatabaseUnavailable.
        """
        return await self._ask(tenant, version, user_key(tenant.salt, "user", user), None, user)

    async def of_conversation(self, tenant: Tenant, at: ConversationId, version: int) -> tuple[Family, Stamp]:
        """Return the family that a conversation belongs to; raises NotFound and DatabaseUnavailable."""
        return await self._ask(tenant, version, at.user_key, at.uuid, None)

    async def _ask(
        self, tenant: Tenant, version: int, key: int, at: UUID | None, user: str | None
    ) -> tuple[Family, Stamp]:
        answer: asyncio.Future[tuple[Family, Stamp]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(tenant, version, key, at, user, answer))
        if len(self._tasks) < self._lanes:
            task = asyncio.create_task(self._run_lane())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await answer

    async def _run_lane(self) -> None:
        while batch := self._take():
            try:
                await self._look_up(batch)
            except Exception as error:
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(error)

    def _take(self) -> list[_Request]:
        """Take the next batch: requests that go with the oldest."""
        batch: list[_Request] = []
        left: deque[_Request] = deque()
        for request in self._waiting:
            if request.answer.done():  # its client has gone
                continue
            if len(batch) < MAX_BATCH and (not batch or request.goes_with(batch[0])):
                batch.append(request)
            else:
                left.append(request)
        self._waiting = left
        return batch

    async def _look_up(self, batch: list[_Request]) -> None:
        tenant = batch[0].tenant.id
        values = {
            "tenant": tenant,
            "version": batch[0].version,
            "keys": array(request.user_key for request in batch),
        }
        if batch[0].id is None:
            values["users"] = text_array([str(request.user).encode() for request in batch])
            call = _OF_USERS(values)
        else:
            values["ids"] = uuid_array(request.id for request in batch if request.id is not None)
            call = _OF_CONVERSATIONS(values)
        async with hot_connection(self._database) as connection:
            rows = await round_trip(connection, [SETTING_TENANT(values), call])
        for place, user, *stamp in rows:
            request = batch[place - 1]
            if not request.answer.done():
                request.answer.set_result((Family(tenant, request.user_key, user), Stamp(*stamp)))
        for request in batch:
            if not request.answer.done():
                request.answer.set_exception(NotFound("no such conversation"))
