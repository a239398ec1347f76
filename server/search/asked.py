"""What a search is asked, as the edge has read it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from schema.vocabulary import EventType, Role
from server.database.ids import ConversationId
from server.log.events import Label

MAX_K: Final = 1000
MAX_NAMED: Final = 100  # values of one filter


class Filters(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Which events may be answers; all that is given must hold. Neighbours count as evidence whatever they are."""

    roles: Annotated[list[Role] | None, Meta(description="Who speaks, any of these.", examples=[["user"]])] = None
    types: Annotated[
        list[EventType] | None, Meta(description="Types of event, any of these.", examples=[["message"]])
    ] = None
    occurred_after: Annotated[
        Annotated[datetime, Meta(tz=True)] | None,
        Meta(description="Occurred at this time or later.", examples=["2026-01-01T00:00:00Z"]),
    ] = None
    occurred_before: Annotated[
        Annotated[datetime, Meta(tz=True)] | None,
        Meta(description="Occurred before this time.", examples=["2026-02-01T00:00:00Z"]),
    ] = None
    conversations: Annotated[
        Annotated[list[str], Meta(max_length=MAX_NAMED)] | None,
        Meta(description="Shown by any of these conversations."),
    ] = None
    sessions: Annotated[
        Annotated[list[Label], Meta(max_length=MAX_NAMED)] | None,
        Meta(description="Of any of these sessions, by your labels."),
    ] = None
    metadata: Annotated[
        dict[str, Any] | None,
        Meta(description="Members that the event's metadata has, with equal values.", examples=[{"client": "ios"}]),
    ] = None


class Place(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """An event by where it is shown."""

    conversation_id: Annotated[str, Meta(description="The conversation's id.", examples=["conv_" + "0" * 48])]
    seq: Annotated[int, Meta(ge=1, le=2**53, description="Its place there.", examples=[41])]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """``user`` or ``conversation``, or neither: all of the tenant.

    ``until``: of a conversation, only what it held up to this seq. ``heads``: only what each conversation itself had
    appended up to its seq: as another search saw them. ``also_tokens``: what else was ranked is wanted too, for a
    context of so many tokens.
    """

    query: str
    k: int
    user: str | None = None
    conversation: ConversationId | None = None
    type: str | None = None
    filters: Filters = Filters()
    within: tuple[ConversationId, ...] | None = None
    min_seq: int | None = None
    until: int | None = None
    heads: Mapping[UUID, int] | None = None
    also_tokens: int = 0
    explain: bool = False
    why_not: tuple[Place, ...] = ()
