"""The export: a tenant's whole log, or a part of it, as JSON lines from which the very same rows can be made again.

One REPEATABLE READ snapshot on a connection of its own, read page by page, so that memory is bounded and everything in
the file belongs together. Such a snapshot keeps vacuum from removing what dies meanwhile, so a reader may not hold it
as long as it likes: PostgreSQL ends it once nothing was taken for STALL seconds, and we do once the reader has kept us
waiting for longer than its share (GRACE seconds and what its bytes take at SLOWEST). The file then lacks its end line.

Not in it: keys, Idempotency-Keys (they live a day), the tenant's name and its settings.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final
from uuid import UUID

import psycopg

from server.database.connections import SET_TENANT, Database
from server.database.failures import unavailable
from server.database.ids import ConversationId, user_key
from server.database.tenant import Tenant
from server.errors import DatabaseUnavailable, NotFound
from server.log.formats.export_lines import FORMAT, VERSION, EndLine, Header, Line, UserLine, encode_line
from server.log.read import BEGIN
from server.log.transfer.lines import EVENT_COLUMNS, conversation_line, erasure_line, event_line, time_text, touch_line

STALL: Final = 60  # seconds
GRACE: Final = 60.0  # seconds
SLOWEST: Final = 256 * 1024  # bytes a second
AT_ONCE: Final = 2  # exports of one process; each holds a connection and a snapshot
_CHUNK: Final = 256 * 1024  # bytes
_EVENTS: Final = 32  # events may have a megabyte each
_ROWS: Final = 200
_NIL: Final = UUID(int=0)
_USERS: Final = f"""
SELECT u.id, {time_text("u.created_at")} FROM end_user u
WHERE u.tenant_id = %(tenant)s {{only}} ORDER BY u.id COLLATE "C"
"""
_CONVERSATIONS: Final = f"""
SELECT c.user_key, c.id, c.origin_id, c.user_id, c.parent, c.fork_seq,
       CASE WHEN c.parent IS NOT NULL AND p.id IS NULL THEN coalesce(c.lineage, '{{{{}}}}') END, c.lineage_end,
       {time_text("c.created_at")}, {time_text("c.recorded_at")}, {time_text("c.deleted_at")}, c.metadata,
       c.retention_days, c.head, c.floor, c.epoch, oldest.seq
FROM conversation c
LEFT JOIN conversation p ON p.user_key = c.user_key AND p.id = c.parent AND p.tenant_id = c.tenant_id {{parent}}
LEFT JOIN LATERAL (
    SELECT e.seq FROM event e WHERE e.user_key = c.user_key AND e.conversation = c.id AND e.tenant_id = %(tenant)s
    ORDER BY e.seq LIMIT 1
) oldest ON true
WHERE c.tenant_id = %(tenant)s AND c.id > %(after)s {{only}} ORDER BY c.id LIMIT {_ROWS}
"""
_EVENTS_OF: Final = f"""
SELECT {EVENT_COLUMNS} FROM event e
WHERE e.user_key = %(user_key)s AND e.conversation = %(id)s AND e.tenant_id = %(tenant)s AND e.seq > %(after)s
ORDER BY e.seq LIMIT {_EVENTS}
"""
_TOUCHES_OF: Final = f"""
SELECT x.ord, x.at, x.seqs, {time_text("x.recorded_at")} FROM touch x
WHERE x.user_key = %(user_key)s AND x.conversation = %(id)s AND x.tenant_id = %(tenant)s AND x.ord > %(after)s
ORDER BY x.ord LIMIT {_ROWS}
"""
_ERASURES: Final = f"""
SELECT x.id, x.user_key, x.scope, x.conversation, encode(x.user_digest, 'hex'), x.first_seq, x.last_seq, x.events,
       x.actor, {time_text("x.created_at")}
FROM erasure x WHERE x.tenant_id = %(tenant)s AND x.id > %(after)s {{only}} ORDER BY x.id LIMIT {_ROWS}
"""
_FAMILY: Final = """
SELECT c.id, c.lineage, c.user_id FROM conversation c
WHERE c.user_key = %s AND c.id = %s AND c.tenant_id = %s AND c.deleted_at IS NULL
"""
# Of the user, of the conversation with those it was forked from, or of all: what each statement is narrowed by.
_ALL: Final = {"users": "", "conversations": "", "parent": "", "erasures": ""}
_OF_USER: Final = {
    "users": "AND u.user_key = %(user_key)s AND u.id = %(user)s",
    "conversations": "AND c.user_key = %(user_key)s AND c.user_id = %(user)s",
    "parent": "AND p.user_id = %(user)s",
    "erasures": "AND x.user_key = %(user_key)s",
}
_OF_CONVERSATION: Final = {
    "users": "AND u.user_key = %(user_key)s AND u.id = %(user)s",
    "conversations": "AND c.user_key = %(user_key)s AND c.id = ANY(%(family)s)",
    "parent": "AND p.id = ANY(%(family)s)",
    "erasures": "AND x.user_key = %(user_key)s AND x.conversation = ANY(%(family)s)",
}


async def export(
    database: Database, tenant: Tenant, *, user: str | None = None, conversation: ConversationId | None = None
) -> AsyncIterator[bytes]:
    """Yield the export in chunks: of the tenant, of one user, or of one conversation with those it was forked from.

    The first chunk comes after everything that can be refused was checked. Raises NotFound, and DatabaseUnavailable
    when too many exports run or the reader is too slow.
    """
    only = _ALL
    values: dict[str, Any] = {"tenant": tenant.id}
    async with _Slot() as slot, _snapshot(database, tenant) as connection:
        if user is not None:
            only = _OF_USER
            values |= {"user_key": user_key(tenant.salt, "user", user), "user": user}
        if conversation is not None:
            found = await (await connection.execute(_FAMILY, (*conversation, tenant.id))).fetchone()
            if found is None or user not in (None, found[2]):
                raise NotFound("no such conversation")
            only = _OF_CONVERSATION
            values |= {"user_key": conversation.user_key, "family": [found[0], *(found[1] or [])], "user": found[2]}
        salt = await (await connection.execute("SELECT salt FROM tenant WHERE id = %s", (tenant.id,))).fetchone()
        if salt is None:
            raise NotFound("no such tenant")
        chunk = [encode_line(Header(format=FORMAT, version=VERSION, salt=bytes(salt[0]).hex()))]
        size = sent = 0
        waited = 0.0
        loop = asyncio.get_running_loop()
        async for line in _lines(connection, only, values):
            data = encode_line(line)
            chunk.append(data)
            size += len(data)
            if size >= _CHUNK:
                asked = loop.time()
                stalled = loop.call_later(STALL, slot.release)
                yield b"\n".join([*chunk, b""])
                stalled.cancel()
                waited += loop.time() - asked
                sent += size
                if slot.released or waited > GRACE + sent / SLOWEST:
                    raise DatabaseUnavailable("the reader of this export is too slow; write it to a file first")
                chunk, size = [], 0
    yield b"\n".join([*chunk, b""])


class _Slot:
    """One of the exports that a process runs at once; whoever stalls loses it while still being suspended."""

    running: ClassVar[int] = 0

    def __init__(self) -> None:
        self.released = True

    async def __aenter__(self) -> _Slot:
        if _Slot.running >= AT_ONCE:
            raise DatabaseUnavailable(f"{AT_ONCE} exports are running already; try again later", retry_after=10)
        _Slot.running += 1
        self.released = False
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        if not self.released:
            self.released = True
            _Slot.running -= 1


@asynccontextmanager
async def _snapshot(database: Database, tenant: Tenant) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    try:
        conninfo = database.address.conninfo("turnstone_runtime")
        # Not from the pools: an export may take minutes, and every request needs those.
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
            await connection.execute(f"SET idle_in_transaction_session_timeout = '{STALL}s'")
            await connection.execute(BEGIN)
            await connection.execute(SET_TENANT, (str(tenant.id),))
            yield connection
    except psycopg.Error as error:
        if answer := unavailable(error):
            raise answer from error
        raise


async def _lines(
    connection: psycopg.AsyncConnection[Any], only: dict[str, str], values: dict[str, Any]
) -> AsyncIterator[Line]:
    counts = {"users": 0, "conversations": 0, "events": 0, "touches": 0, "erasures": 0}
    # The one list without an index in the order wanted: sorted once, read through a cursor.
    async with connection.cursor("users") as cursor:
        cursor.itersize = _ROWS
        await cursor.execute(_USERS.format(only=only["users"]).encode(), values)
        async for name, created in cursor:
            counts["users"] += 1
            yield UserLine(id=name, created_at=created)
    conversations = _CONVERSATIONS.format(only=only["conversations"], parent=only["parent"])
    async for row in _pages(connection, conversations, values, key=1):
        counts["conversations"] += 1
        line = conversation_line(row)
        yield line
        of = {"user_key": row[0], "id": row[1], "tenant": values["tenant"]}
        async for event in _pages(connection, _EVENTS_OF, of, key=1, size=_EVENTS, after=0):
            counts["events"] += 1
            yield event_line(line.id, event)
        async for touch in _pages(connection, _TOUCHES_OF, of, key=0, after=0):
            counts["touches"] += 1
            yield touch_line(line.id, touch)
    async for row in _pages(connection, _ERASURES.format(only=only["erasures"]), values, key=0):
        counts["erasures"] += 1
        yield erasure_line(row)
    yield EndLine(**counts)


async def _pages(
    connection: psycopg.AsyncConnection[Any],
    statement: str,
    values: dict[str, Any],
    *,
    key: int,
    size: int = _ROWS,
    after: UUID | int = _NIL,
) -> AsyncIterator[tuple[Any, ...]]:
    """Yield the rows of a statement that takes up after the id or number in column ``key``, ``size`` at a time."""
    while True:
        rows = await (await connection.execute(statement.encode(), values | {"after": after})).fetchall()
        for row in rows:
            yield row
        if len(rows) < size:
            return
        after = rows[-1][key]
