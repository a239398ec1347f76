"""How far conversations have come, asked by many at once in one round trip.

What a process holds in memory is compared with this on every read, so that it is never staler than the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId
from server.database.lookups import Lookups
from server.database.round_trip import SETTING_TENANT, Statement, array, round_trip, uuid_array
from server.database.tenant import Tenant
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


class Heads:
    """Looks up states for one process; ``lanes`` is how many look-ups may be in flight at once."""

    def __init__(self, database: Database, *, lanes: int = 2) -> None:
        self._database = database
        self._lookups: Lookups[int, ConversationId, State] = Lookups(self._look_up, at_once=MAX_BATCH, lanes=lanes)

    async def read(self, tenant: Tenant, conversation: ConversationId) -> State:
        """Return a conversation's state as of some moment after this call; raises NotFound, DatabaseUnavailable."""
        return await self._lookups.ask(tenant.id, conversation)

    async def _look_up(self, tenant: int, conversations: Sequence[ConversationId]) -> list[State | None]:
        keys, ids = zip(*conversations, strict=True)
        values = {"tenant": tenant, "keys": array(keys), "ids": uuid_array(ids)}
        async with hot_connection(self._database) as connection:
            rows = await round_trip(connection, [SETTING_TENANT(values), LOOKING_UP(values)])
        found: list[State | None] = [None] * len(conversations)
        for place, *state in rows:
            found[place - 1] = State(*state)
        return found
