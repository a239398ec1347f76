"""The lines of an export, from the rows of the database."""

from __future__ import annotations

from typing import Any, Final

from server.database.ids import ConversationId
from server.log.formats.export_lines import ConversationLine, ErasureLine, EventLine, TouchLine, verbatim


def time_text(column: str) -> str:
    """Return the SQL that writes a time as the export does."""
    return f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"


# In the order of EventLine's making in `event_line`.
EVENT_COLUMNS: Final = (
    "e.conversation, e.seq, e.type, e.role, e.name, e.client_id, encode(e.client_key, 'hex'), "
    "encode(e.client_digest, 'hex'), e.call_id, e.session, e.run_id, e.content, e.metadata, "
    f"{time_text('e.occurred_at')}, {time_text('e.recorded_at')}, {time_text('e.erased_at')}"
)


def conversation_line(row: tuple[Any, ...]) -> ConversationLine:
    """Return the line of a conversation, from a row of the export's own query."""
    (
        key, uuid, origin, user, parent, fork_seq, lineage, ends, created, recorded, deleted, metadata, retention, head,
        floor, epoch, oldest,
    ) = row  # fmt: skip
    raw, text = verbatim(None) if metadata == "{}" else verbatim(metadata)
    first = head + 1 if oldest is None else oldest
    return ConversationLine(
        id=str(ConversationId(key, uuid)),
        origin_id=origin,
        user=user,
        parent=None if parent is None else str(ConversationId(key, parent)),
        fork_seq=fork_seq,
        lineage=None
        if lineage is None
        else [(str(ConversationId(key, owner)), end) for owner, end in zip(lineage, ends or [], strict=True)],
        created_at=created,
        recorded_at=recorded,
        deleted_at=deleted,
        metadata=raw,
        metadata_text=text,
        retention_days=retention,
        head=head,
        first=None if first == (fork_seq or 0) + 1 else first,
        floor=floor,
        epoch=max(epoch, 0),
    )


def event_line(conversation: str, row: tuple[Any, ...]) -> EventLine:
    """Return the line of an event, from a row of EVENT_COLUMNS."""
    (
        _, seq, kind, role, name, client_id, client_key, digest, call_id, session, run_id, content, metadata, occurred,
        recorded, erased,
    ) = row  # fmt: skip
    raw_content, content_text = verbatim(content)
    raw_metadata, metadata_text = verbatim(metadata)
    return EventLine(
        conversation=conversation,
        seq=seq,
        type=kind,
        role=role,
        name=name,
        id=client_id,
        client_key=client_key if client_id is None else None,
        client_digest=digest,
        call_id=call_id,
        session=session,
        run_id=run_id,
        content=raw_content,
        content_text=content_text,
        metadata=raw_metadata,
        metadata_text=metadata_text,
        occurred_at=None if occurred == recorded else occurred,
        recorded_at=recorded,
        erased_at=erased,
    )


def touch_line(conversation: str, row: tuple[Any, ...]) -> TouchLine:
    """Return the line of a touch."""
    number, at, seqs, recorded = row
    return TouchLine(conversation=conversation, ord=number, at=at, seqs=seqs, recorded_at=recorded)


def erasure_line(row: tuple[Any, ...]) -> ErasureLine:
    """Return the line of an erasure record."""
    uuid, key, scope, conversation, user_digest, first, last, events, actor, created = row
    return ErasureLine(
        id=uuid.hex,
        user_key=f"{key & 0xFFFF_FFFF_FFFF_FFFF:016x}",
        scope=scope,
        conversation=None if conversation is None else conversation.hex,
        user_digest=user_digest,
        first_seq=first,
        last_seq=last,
        events=events,
        actor=actor,
        created_at=created,
    )
