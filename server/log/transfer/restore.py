"""The faithful restore: the rows of an export made again as they were, ids, times, tombstones and hashes included.

It goes chunk by chunk, each in one transaction, and every chunk may come again: what is here is compared, what is not
is added. A conversation's head is what its events reach so far, and its epoch is below zero until it is whole. What was
erased here since stays erased. Only the tenant whose salt an export carries can keep its ids; an empty tenant takes
that salt over. Nothing else should write to the tenant until the restore has ended.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables import erasure
from server.database.connections import Database
from server.database.ids import ConversationId, keyed_hash, user_key
from server.database.tenant import Tenant
from server.errors import Conflict, InvalidInput
from server.log.erase import ROLE
from server.log.formats.export_lines import EventLine, encode_line, parse_time, stored_text
from server.log.lineage import Lineage
from server.log.transfer import restore_statements as statements
from server.log.transfer.chunk import Chunk, Part, relative
from server.log.transfer.lines import event_line
from server.log.transfer.salt import adopt_salt, check_salt

_UNDER_WAY: Final = -1  # the epoch of a conversation that is not whole yet


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
    touches: list[dict[str, Any]] = msgspec.field(default_factory=list)
    compared: dict[tuple[UUID, int], EventLine] = msgspec.field(default_factory=dict)
    ranges: list[tuple[ConversationId, int, int]] = msgspec.field(default_factory=list)


async def restore(database: Database, tenant: Tenant, chunk: Chunk) -> Restored:
    """Make the rows of one chunk; all of them or none.

    Raises TenantNotEmpty when the ids cannot be kept here, InvalidInput for a damaged export (a gap, a parent that does
    not come first), Conflict for one that says other than what is stored.
    """
    await adopt_salt(database, tenant, chunk.salt)
    try:
        async with database.transaction(tenant, role=ROLE) as connection:
            await check_salt(connection, tenant, chunk.salt)
            return await _write(connection, tenant, chunk)
    except sa.exc.DataError as error:
        raise InvalidInput(f"the export is damaged: {str(error.orig).splitlines()[0]}") from error
    except sa.exc.IntegrityError as error:
        raise Conflict(f"the export does not fit what is stored: {str(error.orig).splitlines()[0]}") from error


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
    await _send(connection, tenant, statements.USERS, users)
    inserted = await _send(connection, tenant, statements.CONVERSATIONS, writes.conversations)
    if len(inserted) < len(writes.conversations):
        made = {row.id for row in inserted}
        lost = next(row for row in writes.conversations if UUID(row["id"]) not in made)
        raise Conflict(
            f"the conversation {ConversationId(lost['user_key'], UUID(lost['id']))} cannot be made: its id, or its "
            f"origin_id {lost['origin_id']!r}, is taken"
        )
    await _send(connection, tenant, statements.EVENTS, writes.events)
    await _send(connection, tenant, statements.RAISE, writes.raised)
    await _send(connection, tenant, statements.TOUCHES, writes.touches)
    await _send(connection, tenant, statements.TOUCHED, writes.touches)
    erasures = [
        msgspec.structs.asdict(line)
        | {
            "user_key": int.from_bytes(bytes.fromhex(line.user_key), signed=True),
            "user_digest": _bytea(line.user_digest),
        }
        for line in chunk.erasures
    ]
    await _send(connection, tenant, statements.ERASURES, erasures)
    return Restored(len(writes.conversations), len(writes.events), len(writes.compared))


async def _known(connection: AsyncConnection, tenant: Tenant, parts: list[Part]) -> dict[ConversationId, _Known]:
    """Lock what stands here of the conversations of a chunk and of those that they were forked from."""
    wanted = {part.id for part in parts}
    for part in parts:
        for other in [part.line.parent, *(owner for owner, _ in part.line.lineage or [])]:
            if other is not None and (at := relative(part.id, other)):
                wanted.add(at)
    values = {"tenant": tenant.id, "keys": [at.user_key for at in wanted], "ids": [at.uuid for at in wanted]}
    rows = (await connection.execute(statements.ROWS, values)).all() if wanted else []
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
    complete = reached >= line.head
    # Only a line after its last tells that no touches are to come: what was folded without them would stay so.
    whole = complete and part.ended
    recorded_at = line.recorded_at if complete else new[-1].recorded_at if new else line.created_at
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
    writes.touches += [
        {
            "user_key": part.id.user_key,
            "conversation": part.id.uuid.hex,
            "ord": touch.ord,
            "at": touch.at,
            "seqs": touch.seqs,
            "recorded_at": touch.recorded_at,
        }
        for touch in part.touches
    ]
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
    for row in await connection.execute(statements.STORED, values):
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
