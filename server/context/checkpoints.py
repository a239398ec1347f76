"""Checkpoints in the database: where a fold may begin, instead of at the conversation's first event.

A checkpoint holds the state right on reaching its head, before any touch there, so that it serves every conversation
that shows the same events up to it. It is derived from the log: losing one costs only time.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from server.context.reading import Reader
from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId
from server.database.round_trip import SETTING_TENANT, Statement, array, round_trip
from server.database.tenant import Tenant
from server.errors import DatabaseUnavailable
from server.log.read import State
from server.working_set import checkpoint
from server.working_set.checkpoint import OutdatedCheckpoint
from server.working_set.fold import Fold

logger = logging.getLogger(__name__)

# A first read after a restart folds what follows the newest checkpoint. At about 90 us an event and 0.5 us a character,
# these keep that below 60 ms; a checkpoint takes about 15 KB and 2 ms, so that an event's share is 30 bytes.
EVERY_EVENTS: Final = 500
EVERY_TOKENS: Final = 32_000
PLACES: Final = 64  # heads of checkpoints are multiples of it, so that two servers write the same rows

# Where the past is folded anew (for ``as_of``, after an erasure), this bounds the work: under a second.
MAX_GAP: Final = 8192
_WAITING: Final = 64  # checkpoints of one process; more are not worth the memory

# Erasure locks the row too (FOR UPDATE). If it came first, the epoch is another one when we get the lock, and no erased
# words are written back; if it comes later, it finds what we wrote, and deletes it.
_WRITE: Final = Statement("""
WITH held AS MATERIALIZED (
    SELECT c.id FROM conversation c
    WHERE c.user_key = %(user_key)s AND c.id = %(id)s AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
      AND c.epoch = %(epoch)s::bigint AND c.floor = %(floor)s::bigint
    FOR KEY SHARE
), written AS (
    INSERT INTO checkpoint (user_key, conversation, head, tenant_id, floor, fold)
    SELECT %(user_key)s, held.id, %(head)s::bigint, %(tenant)s, %(floor)s::bigint, %(fold)s::bytea FROM held
    ON CONFLICT (user_key, conversation, head)
    DO UPDATE SET floor = excluded.floor, fold = excluded.fold, created_at = now()
)
SELECT k.head FROM checkpoint k JOIN held ON held.id = k.conversation
WHERE k.user_key = %(user_key)s AND k.tenant_id = %(tenant)s
""")

_DROP: Final = Statement("""
DELETE FROM checkpoint k WHERE k.user_key = %(user_key)s AND k.conversation = %(id)s AND k.tenant_id = %(tenant)s
  AND k.head = ANY(%(heads)s::bigint[])
""")


class Made(NamedTuple):
    """A checkpoint that is not stored yet."""

    head: int
    fold: bytes


def make(fold: Fold) -> Made:
    """Make a checkpoint of a fold that has just reached its head."""
    return Made(fold.head, zlib.compress(checkpoint.dump(fold), 1))


def superfluous(heads: Sequence[int]) -> list[int]:
    """Return which checkpoints to drop, so that those that stay are the further apart, the further they are behind.

    A gap grows to a quarter of its distance from the newest, and to MAX_GAP at the most.
    """
    newest_first = sorted(heads, reverse=True)
    dropped = []
    newer = newest_first[0] if newest_first else 0
    for index, head in enumerate(newest_first[1:], 1):
        older = newest_first[index + 1] if index + 1 < len(newest_first) else 0
        if newer - older <= min((newest_first[0] - older) // 4, MAX_GAP):
            dropped.append(head)
        else:
            newer = head
    return dropped


async def nearest(reader: Reader, floor: int, high: int) -> Fold | None:
    """Return the fold of the newest usable checkpoint up to ``high``; what other versions have made is passed over."""
    while (found := await reader.checkpoint(floor, high)) is not None:
        head, data = found
        try:
            fold = await asyncio.to_thread(_load, data)
        except (OutdatedCheckpoint, zlib.error) as error:
            logger.debug("a checkpoint at %d is passed over: %s", head, error)
        else:
            if fold.head == head:
                return fold
        high = head - 1
    return None


def _load(data: bytes) -> Fold:
    return checkpoint.load(zlib.decompress(data))


async def write(database: Database, tenant: Tenant, conversation: ConversationId, state: State, made: Made) -> bool:
    """Store a checkpoint and drop what it makes superfluous, unless the conversation shows less than in ``state``."""
    if state.epoch < 0:  # its import is under way: touches of what is folded already may still come
        return False
    values = {
        "tenant": tenant.id,
        "user_key": conversation.user_key,
        "id": conversation.uuid,
        "epoch": state.epoch,
        "floor": state.floor,
        "head": made.head,
        "fold": b"\\x" + made.fold.hex().encode(),
    }
    async with hot_connection(database) as connection:
        rows = await round_trip(connection, [SETTING_TENANT(values), _WRITE(values)])
        # The statement's snapshot is older than its own row, so that an empty answer may be a first checkpoint.
        heads = {row[0] for row in rows} | {made.head}
        if dropping := superfluous(sorted(heads)):
            await round_trip(connection, [SETTING_TENANT(values), _DROP(values | {"heads": array(dropping)})])
    return True


class Writer:
    """Stores checkpoints behind the requests that made them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tasks: set[asyncio.Task[None]] = set()

    def write(self, tenant: Tenant, conversation: ConversationId, state: State, made: Made) -> None:
        """Store a checkpoint soon, or not at all when too many wait or the database is away: another will come."""
        if len(self._tasks) < _WAITING:
            task = asyncio.create_task(self._write(tenant, conversation, state, made), name="checkpoint")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait until what was made is stored."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _write(self, tenant: Tenant, conversation: ConversationId, state: State, made: Made) -> None:
        try:
            await write(self._database, tenant, conversation, state, made)
        except DatabaseUnavailable as error:
            logger.info("a checkpoint was not stored: %s", error.message)
        except Exception:
            logger.exception("a checkpoint was not stored")
