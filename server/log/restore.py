"""The faithful restore: the rows of an export made again as they were, ids, times, tombstones and hashes included.

It goes chunk by chunk, each in one transaction, and every chunk may come again: what is here is compared, what is not
is added. A conversation's head is what its events reach so far, and its epoch is below zero until it is whole. What was
erased here since stays erased. Only the tenant whose salt an export carries can keep its ids; an empty tenant takes
that salt over. Nothing else should write to the tenant until the restore has ended.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables import conversation, end_user, erasure
from schema.tables import tenant as tenant_table
from server.database.connections import Database
from server.database.ids import ConversationId, keyed_hash, user_key
from server.database.tenant import Tenant
from server.errors import Conflict, InvalidInput, TenantNotEmpty
from server.log.chunk import Chunk, Part, relative
from server.log.erase import ROLE
from server.log.export import EVENT_COLUMNS, event_line
from server.log.formats.jsonl import EventLine, encode_line, parse_time, stored_text
from server.log.lineage import Lineage

# Longer than any process trusts what it has read of a tenant (half a second), so that none goes on with the old salt.
SETTLE: Final = 1.0

_UNDER_WAY: Final = -1  # the epoch of a conversation that is not whole yet

_ROWS = sa.text(
    """
    SELECT c.user_key, c.id, c.user_id, c.parent, c.fork_seq, c.head, c.epoch, c.deleted_at, c.lineage, c.lineage_end
    FROM conversation c
    WHERE c.tenant_id = :tenant
      AND (c.user_key, c.id) IN (SELECT * FROM unnest(CAST(:keys AS bigint[]), CAST(:ids AS uuid[])))
    ORDER BY c.id FOR UPDATE
    """
)
_STORED = sa.text(
    f"""
    SELECT {EVENT_COLUMNS}
    FROM unnest(CAST(:keys AS bigint[]), CAST(:ids AS uuid[]), CAST(:lows AS bigint[]), CAST(:highs AS bigint[]))
        AS w(user_key, id, low, high)
    JOIN event e ON e.user_key = w.user_key AND e.conversation = w.id AND e.seq BETWEEN w.low AND w.high
        AND e.tenant_id = :tenant
    """
)


def _insert(table: str, columns: str, conflict: str = "") -> sa.TextClause:
    """Return the INSERT of rows that come as one JSON array, since row-level security refuses COPY."""
    names = ", ".join(column.split()[0] for column in columns.split(","))
    return sa.text(
        f"INSERT INTO {table} (tenant_id, {names}) SELECT :tenant, {names} "
        f"FROM json_to_recordset(CAST(:rows AS json)) AS r({columns}) {conflict}"
    )


_USERS = _insert("end_user", "user_key bigint, id text, created_at timestamptz", "ON CONFLICT DO NOTHING")
_CONVERSATIONS = _insert(
    "conversation",
    "user_key bigint, id uuid, user_id text, origin_id text, metadata text, head bigint, floor bigint, epoch bigint, "
    "recorded_at timestamptz, created_at timestamptz, deleted_at timestamptz, retention_days int, parent uuid, "
    "fork_seq bigint, lineage uuid[], lineage_end bigint[]",
    "ON CONFLICT DO NOTHING RETURNING id",
)
_EVENTS = _insert(
    "event",
    "user_key bigint, conversation uuid, seq bigint, recorded_at timestamptz, occurred_at timestamptz, "
    "erased_at timestamptz, type text, role text, client_key bytea, client_digest bytea, client_id text, name text, "
    "call_id text, session text, run_id text, content text, metadata text",
)
_ERASURES = _insert(
    "erasure",
    "user_key bigint, id uuid, scope text, conversation uuid, user_digest bytea, first_seq bigint, last_seq bigint, "
    "events bigint, actor text, created_at timestamptz",
    "ON CONFLICT DO NOTHING",
)
_RAISE = sa.text(
    """
    UPDATE conversation c SET head = r.head, epoch = r.epoch, recorded_at = greatest(c.recorded_at, r.recorded_at)
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        user_key bigint, id uuid, head bigint, epoch bigint, recorded_at timestamptz)
    WHERE c.user_key = r.user_key AND c.id = r.id AND c.tenant_id = :tenant
    """
)


class Restored(NamedTuple):
    """What a chunk added, and how many of its events were here already."""

    conversations: int
    events: int
    known: int


class _Known(NamedTuple):
    """What is known of a conversation that stands here, or will when the chunk is written."""

    head: int
    lineage: Lineage
    row: Any = None


class _Writes(msgspec.Struct):
    """What a chunk comes to."""

    conversations: list[dict[str, Any]] = msgspec.field(default_factory=list)
    raised: list[dict[str, Any]] = msgspec.field(default_factory=list)
    events: list[dict[str, Any]] = msgspec.field(default_factory=list)
    compared: dict[tuple[UUID, int], EventLine] = msgspec.field(default_factory=dict)
    ranges: list[tuple[ConversationId, int, int]] = msgspec.field(default_factory=list)


async def restore(database: Database, tenant: Tenant, chunk: Chunk) -> Restored:
    """Make the rows of one chunk; all of them or none.

    Raises TenantNotEmpty when the ids cannot be kept here, InvalidInput for a damaged export (a gap, a parent that does
    not come first), Conflict for one that says other than what is stored.
    """
    await _adopt_salt(database, tenant, chunk.salt)
    try:
        async with database.transaction(tenant, role=ROLE) as connection:
            await _check_salt(connection, tenant, chunk.salt)
            return await _write(connection, tenant, chunk)
    except sa.exc.DataError as error:
        raise InvalidInput(f"the export is damaged: {str(error.orig).splitlines()[0]}") from error
    except sa.exc.IntegrityError as error:
        raise Conflict(f"the export does not fit what is stored: {str(error.orig).splitlines()[0]}") from error


async def _adopt_salt(database: Database, tenant: Tenant, salt: bytes) -> None:
    mine = tenant_table.c.id == tenant.id
    # As an operator only to see that no other tenant has the salt: it would have the same ids.
    async with database.transaction(tenant, role=ROLE, operator=True) as connection:
        current = await connection.scalar(sa.select(tenant_table.c.salt).where(mine).with_for_update())
        if current is not None and bytes(current) == salt:
            return
        if not await _is_empty(connection, tenant):
            raise TenantNotEmpty("this export is of another tenant, and this one is not empty: its ids cannot be kept")
        taken = sa.select(tenant_table.c.id).where(tenant_table.c.salt == salt).limit(1)
        if await connection.scalar(taken) is not None:
            raise TenantNotEmpty("this export is of a tenant of this server: its ids cannot be kept in another")
        await connection.execute(sa.update(tenant_table).where(mine).values(salt=salt))
    await asyncio.sleep(SETTLE)
    async with database.transaction(tenant, role=ROLE) as connection:
        if not await _is_empty(connection, tenant):
            raise Conflict("something wrote to this tenant as the restore began; stop it, and use an empty tenant")


async def _is_empty(connection: AsyncConnection, tenant: Tenant) -> bool:
    for table in (conversation, end_user, erasure):
        if await connection.scalar(sa.select(1).select_from(table).where(table.c.tenant_id == tenant.id).limit(1)):
            return False
    return True


async def _check_salt(connection: AsyncConnection, tenant: Tenant, salt: bytes) -> None:
    row = sa.select(tenant_table.c.salt).where(tenant_table.c.id == tenant.id).with_for_update(read=True)
    current = await connection.scalar(row)
    if current is None or bytes(current) != salt:
        raise TenantNotEmpty("this tenant has another salt than the export: its ids cannot be kept")


async def _write(connection: AsyncConnection, tenant: Tenant, chunk: Chunk) -> Restored:
    known = await _known(connection, tenant, chunk.parts)
    erased_users, erased_conversations = await _erased(connection, tenant, chunk)
    writes = _Writes()
    for part in chunk.parts:
        here = known.get(part.id)
        erased_at = erased_users.get(part.line.user or "")
        if here is None and (
            part.id.uuid in erased_conversations
            or (erased_at is not None and parse_time(part.line.created_at) < erased_at)
        ):
            continue
        if here is not None and here.row is not None and here.row.deleted_at is not None and here.row.epoch >= 0:
            continue  # deleted: what is left of it is what its forks share
        known[part.id] = _plan(chunk.salt, part, here, known, writes)
    await _compare(connection, tenant, writes)

    users = [
        {"user_key": user_key(chunk.salt, "user", user.id), "id": user.id, "created_at": user.created_at}
        for user in chunk.users
        if user.id not in erased_users or parse_time(user.created_at) >= erased_users[user.id]
    ]
    await _send(connection, tenant, _USERS, users)
    inserted = await _send(connection, tenant, _CONVERSATIONS, writes.conversations)
    if len(inserted) < len(writes.conversations):
        made = {row.id for row in inserted}
        lost = next(row for row in writes.conversations if UUID(row["id"]) not in made)
        raise Conflict(
            f"the conversation {ConversationId(lost['user_key'], UUID(lost['id']))} cannot be made: its id, or its "
            f"origin_id {lost['origin_id']!r}, is taken"
        )
    await _send(connection, tenant, _EVENTS, writes.events)
    await _send(connection, tenant, _RAISE, writes.raised)
    erasures = [
        msgspec.structs.asdict(line)
        | {
            "user_key": int.from_bytes(bytes.fromhex(line.user_key), signed=True),
            "user_digest": _bytea(line.user_digest),
        }
        for line in chunk.erasures
    ]
    await _send(connection, tenant, _ERASURES, erasures)
    return Restored(len(writes.conversations), len(writes.events), len(writes.compared))


async def _known(connection: AsyncConnection, tenant: Tenant, parts: list[Part]) -> dict[ConversationId, _Known]:
    """Lock what stands here of the conversations of a chunk and of those that they were forked from."""
    wanted = {part.id for part in parts}
    for part in parts:
        for other in [part.line.parent, *(owner for owner, _ in part.line.lineage or [])]:
            if other is not None and (at := relative(part.id, other)):
                wanted.add(at)
    values = {"tenant": tenant.id, "keys": [at.user_key for at in wanted], "ids": [at.uuid for at in wanted]}
    rows = (await connection.execute(_ROWS, values)).all() if wanted else []
    return {
        ConversationId(row.user_key, row.id): _Known(row.head, Lineage(row.lineage or [], row.lineage_end or []), row)
        for row in rows
    }


async def _erased(connection: AsyncConnection, tenant: Tenant, chunk: Chunk) -> tuple[dict[str, datetime], set[UUID]]:
    """Return which of a chunk's users were erased here, and when; and which of its conversations."""
    names = {user.id for user in chunk.users} | {part.line.user for part in chunk.parts if part.line.user is not None}
    digests = {keyed_hash(chunk.salt, "erased_user", name): name for name in names}
    query = sa.select(erasure.c.scope, erasure.c.conversation, erasure.c.user_digest, erasure.c.created_at).where(
        erasure.c.tenant_id == tenant.id,
        sa.or_(
            erasure.c.user_digest.in_(list(digests)),
            sa.and_(
                erasure.c.scope == "conversation", erasure.c.conversation.in_([part.id.uuid for part in chunk.parts])
            ),
        ),
    )
    users: dict[str, datetime] = {}
    conversations: set[UUID] = set()
    for row in await connection.execute(query):
        if row.user_digest is None:
            conversations.add(row.conversation)
        else:
            name = digests[bytes(row.user_digest)]
            users[name] = max(row.created_at, users.get(name, row.created_at))
    return users, conversations


def _plan(salt: bytes, part: Part, here: _Known | None, known: dict[ConversationId, _Known], writes: _Writes) -> _Known:
    """Add to ``writes`` what one conversation lacks; returns how it stands then."""
    line = part.line
    if here is None:
        lineage, head, epoch = _lineage(part, known), part.first - 1, _UNDER_WAY
    else:
        lineage, head, epoch = here.lineage, here.head, 0 if here.row is None else here.row.epoch
        if here.row is not None and (line.user, line.fork_seq) != (here.row.user_id, here.row.fork_seq):
            raise Conflict(f"the conversation {line.id} is here with another user or another fork_seq")
    old = [event for event in part.events if event.seq <= head]
    new = part.events[len(old) :]
    if old:
        writes.ranges.append((part.id, old[0].seq, old[-1].seq))
        writes.compared.update(((part.id.uuid, event.seq), event) for event in old)
    if new and new[0].seq != head + 1:
        raise InvalidInput(f"{line.id} has a gap: its events reach seq {head} here, and go on with {new[0].seq}")
    reached = head + len(new)
    if part.ended and reached < line.head:
        raise InvalidInput(f"{line.id} ends at seq {reached}, but its head is {line.head}: the export is damaged")
    whole = reached >= line.head
    recorded_at = line.recorded_at if whole else new[-1].recorded_at if new else line.created_at
    state = {
        "user_key": part.id.user_key,
        "id": part.id.uuid.hex,
        "head": reached,
        "epoch": line.epoch if whole and epoch < 0 else epoch,
        "recorded_at": recorded_at,
    }
    if here is None:
        parent = relative(part.id, line.parent) if line.parent else None
        writes.conversations.append(
            state
            | {
                "user_id": line.user,
                "origin_id": line.origin_id,
                "metadata": stored_text(line.metadata, line.metadata_text) or "{}",
                "floor": line.floor,
                "created_at": line.created_at,
                "deleted_at": line.deleted_at,
                "retention_days": line.retention_days,
                "parent": parent.uuid.hex if parent else None,
                "fork_seq": line.fork_seq,
                "lineage": [owner.hex for owner in lineage.owners] if parent else None,
                "lineage_end": lineage.ends if parent else None,
            }
        )
    elif new or state["epoch"] != epoch:
        writes.raised.append(state)
    writes.events += [_event(salt, part.id, event) for event in new]
    return _Known(reached, lineage, here.row if here else None)


def _lineage(part: Part, known: dict[ConversationId, _Known]) -> Lineage:
    line = part.line
    if line.parent is None or line.fork_seq is None:
        return Lineage([], [])
    if line.lineage is None:
        parent = relative(part.id, line.parent)
        state = known.get(parent) if parent else None
        if parent is None or state is None:
            raise InvalidInput(f"{line.id} is a fork of {line.parent}, which does not come before it")
        if line.fork_seq > state.head:
            raise InvalidInput(f"{line.id} shares seq {line.fork_seq} of {line.parent}, which ends at {state.head}")
        return state.lineage.at(parent.uuid, line.fork_seq)
    owners = []
    for text, end in line.lineage:
        owner = relative(part.id, text)
        state = known.get(owner) if owner else None
        if owner is None or state is None or state.head < end:
            raise InvalidInput(f"{line.id} shares seq {end} of {text}, which does not come before it")
        owners.append(owner.uuid)
    return Lineage(owners, [end for _, end in line.lineage])


async def _compare(connection: AsyncConnection, tenant: Tenant, writes: _Writes) -> None:
    """Raise Conflict where an event is stored otherwise than the export has it; erased here since is no difference."""
    if not writes.ranges:
        return
    values = {
        "tenant": tenant.id,
        "keys": [at.user_key for at, _, _ in writes.ranges],
        "ids": [at.uuid for at, _, _ in writes.ranges],
        "lows": [low for _, low, _ in writes.ranges],
        "highs": [high for _, _, high in writes.ranges],
    }
    for row in await connection.execute(_STORED, values):
        line = writes.compared[row[0], row[1]]
        stored = event_line(line.conversation, tuple(row))
        if encode_line(stored) != encode_line(line) and not (stored.erased_at and not line.erased_at):
            raise Conflict(f"{line.conversation} has another event at seq {line.seq} than the export")


def _event(salt: bytes, at: ConversationId, line: EventLine) -> dict[str, Any]:
    key = line.client_key if line.id is None else keyed_hash(salt, "client_id", line.id).hex()
    return {
        "user_key": at.user_key,
        "conversation": at.uuid.hex,
        "seq": line.seq,
        "recorded_at": line.recorded_at,
        "occurred_at": line.occurred_at or line.recorded_at,
        "erased_at": line.erased_at,
        "type": line.type,
        "role": line.role,
        "client_key": _bytea(key),
        "client_digest": _bytea(line.client_digest),
        "client_id": line.id,
        "name": line.name,
        "call_id": line.call_id,
        "session": line.session,
        "run_id": line.run_id,
        "content": stored_text(line.content, line.content_text),
        "metadata": stored_text(line.metadata, line.metadata_text),
    }


def _bytea(digits: str | None) -> str | None:
    return None if digits is None else "\\x" + digits


async def _send(
    connection: AsyncConnection, tenant: Tenant, statement: sa.TextClause, rows: list[dict[str, Any]]
) -> list[Any]:
    if not rows:
        return []
    values = {"tenant": tenant.id, "rows": msgspec.json.encode(rows).decode()}
    result = await connection.execute(statement, values)
    return list(result.all()) if result.returns_rows else []
