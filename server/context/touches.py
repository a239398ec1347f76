"""Touches: which events were used, recorded beside the log, in an order of their own.

Reading must not grow the log, so a touch is no event; but it is tied to the head at which it happened, so that every
server folds it at the same place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId
from server.database.round_trip import SETTING_TENANT, Statement, array, round_trip
from server.database.tenant import Tenant
from server.errors import DatabaseUnavailable, InvalidInput, NotFound

logger = logging.getLogger(__name__)

_WAITING: Final = 256  # touches of one process; more are not worth the memory
MAX_TOUCHED: Final = 1000  # events at once

# The touch draws its number and its place under the conversation's row lock, as an append draws its seqs.
_RECORD: Final = Statement("""
WITH bumped AS (
    UPDATE conversation c SET touches = c.touches + 1
    WHERE c.user_key = %(user_key)s AND c.id = %(id)s AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
      AND c.head >= %(highest)s::bigint
    RETURNING c.head, c.touches
), written AS (
    INSERT INTO touch (user_key, conversation, ord, tenant_id, at, seqs)
    SELECT %(user_key)s, %(id)s, b.touches, %(tenant)s, b.head, %(seqs)s::bigint[] FROM bumped b
)
SELECT b.head, b.touches, c.head FROM conversation c LEFT JOIN bumped b ON true
WHERE c.user_key = %(user_key)s AND c.id = %(id)s AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
""")


class Touched(NamedTuple):
    """A recorded touch: its number among the conversation's own, and the head at which it happened."""

    ord: int
    at: int


async def record(database: Database, tenant: Tenant, conversation: ConversationId, seqs: Sequence[int]) -> Touched:
    """Record that events were used, in that order, each once; durable when it returns.

    What has expired or been erased may be named, and has no effect. Raises NotFound, and InvalidInput naming the head
    for a seq that there is not.
    """
    if not 1 <= len(seqs) <= MAX_TOUCHED:
        raise InvalidInput(f"a touch names 1 to {MAX_TOUCHED} events, not {len(seqs)}", param="used")
    values = {
        "tenant": tenant.id,
        "user_key": conversation.user_key,
        "id": conversation.uuid,
        "highest": max(seqs),
        "seqs": array(dict.fromkeys(seqs)),
    }
    if min(seqs) < 1:
        raise InvalidInput(f"there is no event {min(seqs)}: seqs begin at 1", param="used")
    async with hot_connection(database) as connection:
        rows = await round_trip(connection, [SETTING_TENANT(values), _RECORD(values)])
    at, number, head = rows[0] if rows else (None, None, max(seqs))
    if number is None and head >= max(seqs):  # it is gone, or went while we waited for its row
        raise NotFound("no such conversation")
    if number is None:
        raise InvalidInput(f"there is no event {max(seqs)}: the head is {head}", param="used", details={"head": head})
    return Touched(number, at)


class Toucher:
    """Records what retrieval faulted in, behind the answers that it was brought for; one for each process.

    What a process that is killed had not recorded yet is lost, as its snapshots are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tasks: set[asyncio.Task[None]] = set()

    def touch(self, tenant: Tenant, conversation: ConversationId, seqs: Sequence[int]) -> None:
        """Record a touch soon, or not at all when too many wait or the database is away."""
        if seqs and len(self._tasks) < _WAITING:
            task = asyncio.create_task(self._touch(tenant, conversation, seqs[:MAX_TOUCHED]), name="touch")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait until what was touched is recorded."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _touch(self, tenant: Tenant, conversation: ConversationId, seqs: Sequence[int]) -> None:
        try:
            await record(self._database, tenant, conversation, seqs)
        except (NotFound, DatabaseUnavailable) as error:
            logger.info("a touch was not recorded: %s", error.message)
        except Exception:
            logger.exception("a touch was not recorded")
