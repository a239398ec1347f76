"""Snapshots: what a model was shown, kept so that it can be given back byte for byte.

A snapshot shares its texts with the log: it is a record of which events were shown, and how. It is written off the
request's path, in batches: at most ``DELAY`` seconds after the answer, plus one commit. A process that is killed loses
those that it had answered and not yet written; one that stops in order writes them first.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from server.context.record import Place, Record, answer, begin, load
from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId, keyed_hash, parse_conversation_id, uuid7
from server.database.round_trip import SETTING_TENANT, Statement, round_trip
from server.database.tenant import Tenant
from server.errors import DatabaseUnavailable, NotFound
from server.log.read import read_events
from server.log.stored import StoredEvent

logger = logging.getLogger(__name__)

DELAY: Final = 0.05  # seconds that a batch waits for more
BATCH: Final = 256  # rows
MAX_WAITING_BYTES: Final = 16 * 1024 * 1024  # of records; beyond this an answer waits for the database
_RETRY: Final = 1.0  # seconds
_PATIENCE: Final = 5.0  # seconds that an answer waits for room
_SETTLED: Final = 1.0  # seconds after which a snapshot of another process is in the database
_ID: Final = re.compile(r"ctx_([0-9a-f]{16})([0-9a-f]{32})", re.ASCII)

# A conversation that is being deleted is waited for, and then has no snapshots any more.
INSERTING: Final = Statement("""
WITH new AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(rows)s::json) AS r(
        user_key bigint, id uuid, conversation uuid, head bigint, digest bytea, record text, recorded_at timestamptz)
), live AS MATERIALIZED (
    SELECT c.user_key, c.id FROM conversation c
    WHERE (c.user_key, c.id) IN (SELECT n.user_key, n.conversation FROM new n)
      AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
    ORDER BY c.user_key, c.id
    FOR KEY SHARE
)
INSERT INTO snapshot (user_key, id, tenant_id, conversation, head, digest, record, recorded_at)
SELECT n.user_key, n.id, %(tenant)s, n.conversation, n.head, n.digest, n.record, n.recorded_at
FROM new n JOIN live l ON l.user_key = n.user_key AND l.id = n.conversation
""")

_READING: Final = Statement("""
SELECT s.conversation, s.digest, s.record
FROM snapshot s
JOIN conversation c ON c.user_key = s.user_key AND c.id = s.conversation AND c.tenant_id = %(tenant)s
WHERE s.user_key = %(user_key)s AND s.id = %(id)s AND s.tenant_id = %(tenant)s AND c.deleted_at IS NULL
""")


class SnapshotId(NamedTuple):
    """Where a snapshot lives; written as ``ctx_`` + 48 hex digits, as a conversation's id is."""

    user_key: int
    uuid: UUID

    def __str__(self) -> str:
        return f"ctx_{self.user_key & 0xFFFF_FFFF_FFFF_FFFF:016x}{self.uuid.hex}"

    @property
    def age(self) -> float:
        """Seconds since it was made, by the clocks of the server that made it and of this one."""
        return time.time() - (self.uuid.int >> 80) / 1000


def parse_snapshot_id(text: str) -> SnapshotId | None:
    """Return the parts of a snapshot's id, or None when it is not one."""
    match = _ID.fullmatch(text)
    if match is None:
        return None
    return SnapshotId(int.from_bytes(bytes.fromhex(match[1]), signed=True), UUID(hex=match[2]))


class Answered(NamedTuple):
    """An answer without the id of its snapshot: equal contexts share it. ``record`` is JSON, ``digest`` of ``rest``."""

    record: str
    head: int
    rest: bytes
    digest: bytes

    @classmethod
    def of(cls, tenant: Tenant, record: str, head: int, rest: bytes) -> Answered:
        return cls(record, head, rest, keyed_hash(tenant.salt, "context", rest))


@dataclass(eq=False, slots=True)
class Snapshot:
    """A snapshot that is still to be written."""

    tenant: Tenant
    id: SnapshotId
    conversation: UUID
    answered: Answered
    recorded_at: datetime


def digest(tenant: Tenant, snapshot: SnapshotId, rest: bytes) -> bytes:
    """Return the keyed hash of an answer, id and all, of the keyed hash of what equal contexts share."""
    return keyed_hash(tenant.salt, "snapshot", str(snapshot), rest)


class Recorder:
    """Writes the snapshots of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[Snapshot] = deque()
        self._waiting_bytes = 0
        self._pending: dict[SnapshotId, Snapshot] = {}
        self._writing: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._stopping = False
        self._written = asyncio.Condition()

    async def add(self, tenant: Tenant, conversation: ConversationId, answered: Answered) -> bytes:
        """Take an answer in, to be written soon, and return it whole.

        Waits while too many are waiting already; raises DatabaseUnavailable when that takes too long.
        """
        if self._waiting_bytes > MAX_WAITING_BYTES:
            await self._room()
        made = SnapshotId(conversation.user_key, uuid7())
        snapshot = Snapshot(tenant, made, conversation.uuid, answered, datetime.now(UTC))
        self._pending[made] = snapshot
        self._waiting.append(snapshot)
        self._waiting_bytes += len(answered.record)
        if len(self._waiting) >= BATCH:
            self._hurry.set()
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="write snapshots")
        return begin(str(made)) + answered.rest

    async def _room(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE), self._written:
                await self._written.wait_for(lambda: self._waiting_bytes <= MAX_WAITING_BYTES)
        except TimeoutError:
            raise DatabaseUnavailable(
                "too many snapshots are waiting for the database; try again", retry_after=1
            ) from None

    async def drain(self) -> None:
        """Write what is waiting, unless the database is away."""
        self._stopping = True
        self._hurry.set()
        if self._writing is not None:
            await self._writing

    def pending(self, tenant: Tenant, snapshot: SnapshotId) -> Snapshot | None:
        """Return a snapshot that is not written yet."""
        found = self._pending.get(snapshot)
        return found if found is not None and found.tenant.id == tenant.id else None

    async def _write(self) -> None:
        while self._waiting:
            if len(self._waiting) < BATCH and not self._stopping:
                self._hurry.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), DELAY)
            batch = self._batch()
            try:
                await self._insert(batch)
            except DatabaseUnavailable:
                if not self._stopping:
                    await asyncio.sleep(_RETRY)
                    continue
                logger.error("the database is away: %d snapshots of contexts are lost", len(self._waiting))
                batch = list(self._waiting)
            except Exception:
                logger.exception("%d snapshots of contexts could not be written", len(batch))
            for snapshot in batch:
                self._waiting.popleft()
                self._waiting_bytes -= len(snapshot.answered.record)
                del self._pending[snapshot.id]
            async with self._written:
                self._written.notify_all()

    def _batch(self) -> list[Snapshot]:
        """Return the oldest, as far as they are one tenant's."""
        tenant = self._waiting[0].tenant.id
        return list(takewhile(lambda one: one.tenant.id == tenant, islice(self._waiting, BATCH)))

    async def _insert(self, batch: list[Snapshot]) -> None:
        rows = [
            {
                "user_key": one.id.user_key,
                "id": one.id.uuid,
                "conversation": one.conversation,
                "head": one.answered.head,
                "digest": "\\x" + digest(one.tenant, one.id, one.answered.digest).hex(),
                "record": one.answered.record,
                "recorded_at": one.recorded_at,
            }
            for one in batch
        ]
        values = {"tenant": batch[0].tenant.id, "rows": msgspec.json.encode(rows)}
        async with hot_connection(self._database) as connection:
            await round_trip(connection, [SETTING_TENANT(values), INSERTING(values)])


async def read_snapshot(database: Database, recorder: Recorder, tenant: Tenant, snapshot: SnapshotId) -> bytes:
    """Return an answer as it was given, but for what has been erased since; raises NotFound.

    One that another server has only just made is waited for, once.
    """
    pending = recorder.pending(tenant, snapshot)
    if pending is not None:  # its conversation may have been deleted since, which reading its events finds out
        conversation, expected = pending.conversation, digest(tenant, snapshot, pending.answered.digest)
        record = load(pending.answered.record)
    else:
        row = await _find(database, tenant, snapshot)
        if row is None and 0 <= snapshot.age < _SETTLED:
            await asyncio.sleep(_SETTLED - snapshot.age)
            row = await _find(database, tenant, snapshot)
        if row is None:
            raise NotFound("no such context")
        conversation, expected, record = row
    return await _given_back(database, tenant, snapshot, conversation, record, expected)


async def _find(database: Database, tenant: Tenant, snapshot: SnapshotId) -> tuple[UUID, bytes, Record] | None:
    values = {"tenant": tenant.id, "user_key": snapshot.user_key, "id": snapshot.uuid}
    async with hot_connection(database) as connection:
        rows = await round_trip(connection, [SETTING_TENANT(values), _READING(values)])
    if not rows:
        return None
    conversation, expected, record = rows[0]
    return conversation, bytes(expected), load(record)


async def _given_back(
    database: Database, tenant: Tenant, snapshot: SnapshotId, conversation: UUID, record: Record, expected: bytes
) -> bytes:
    events = await read_events(database, tenant, ConversationId(snapshot.user_key, conversation), record.seqs)
    elsewhere = await _elsewhere(database, tenant, record)
    rest = answer(record, events, elsewhere)
    places = [elsewhere.get((one.conversation or "", one.seq)) for one in record.elsewhere]
    whole = all(event is not None and event.erased_at is None for event in [*map(events.get, record.seqs), *places])
    if whole and digest(tenant, snapshot, keyed_hash(tenant.salt, "context", rest)) != expected:
        raise RuntimeError(f"the context {snapshot} is not as it was answered: its log or its record has been changed")
    return begin(str(snapshot)) + rest


async def _elsewhere(database: Database, tenant: Tenant, record: Record) -> dict[Place, StoredEvent]:
    """Return what is left of the events of other conversations."""
    wanted: dict[str, list[int]] = {}
    for one in record.elsewhere:
        wanted.setdefault(one.conversation or "", []).append(one.seq)
    found: dict[Place, StoredEvent] = {}
    for name, seqs in wanted.items():
        at = parse_conversation_id(name)
        with suppress(NotFound):  # it has been deleted since
            events = await read_events(database, tenant, at, seqs) if at is not None else {}
            found |= {(name, seq): event for seq, event in events.items()}
    return found
