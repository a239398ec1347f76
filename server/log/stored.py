"""Events as they are stored and shown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from schema.vocabulary import EventType, Role
from server.database.ids import ConversationId
from server.log.events import NewEvent

COLUMNS: Final = (
    "e.conversation, e.seq, e.type, e.role, e.client_id, e.name, e.call_id, e.session, e.run_id, e.content, "
    "e.metadata, e.occurred_at, e.recorded_at, e.erased_at"
)


class StoredEvent(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One event of the log; fields that were not given are absent."""

    id: Annotated[
        str, Meta(description="Your id for it, else the server's.", examples=["evt_0196996af0f07c3a9f4e5d6c7b8a9012_1"])
    ]
    seq: Annotated[int, Meta(description="Its position: 1, 2, 3 … without gaps.", examples=[1])]
    type: Annotated[EventType, Meta(description="What kind of event it is.", examples=["message"])]
    role: Annotated[Role | None, Meta(description="Who speaks.")] = None
    name: Annotated[str | None, Meta(description="The speaker's name, or the tool's.")] = None
    content: Annotated[
        Raw | UnsetType, Meta(description="Verbatim, as it was appended.", examples=["I moved to Lisbon."])
    ] = UNSET
    call_id: Annotated[str | None, Meta(description="Joins a tool call and its results.")] = None
    session: Annotated[str | None, Meta(description="The caller's label for this stretch.")] = None
    run_id: Annotated[str | None, Meta(description="The agent run it belongs to.")] = None
    metadata: Annotated[
        Raw | UnsetType,
        Meta(
            description="The caller's own object, verbatim.",
            examples=[{"client": "ios"}],
            extra_json_schema={"type": "object"},
        ),
    ] = UNSET
    occurred_at: Annotated[
        datetime, Meta(tz=True, description="When it happened, says the caller.", examples=["2026-05-04T09:00:00Z"])
    ]
    recorded_at: Annotated[
        datetime,
        Meta(
            tz=True,
            description="When it was recorded; never earlier than the event before it.",
            examples=["2026-05-04T09:00:01Z"],
        ),
    ]
    erased_at: Annotated[
        datetime | None, Meta(description="Set when its content has been erased: only its place is left.")
    ] = None


def stored(conversation: ConversationId, event: NewEvent, seq: int, recorded_at: datetime) -> StoredEvent:
    """Return what a read of the database would return for an event that has just been stored."""
    return StoredEvent(
        id=event.id or f"evt_{conversation.uuid.hex}_{seq}",
        seq=seq,
        type=event.type,
        role=event.role,
        name=event.name,
        content=event.content,
        call_id=event.call_id,
        session=event.session,
        run_id=event.run_id,
        metadata=event.metadata,
        occurred_at=event.occurred_at or recorded_at,
        recorded_at=recorded_at,
    )


def from_row(row: tuple[Any, ...]) -> StoredEvent:
    """Make a stored event of a row of ``COLUMNS``."""
    owner, seq, kind, role, client_id, name, call_id, session, run_id, content, metadata, occurred, recorded, erased = (
        row
    )
    return StoredEvent(
        id=client_id or f"evt_{owner.hex}_{seq}",  # str(EventId(owner, seq)), without the detour: a page has many
        seq=seq,
        type=kind,
        role=role,
        name=name,
        content=UNSET if content is None else Raw(content.encode()),
        call_id=call_id,
        session=session,
        run_id=run_id,
        metadata=UNSET if metadata is None else Raw(metadata.encode()),
        occurred_at=occurred,
        recorded_at=recorded,
        erased_at=erased,
    )
