"""``/v1/conversations``: create, read, list, describe, fork and delete; users and erasures beside them."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import sqlalchemy as sa
from litestar import Response, delete, get, post, put
from litestar.params import FromPath
from msgspec import UNSET, Meta, Raw, UnsetType

from server.api.documentation import Answer, document
from server.api.edge import (
    Call,
    admit,
    conversation_id,
    decode,
    decode_bytes,
    header,
    read_body,
    read_query,
    reply,
    services,
)
from server.api.events import AppendHeaders, ConversationPath, check_key
from server.api.new_items import MAX_ITEMS, NewItem, attempt_number, events_of, openai_statuses
from server.database.ids import ConversationId, parse_conversation_id
from server.errors import InvalidInput, NotFound, TooLarge
from server.log import conversations
from server.log.conversations import Conversation
from server.log.erase import erase_conversation, was_erased
from server.log.events import MAX_METADATA_BYTES

Name = Annotated[str, Meta(min_length=1, max_length=512)]
_ID = "conv_" + "0" * 48
_MAYBE = {"type": ["object", "null"]}
_FIRST = {"role": "user", "content": "I moved to Lisbon."}


class CreateConversation(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A conversation to create; `{}` makes one that stands alone."""

    user: Annotated[
        Name | None,
        Meta(description="The end user it belongs to, in your own words; fixed for good.", examples=["ada"]),
    ] = None
    metadata: Annotated[
        Raw | UnsetType,
        Meta(
            description="A JSON object of your own, up to 64 KiB, kept verbatim.",
            examples=[{"channel": "web"}],
            extra_json_schema=_MAYBE,
        ),
    ] = UNSET
    origin_id: Annotated[
        Name | None,
        Meta(
            description="Its id in another system: creating it again returns the same conversation.",
            examples=["thread_81"],
        ),
    ] = None
    items: Annotated[
        Annotated[list[NewItem], Meta(max_length=MAX_ITEMS)] | None,
        Meta(description="Its first events, up to 20, in the shape of items.", examples=[[_FIRST]]),
    ] = None


class DescribeConversation(msgspec.Struct, forbid_unknown_fields=True):
    """What to change."""

    metadata: Annotated[
        Raw,
        Meta(
            description="A JSON object that replaces the metadata; null empties it.",
            examples=[{"channel": "phone"}],
            extra_json_schema=_MAYBE,
        ),
    ]


class ForkConversation(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Where to fork."""

    at_seq: Annotated[
        int,
        Meta(
            ge=0, le=2**53, description="The last seq that both share, up to the head; 0 shares nothing.", examples=[3]
        ),
    ]
    metadata: Annotated[
        Raw | UnsetType,
        Meta(
            description="The fork's metadata; by default, the parent's.",
            examples=[{"branch": "retry"}],
            extra_json_schema=_MAYBE,
        ),
    ] = UNSET
    origin_id: Annotated[Name | None, Meta(description="Its id in another system.", examples=["thread_81b"])] = None


class SetRetention(msgspec.Struct, forbid_unknown_fields=True):
    """How long a conversation keeps its events."""

    retention_days: Annotated[
        Annotated[int, Meta(ge=1, le=36500)] | None, Meta(description="Days; null follows the tenant's.", examples=[30])
    ]


class ConversationReply(msgspec.Struct, kw_only=True):
    """A conversation, without its events."""

    id: Annotated[str, Meta(description="Its id.", examples=[_ID])]
    object: Annotated[Literal["conversation"], Meta(description="Always `conversation`.")] = "conversation"
    created_at: Annotated[int, Meta(description="Unix time in seconds.", examples=[1777885200])]
    metadata: Annotated[
        Raw,
        Meta(
            description="Your own JSON object, verbatim.",
            examples=[{"channel": "web"}],
            extra_json_schema={"type": "object"},
        ),
    ]
    user: Annotated[
        str | None, Meta(description="The end user it belongs to; null: it stands alone.", examples=["ada"])
    ]
    head: Annotated[int, Meta(description="The seq of its last event; 0 when it has none.", examples=[41])]
    origin_id: Annotated[str | None, Meta(description="Its id where it came from.", examples=["thread_81"])]
    forked_from: Annotated[
        str | None, Meta(description="The conversation whose past it shares; null when it is no fork.", examples=[_ID])
    ]
    fork_seq: Annotated[int | None, Meta(description="The last seq that it shares.", examples=[3])]
    retention_days: Annotated[
        int | None, Meta(description="Its own retention in days; null follows the tenant's.", examples=[30])
    ]


class ConversationList(msgspec.Struct, kw_only=True):
    """A page of conversations."""

    object: Annotated[Literal["list"], Meta(description="Always `list`.")] = "list"
    data: Annotated[list[ConversationReply], Meta(description="In the order asked for.")]
    has_more: Annotated[bool, Meta(description="Whether there are more after `last_id`.", examples=[False])]
    first_id: Annotated[str | None, Meta(description="The first id here; null when empty.", examples=[_ID])]
    last_id: Annotated[str | None, Meta(description="The last id here, for `after`.", examples=[_ID])]


class DeletedConversation(msgspec.Struct, kw_only=True):
    """That it is gone."""

    id: Annotated[str, Meta(description="The id that it had.", examples=[_ID])]
    object: Annotated[Literal["conversation.deleted"], Meta(description="Always `conversation.deleted`.")] = (
        "conversation.deleted"
    )
    deleted: Annotated[bool, Meta(description="Always true.")] = True


class ListQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which conversations."""

    user: Annotated[str | None, Meta(description="Only this user's.", examples=["ada"])] = None
    origin_id: Annotated[
        str | None, Meta(description="Only the one with this id in another system.", examples=["thread_81"])
    ] = None
    after: Annotated[str | None, Meta(description="Begin after this id.", examples=[_ID])] = None
    limit: Annotated[int, Meta(ge=1, le=100, description="How many at most.", examples=[20])] = 20
    order: Annotated[
        Literal["asc", "desc"], Meta(description="By creation; `desc` begins with the newest.", examples=["desc"])
    ] = "desc"


_LINKS = {
    operation: {"conversation": "$response.body#/id"}
    for operation in (
        "get_conversation",
        "update_conversation",
        "set_retention",
        "fork_conversation",
        "delete_conversation",
        "append_events",
        "list_events",
    )
}
_create = msgspec.json.Decoder(CreateConversation)
_describe = msgspec.json.Decoder(DescribeConversation)
_fork = msgspec.json.Decoder(ForkConversation)
_retention = msgspec.json.Decoder(SetRetention)


def present(conversation: Conversation) -> ConversationReply:
    """Return the wire form of a conversation."""
    forked_from = conversation.forked_from
    return ConversationReply(
        id=str(conversation.id),
        created_at=int(conversation.created_at.timestamp()),
        metadata=Raw(conversation.metadata.encode()),
        user=conversation.user,
        head=conversation.head,
        origin_id=conversation.origin_id,
        forked_from=str(forked_from) if forked_from else None,
        fork_seq=conversation.fork_seq,
        retention_days=conversation.retention_days,
    )


def _object(raw: Raw | UnsetType) -> str | None:
    """Return metadata as text, None when absent; raises InvalidInput and TooLarge."""
    if isinstance(raw, UnsetType) or bytes(raw) == b"null":
        return None
    if bytes(raw)[:1] != b"{":
        raise InvalidInput("metadata is a JSON object", param="metadata")
    if len(raw) > MAX_METADATA_BYTES:
        raise TooLarge(f"metadata of {len(raw)} bytes is over {MAX_METADATA_BYTES}", param="metadata")
    return bytes(raw).decode()


def _plain(name: str | None, param: str) -> str | None:
    if name is not None and "\0" in name:
        raise InvalidInput("U+0000 is kept in content and metadata, not in names", param=param)
    return name


@post(
    "/v1/conversations",
    **document(
        summary="Create a conversation",
        tag="Conversations",
        description=(
            "With an `Idempotency-Key` or an `origin_id`, a retry returns what the first try made; without either, it "
            "may leave a conversation behind whose id nobody knows."
        ),
        request=CreateConversation,
        request_required=False,
        examples={"of a user": {"user": "ada", "metadata": {"channel": "web"}}, "alone": {}},
        responses={200: Answer(body=ConversationReply, links=_LINKS)},
        headers=AppendHeaders,
    ),
)
async def create_conversation(request: Call) -> Response[bytes]:
    caller = await admit(request, "append")
    parts = services(request)
    body = await read_body(request)
    with openai_statuses(wanted=attempt_number(request) is not None):  # this path is also the native one
        command = decode_bytes(body or b"{}", _create)
        first = events_of(command.items, max_bytes=parts.settings.max_event_bytes) if command.items else []
        metadata = _object(command.metadata) or "{}"
    key = header(request, b"idempotency-key")
    made = await conversations.create(
        parts.database,
        caller.tenant,
        user=_plain(command.user, "user"),
        metadata=metadata,
        origin_id=_plain(command.origin_id, "origin_id"),
        idempotency_key=check_key(key) if key is not None else None,
        body=body,
        items=first,
    )
    if command.items:
        parts.embedder.hint(caller.tenant, made.id, len(command.items))
    return reply(present(made))


@get(
    "/v1/conversations",
    **document(
        summary="List conversations",
        tag="Conversations",
        description="Newest first by default; all of the tenant's, or one user's.",
        responses={200: ConversationList},
        query=ListQuery,
    ),
)
async def list_conversations(request: Call) -> Response[bytes]:
    caller = await admit(request, "read")
    query = read_query(request, ListQuery)
    after: UUID | None = None
    if query.after is not None:
        parsed = parse_conversation_id(query.after)
        if parsed is None:
            raise InvalidInput(f"after is {query.after!r}; give the id of a conversation", param="after")
        after = parsed.uuid
    found, has_more = await conversations.listing(
        services(request).database,
        caller.tenant,
        user=query.user,
        origin_id=query.origin_id,
        after=after,
        limit=query.limit,
        descending=query.order == "desc",
    )
    data = [present(one) for one in found]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return reply(ConversationList(data=data, has_more=has_more, first_id=first, last_id=last))


@get(
    "/v1/conversations/{conversation:str}",
    **document(
        summary="Read a conversation",
        tag="Conversations",
        description="Its head, user, metadata and lineage; its events are read from its log.",
        responses={200: ConversationReply},
        path=ConversationPath,
        errors=[NotFound],
    ),
)
async def get_conversation(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "read")
    return reply(
        present(await conversations.get(services(request).database, caller.tenant, conversation_id(conversation)))
    )


@post(
    "/v1/conversations/{conversation:str}",
    **document(
        summary="Replace a conversation's metadata",
        tag="Conversations",
        description="The whole of it; nothing else of a conversation can be changed.",
        request=DescribeConversation,
        examples={"metadata": {"metadata": {"channel": "phone"}}},
        responses={200: ConversationReply},
        path=ConversationPath,
        errors=[NotFound],
    ),
)
async def update_conversation(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "append")
    with openai_statuses(wanted=attempt_number(request) is not None):
        metadata = _object((await decode(request, _describe)).metadata) or "{}"
    return await _changed(request, caller.tenant, conversation_id(conversation), metadata=metadata)


@put(
    "/v1/conversations/{conversation:str}/retention",
    **document(
        summary="Set a conversation's retention",
        tag="Erasure",
        description="Events recorded longer ago than this are erased for good by the next run of retention.",
        request=SetRetention,
        examples={"thirty days": {"retention_days": 30}, "the tenant's": {"retention_days": None}},
        responses={200: ConversationReply},
        path=ConversationPath,
        errors=[NotFound],
    ),
)
async def set_retention(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "admin")
    days = (await decode(request, _retention)).retention_days
    return await _changed(
        request, caller.tenant, conversation_id(conversation), retention_days=sa.null() if days is None else days
    )


async def _changed(request: Call, tenant: Any, at: ConversationId, **changes: Any) -> Response[bytes]:
    return reply(present(await conversations.describe(services(request).database, tenant, at, **changes)))


@post(
    "/v1/conversations/{conversation:str}/fork",
    **document(
        summary="Fork a conversation",
        tag="Conversations",
        description="It shares the past up to `at_seq`, copying nothing; what comes later never shows in the other.",
        request=ForkConversation,
        examples={"after the third event": {"at_seq": 3}},
        responses={201: Answer(body=ConversationReply, links=_LINKS)},
        path=ConversationPath,
        errors=[NotFound],
    ),
)
async def fork_conversation(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "append")
    command = await decode(request, _fork)
    made = await conversations.fork(
        services(request).database,
        caller.tenant,
        conversation_id(conversation),
        command.at_seq,
        metadata=_object(command.metadata),
        origin_id=_plain(command.origin_id, "origin_id"),
    )
    return reply(present(made), 201)


@delete(
    "/v1/conversations/{conversation:str}",
    **document(
        summary="Delete a conversation",
        tag="Erasure",
        description="Its own events are erased; what live forks of it still show is erased with the last of them.",
        responses={200: DeletedConversation},
        path=ConversationPath,
        errors=[NotFound],
    ),
)
async def delete_conversation(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "erase")
    parts = services(request)
    at = conversation_id(conversation)
    try:
        await erase_conversation(parts.database, caller.tenant, at, actor=caller.actor)
        parts.follower.appended(at)
    except NotFound:
        # The answer to a retry by one of OpenAI's SDKs, whose first try was answered into the void.
        if not attempt_number(request) or not await was_erased(parts.database, caller.tenant, at):
            raise
    return reply(DeletedConversation(id=str(at)))


HANDLERS = [
    create_conversation,
    list_conversations,
    get_conversation,
    update_conversation,
    set_retention,
    fork_conversation,
    delete_conversation,
]
