"""Finding what waits: the conversations whose head is beyond their progress, newest first, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId
from server.database.round_trip import SETTING_TENANT, Statement, array, round_trip
from server.database.tenant import Tenant
from server.embeddings.session import ROLE
from server.log.retention import tenants

_PAGE: Final = 500
_LOOKED_AT: Final = 20_000  # conversations in one statement, however few of them wait
_ATTEMPTS: Final = 5  # at a text that was refused

_BEHIND: Final = sa.text(
    """
    WITH looked AS MATERIALIZED (
        SELECT c.user_key, c.id, c.head FROM conversation c
        WHERE c.tenant_id = :tenant AND c.id < :before ORDER BY c.id DESC LIMIT :looked
    )
    SELECT l.user_key, l.id, l.head - coalesce(p.seq, 0) AS events, false AS "end"
    FROM looked l
    LEFT JOIN embedding_progress p ON p.user_key = l.user_key AND p.conversation = l.id AND p.version = :version
        AND p.tenant_id = :tenant
    WHERE l.head > coalesce(p.seq, 0)
    UNION ALL
    (SELECT l.user_key, l.id, 0, true FROM looked l ORDER BY l.id LIMIT 1)
    ORDER BY id DESC, "end" LIMIT :page
    """
).bindparams(sa.bindparam("before", type_=sa.Uuid))

_RETRY: Final = sa.text(
    """
    UPDATE embedding_progress p SET seq = least(p.seq, f.seq - 1)
    FROM (SELECT user_key, conversation, min(seq) AS seq FROM embedding_failure
          WHERE tenant_id = :tenant AND version = :version AND attempts < :attempts
          GROUP BY user_key, conversation) f
    WHERE p.user_key = f.user_key AND p.conversation = f.conversation AND p.version = :version AND p.tenant_id = :tenant
    """
)

_PROGRESS: Final = Statement("""
SELECT a.user_key, a.id, p.seq
FROM unnest(%(keys)s::bigint[], %(ids)s::uuid[]) AS a(user_key, id)
JOIN embedding_progress p ON p.user_key = a.user_key AND p.conversation = a.id AND p.version = %(version)s
    AND p.tenant_id = %(tenant)s
""")


class Page(NamedTuple):
    """Conversations that wait, each with about how many events."""

    tenant: Tenant
    conversations: dict[ConversationId, int]


async def run(database: Database, version: int, *, retry: bool = True) -> AsyncIterator[Page]:
    """Look through every tenant once, dead letters included unless ``retry`` is False; raises DatabaseUnavailable."""
    for tenant in await tenants(database):
        values: dict[str, Any] = {"tenant": tenant.id, "version": version, "page": _PAGE, "looked": _LOOKED_AT}
        if retry:
            async with database.transaction(tenant, role=ROLE) as connection:
                await connection.execute(_RETRY, values | {"attempts": _ATTEMPTS})
        before: UUID | None = UUID(int=2**128 - 1)
        while before is not None:
            async with database.transaction(tenant, role=ROLE) as connection:
                rows = (await connection.execute(_BEHIND, values | {"before": before})).all()
            before = rows[-1].id if rows else None
            found = {ConversationId(row.user_key, row.id): row.events for row in rows if not row.end}
            if found:
                yield Page(tenant, found)


async def progress(
    database: Database, tenant: Tenant, version: int, conversations: Sequence[ConversationId]
) -> dict[ConversationId, int]:
    """Return up to which own seq each conversation is embedded; 0 is left out. Raises DatabaseUnavailable."""
    values = {
        "tenant": tenant.id,
        "version": version,
        "keys": array(at.user_key for at in conversations),
        "ids": array(at.uuid for at in conversations),
    }
    async with hot_connection(database) as connection:
        rows = await round_trip(connection, [SETTING_TENANT(values), _PROGRESS(values)])
    return {ConversationId(key, uuid): seq for key, uuid, seq in rows}
