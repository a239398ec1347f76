"""``/v1/conversations/{id}/items``: the log as OpenAI's Conversations API shows it: its SDKs work unmodified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, urlencode

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath
from msgspec import Meta

from server.api.conversations import ConversationReply, present
from server.api.documentation import document
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
from server.api.events import AppendHeaders, ConversationPath, check_key
from server.api.new_items import MAX_ITEMS, NewItem, attempt_number, events_of, openai_statuses
from server.database.ids import ConversationId, parse_event_id
from server.database.tenant import Tenant
from server.errors import BadRequest, Conflict, IdConflict, InvalidInput, NotFound
from server.items.ids import event_id
from server.items.kinds import SHOWN
from server.items.views import view
from server.items.writing import Encoded, encode
from server.log import conversations
from server.log.append import Idempotency
from server.log.events import deletion_of
from server.log.retries import Attempt
from server.log.stored import StoredEvent
from server.log.undeleted import read_undeleted, read_undeleted_event

_ITEM: Final = "msg_0196996af0f07c3a9f4e5d6c7b8a9012_41"
_MISSING: Final = "no such item"
_INCLUDE: Final = ("include", "include[]")


class CreateItems(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Items to append, all or none, in this order."""

    items: Annotated[list[NewItem], Meta(min_length=1, max_length=MAX_ITEMS, description="1 to 20 items.")]


class ItemReply(msgspec.Struct, kw_only=True):
    """An item, with whatever fields its type has."""

    id: Annotated[str, Meta(description="Your id for it, else the server's.", examples=[_ITEM])]
    type: Annotated[str, Meta(description="What it is.", examples=["message"])]


class ItemList(msgspec.Struct, kw_only=True):
    """A page of items."""

    object: Annotated[Literal["list"], Meta(description="Always `list`.")] = "list"
    data: Annotated[list[ItemReply], Meta(description="In the order asked for.")]
    has_more: Annotated[bool, Meta(description="Whether there are more after `last_id`.", examples=[False])]
    first_id: Annotated[str | None, Meta(description="The first id here; null when empty.", examples=[_ITEM])]
    last_id: Annotated[str | None, Meta(description="The last id here, for `after`.", examples=[_ITEM])]


class ItemPath(ConversationPath):
    """Which item."""

    item: Annotated[str, Meta(description="The item's id, yours or the server's.", examples=[_ITEM])]


class IncludeQuery(msgspec.Struct, forbid_unknown_fields=True):
    """What to include."""

    include: Annotated[
        list[str],
        Meta(description="Taken, also as `include[]`, and without effect: everything that was sent is shown."),
    ] = msgspec.field(default_factory=list)


class ItemsQuery(IncludeQuery, forbid_unknown_fields=True):
    """Which items."""

    after: Annotated[str | None, Meta(description="Begin after this id.", examples=[_ITEM])] = None
    limit: Annotated[int, Meta(ge=1, le=100, description="How many at most.", examples=[20])] = 20
    order: Annotated[Literal["asc", "desc"], Meta(description="`desc` begins with the latest.", examples=["desc"])] = (
        "desc"
    )


_create = msgspec.json.Decoder(CreateItems)
_json = msgspec.json.Encoder().encode
_EXAMPLES = {
    "message": {"items": [{"role": "user", "content": "I moved to Lisbon."}]},
    "call and output": {
        "items": [
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Lisbon"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "21 °C, clear"},
        ]
    },
}


def _query(request: Call, shape: type[Any]) -> Any:
    """Return the query parameters but for ``include``, which may come as often as it likes."""
    if not request.scope["query_string"]:
        return shape()
    if b"include" not in request.scope["query_string"]:
        return read_query(request, shape)
    given = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    if any(name in _INCLUDE for name, _ in given):
        rest = [(name, value) for name, value in given if name not in _INCLUDE]
        request.scope["query_string"] = urlencode(rest).encode()
    return read_query(request, shape)


def _listed(items: Sequence[Encoded], *, has_more: bool) -> Response[bytes]:
    first, last = (_json(items[0].id), _json(items[-1].id)) if items else (b"null", b"null")
    return reply_encoded(
        b'{"object":"list","data":[%b],"has_more":%b,"first_id":%b,"last_id":%b}'
        % (b",".join(item.json for item in items), b"true" if has_more else b"false", first, last)
    )


@post(
    "/v1/conversations/{conversation:str}/items",
    **document(
        summary="Create items",
        tag="Items",
        description="Durable when answered. All items are stored, or none; a retry by OpenAI's SDK adds nothing.",
        request=CreateItems,
        examples=_EXAMPLES,
        responses={200: ItemList},
        path=ConversationPath,
        query=IncludeQuery,
        headers=AppendHeaders,
        errors=[NotFound, Conflict],
    ),
)
async def create_items(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "append")
    parts = services(request)
    at = conversation_id(conversation)
    body = await read_body(request)
    with openai_statuses():
        _query(request, IncludeQuery)
        events = events_of(decode_bytes(body, _create).items, max_bytes=parts.settings.max_event_bytes)
        key, number = header(request, b"idempotency-key"), attempt_number(request)
        idempotency = Idempotency.of(caller.tenant, at, check_key(key), body) if key is not None else None
    attempt = None
    if idempotency is None and number is not None:
        attempt = Attempt.of(caller.tenant, caller.key_id, at, body, number)
    try:
        appended = await parts.appender.append(
            caller.tenant, at, events, idempotency=idempotency, attempt=attempt, reuse_deleted_ids=True
        )
    except IdConflict as error:
        raise IdConflict(error.message, param=(error.param or "").replace("events", "items", 1)) from None
    if not appended.replayed:
        parts.follower.appended(at)
    pairs = zip(events, appended.events, strict=True)
    return _listed([encode(event.id or str(place), event) for event, place in pairs], has_more=False)


@get(
    "/v1/conversations/{conversation:str}/items",
    **document(
        summary="List items",
        tag="Items",
        description="Newest first by default. Neither what was deleted is an item, nor what steers the server.",
        responses={200: ItemList},
        path=ConversationPath,
        query=ItemsQuery,
        errors=[NotFound, BadRequest],
    ),
)
async def list_items(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "read")
    parts = services(request)
    at = conversation_id(conversation)
    with openai_statuses():
        query: ItemsQuery = _query(request, ItemsQuery)
        after = await _place(request, caller.tenant, at, query.after) if query.after is not None else None
    page = await read_undeleted(
        parts.tails,
        parts.deletions,
        caller.tenant,
        at,
        view,
        after_seq=after,
        limit=query.limit,
        descending=query.order == "desc",
    )
    return _listed(page.shown, has_more=page.has_more)


class _Stored(NamedTuple):
    """An item with its event; ``is_deleted``: it was one."""

    event: StoredEvent
    item: Encoded
    is_deleted: bool


async def _place(request: Call, tenant: Tenant, at: ConversationId, after: str) -> int:
    """Return the seq of the item to begin after, be it deleted or not; raises InvalidInput."""
    own = parse_event_id(event_id(after))
    if own is not None and own.conversation == at.uuid:
        return own.seq
    try:
        return (await _stored(request, tenant, at, after)).event.seq
    except NotFound:
        raise InvalidInput(f"after is {after!r}, which is no item of this conversation", param="after") from None


async def _stored(request: Call, tenant: Tenant, at: ConversationId, name: str) -> _Stored:
    """Return an item by its id, deleted or not; raises NotFound."""
    database = services(request).database
    event = event_id(name)
    try:
        found, is_deleted = await read_undeleted_event(database, tenant, at, event)
    except NotFound:
        if event == name:
            raise
        # The caller's own id, though it looks like one of ours.
        found, is_deleted = await read_undeleted_event(database, tenant, at, name)
    if found.type in SHOWN and found.erased_at is None:
        item = encode(found.id, found)
        if item.id == name:
            return _Stored(found, item, is_deleted)
    raise NotFound(_MISSING)


@get(
    "/v1/conversations/{conversation:str}/items/{item:str}",
    **document(
        summary="Read one item",
        tag="Items",
        description="As it was sent, with an id and a status.",
        responses={200: ItemReply},
        path=ItemPath,
        query=IncludeQuery,
        errors=[NotFound, BadRequest],
    ),
)
async def get_item(request: Call, conversation: FromPath[str], item: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "read")
    at = conversation_id(conversation)
    with openai_statuses():
        _query(request, IncludeQuery)
    found = await _stored(request, caller.tenant, at, decoded(item, _MISSING))
    if found.is_deleted:
        raise NotFound(_MISSING)
    return reply_encoded(found.item.json)


@delete(
    "/v1/conversations/{conversation:str}/items/{item:str}",
    **document(
        summary="Delete an item",
        tag="Items",
        description=(
            "It is no item any more and leaves the working set; the log still shows it, and the `deletion`. "
            "To erase it for good, delete the event."
        ),
        responses={200: ConversationReply},
        path=ItemPath,
        errors=[NotFound],
    ),
)
async def delete_item(request: Call, conversation: FromPath[str], item: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "append")
    parts = services(request)
    at = conversation_id(conversation)
    found = await _stored(request, caller.tenant, at, decoded(item, _MISSING))
    appended = await parts.appender.append(caller.tenant, at, [deletion_of(found.event.seq)])
    if not appended.replayed:
        parts.follower.appended(at)
    elif not attempt_number(request):  # the answer to a retry that is one is that it is done
        raise NotFound(_MISSING)
    return reply(present(await conversations.get(parts.database, caller.tenant, at)))


HANDLERS = [create_items, list_items, get_item, delete_item]
