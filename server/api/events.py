"""``/v1/conversations/{id}/events``: append to the log and read it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath
from msgspec import Meta

from server.api.documentation import Answer, document
from server.api.edge import (
    Call,
    admit,
    conversation_id,
    decode_bytes,
    decoded,
    header,
    read_body,
    read_query,
    reply,
    reply_encoded,
    services,
)
from server.context.control import check_choices
from server.errors import Conflict, InvalidInput, NotFound
from server.log.append import Idempotency
from server.log.erase import erase_event
from server.log.events import NewEvent, validate
from server.log.read import read_event
from server.log.stored import StoredEvent

MAX_KEY = 256
_EVENT = "evt_0196996af0f07c3a9f4e5d6c7b8a9012_41"


class AppendEvents(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Events to append, all or none, in this order."""

    events: Annotated[list[NewEvent], Meta(description="1 to 1,000 events.")]
    expected_head: Annotated[
        Annotated[int, Meta(ge=0, le=2**53)] | None,
        Meta(description="Append only if this is the last seq; else 409 with the true head.", examples=[41]),
    ] = None


class AppendedEvent(msgspec.Struct):
    """An event that is now durable."""

    id: Annotated[str, Meta(description="Your id for it, else the server's.", examples=[_EVENT])]
    seq: Annotated[int, Meta(description="Its place in the conversation.", examples=[41])]


class AppendReply(msgspec.Struct):
    """What an append answers; the same again for a retry with the same Idempotency-Key."""

    events: Annotated[list[AppendedEvent], Meta(description="In the order sent.")]
    head: Annotated[int, Meta(description="The last seq of the conversation after this append.", examples=[41])]


class EventPage(msgspec.Struct):
    """A range of the log."""

    data: Annotated[list[StoredEvent], Meta(description="In the order asked for.")]
    has_more: Annotated[bool, Meta(description="Whether the range goes on beyond these.", examples=[False])]
    head: Annotated[int, Meta(description="The last seq of the conversation.", examples=[41])]


class ConversationPath(msgspec.Struct):
    """Which conversation."""

    conversation: Annotated[str, Meta(description="The conversation's id.", examples=["conv_" + "0" * 48])]


class EventPath(ConversationPath):
    """Which event."""

    event: Annotated[str, Meta(description="The event's id, yours or the server's.", examples=[_EVENT])]


class AppendHeaders(msgspec.Struct, rename={"idempotency_key": "Idempotency-Key"}):
    """How to retry without doubling."""

    idempotency_key: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_KEY)] | None,
        Meta(
            description="The same key and body give the first answer again; with another body, 422.",
            examples=["7d1f0c9e-42b1"],
        ),
    ] = None


class RangeQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which part of the log, and which way."""

    after_seq: Annotated[int, Meta(ge=0, le=2**53, description="Only events after this seq.", examples=[0])] = 0
    before_seq: Annotated[
        Annotated[int, Meta(ge=1, le=2**53)] | None, Meta(description="Only events before this seq.", examples=[42])
    ] = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="How many at most.", examples=[50])] = 50
    order: Annotated[Literal["asc", "desc"], Meta(description="`desc` begins with the latest.", examples=["desc"])] = (
        "asc"
    )
    as_of: Annotated[
        str | None,
        Meta(description="The log as it stood at a seq, or at a time (RFC 3339).", examples=["41"]),
    ] = None


_LINKS = {
    operation: {"conversation": "$request.path.conversation", "event": "$response.body#/events/0/id"}
    for operation in ("get_event", "delete_event")
}
_append = msgspec.json.Decoder(AppendEvents)
_EXAMPLES = {
    "message": {"events": [{"role": "user", "content": "I moved to Lisbon."}]},
    "tool call and result": {
        "events": [
            {"type": "tool_call", "call_id": "call_1", "name": "weather", "content": {"city": "Lisbon"}},
            {"type": "tool_result", "call_id": "call_1", "role": "tool", "content": "21 °C, clear"},
        ]
    },
}


@post(
    "/v1/conversations/{conversation:str}/events",
    **document(
        summary="Append events",
        tag="Events",
        description="Durable when answered. All events are stored, or none.",
        request=AppendEvents,
        examples=_EXAMPLES,
        responses={201: Answer(body=AppendReply, links=_LINKS)},
        path=ConversationPath,
        headers=AppendHeaders,
        errors=[NotFound, Conflict],
    ),
)
async def append_events(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "append")
    parts = services(request)
    at = conversation_id(conversation)
    body = await read_body(request)
    command = decode_bytes(body, _append)
    validate(command.events, max_bytes=parts.settings.max_event_bytes)
    check_choices(command.events)
    key = header(request, b"idempotency-key")
    appended = await parts.appender.append(
        caller.tenant,
        at,
        command.events,
        expected_head=command.expected_head,
        idempotency=Idempotency.of(caller.tenant, at, check_key(key), body) if key is not None else None,
    )
    if not appended.replayed:
        parts.follower.appended(at)
    own = f"evt_{at.uuid.hex}_"  # str(place) of nearly all, without the detour: an append may have a thousand
    answer = [
        AppendedEvent(event.id or (f"{own}{place.seq}" if place.conversation is at.uuid else str(place)), place.seq)
        for event, place in zip(command.events, appended.events, strict=True)
    ]
    return reply(AppendReply(answer, appended.head), 201)


def check_key(key: str) -> str:
    """Return an Idempotency-Key that is usable; raises InvalidInput."""
    if not 1 <= len(key) <= MAX_KEY:
        raise InvalidInput(f"an Idempotency-Key has 1 to {MAX_KEY} characters, not {len(key)}", param="Idempotency-Key")
    return key


@get(
    "/v1/conversations/{conversation:str}/events",
    **document(
        summary="Read the log",
        tag="Events",
        description="A range of it, from either end, as it stands or stood. A fork shows the past that it shares.",
        responses={200: EventPage},
        path=ConversationPath,
        query=RangeQuery,
        errors=[NotFound],
    ),
)
async def list_events(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "read")
    query = read_query(request, RangeQuery)
    page = await services(request).tails.read_range(
        caller.tenant,
        conversation_id(conversation),
        after_seq=query.after_seq,
        before_seq=query.before_seq,
        limit=query.limit,
        descending=query.order == "desc",
        as_of=parse_as_of(query.as_of),
    )
    return reply_encoded(page.encode())


def parse_as_of(text: str | None) -> int | datetime | None:
    """Return the seq or the time that ``as_of`` names; raises InvalidInput."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 17:
        return int(text)
    try:
        # A "+" in a query string that was not escaped arrives as a blank.
        time: datetime = msgspec.convert(text.replace(" ", "+"), Annotated[datetime, Meta(tz=True)])
        return time.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise InvalidInput(
            f"as_of is {text!r}; give a seq, or a time such as 2026-01-31T12:00:00Z", param="as_of"
        ) from None


@get(
    "/v1/conversations/{conversation:str}/events/{event:str}",
    **document(
        summary="Read one event",
        tag="Events",
        description="An erased event is still there, with `erased_at` in place of its content.",
        responses={200: StoredEvent},
        path=EventPath,
        errors=[NotFound],
    ),
)
async def get_event(request: Call, conversation: FromPath[str], event: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "read")
    at = conversation_id(conversation)
    return reply(await read_event(services(request).database, caller.tenant, at, decoded(event, "no such event")))


@delete(
    "/v1/conversations/{conversation:str}/events/{event:str}",
    **document(
        summary="Erase one event",
        tag="Erasure",
        description="Its content goes, here and in every fork; its place stays. Erasing it again changes nothing.",
        responses={200: StoredEvent},
        path=EventPath,
        errors=[NotFound, InvalidInput],
    ),
)
async def delete_event(request: Call, conversation: FromPath[str], event: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "erase")
    parts = services(request)
    at = conversation_id(conversation)
    event = decoded(event, "no such event")
    found = await read_event(parts.database, caller.tenant, at, event)
    erased = await erase_event(parts.database, caller.tenant, at, found.seq, actor=caller.actor)
    for changed in erased:
        parts.follower.appended(changed)
        parts.embedder.hint(caller.tenant, changed)
    return reply(await read_event(parts.database, caller.tenant, at, event))


HANDLERS = [append_events, list_events, get_event, delete_event]
