"""How far families have come, asked by many searches at once in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId, user_key
from server.database.lookups import Lookups
from server.database.round_trip import SETTING_TENANT, Statement, array, round_trip, text_array, uuid_array
from server.database.tenant import Tenant
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


class _Kind(NamedTuple):
    """What one statement asks for: users by their names, or conversations by their ids."""

    tenant: int
    version: int
    users: bool


class _Key(NamedTuple):
    user_key: int
    name: str | UUID


class Stamps:
    """Looks up the states of families for one process; ``lanes`` is how many look-ups may be in flight at once."""

    def __init__(self, database: Database, *, lanes: int = 2) -> None:
        self._database = database
        self._lookups: Lookups[_Kind, _Key, tuple[Family, Stamp]] = Lookups(
            self._look_up, at_once=MAX_BATCH, lanes=lanes
        )

    async def of_user(self, tenant: Tenant, user: str, version: int) -> tuple[Family, Stamp]:
        """Return a user's family and its state; one that nobody knows has no conversations.

        Raises DatabaseUnavailable.
        """
        key = _Key(user_key(tenant.salt, "user", user), user)
        return await self._lookups.ask(_Kind(tenant.id, version, users=True), key)

    async def of_conversation(self, tenant: Tenant, at: ConversationId, version: int) -> tuple[Family, Stamp]:
        """Return the family that a conversation belongs to; raises NotFound and DatabaseUnavailable."""
        return await self._lookups.ask(_Kind(tenant.id, version, users=False), _Key(at.user_key, at.uuid))

    async def _look_up(self, kind: _Kind, keys: Sequence[_Key]) -> list[tuple[Family, Stamp] | None]:
        values: dict[str, object] = {
            "tenant": kind.tenant,
            "version": kind.version,
            "keys": array(key.user_key for key in keys),
        }
        if kind.users:
            values["users"] = text_array([str(key.name).encode() for key in keys])
            call = _OF_USERS(values)
        else:
            values["ids"] = uuid_array(key.name for key in keys if isinstance(key.name, UUID))
            call = _OF_CONVERSATIONS(values)
        async with hot_connection(self._database) as connection:
            rows = await round_trip(connection, [SETTING_TENANT(values), call])
        found: list[tuple[Family, Stamp] | None] = [None] * len(keys)
        for place, user, *stamp in rows:
            found[place - 1] = Family(kind.tenant, keys[place - 1].user_key, user), Stamp(*stamp)
        return found
