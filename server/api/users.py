"""``/v1/users`` and ``/v1/erasures``: whose conversations there are, and what was erased."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath
from msgspec import Meta

from schema.vocabulary import ErasureScope
from server.api.documentation import document
from server.api.edge import Call, admit, decoded, read_query, reply, services
from server.database.ids import ConversationId
from server.errors import InvalidInput, NotFound
from server.log import conversations, erase, retention

_ERASURE = "erasure_0196996af0f07c3a9f4e5d6c7b8a9012"


class PageQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which part of a list."""

    after: Annotated[str | None, Meta(description="Begin after this id: the `last_id` of the page before.")] = None
    limit: Annotated[int, Meta(ge=1, le=100, description="How many at most.", examples=[20])] = 20
    order: Annotated[Literal["asc", "desc"], Meta(description="`desc` begins with the last.", examples=["asc"])] = "asc"


class UserReply(msgspec.Struct):
    """An end user."""

    id: Annotated[str, Meta(description="In your own words.", examples=["ada"])]
    created_at: Annotated[
        datetime, Meta(tz=True, description="When it was first named.", examples=["2026-05-04T09:00:00Z"])
    ]


class UserList(msgspec.Struct, kw_only=True):
    """A page of users, by id."""

    object: Annotated[Literal["list"], Meta(description="Always `list`.")] = "list"
    data: Annotated[list[UserReply], Meta(description="In the order asked for.")]
    has_more: Annotated[bool, Meta(description="Whether there are more after `last_id`.", examples=[False])]
    first_id: Annotated[str | None, Meta(description="The first id here; null when empty.", examples=["ada"])]
    last_id: Annotated[str | None, Meta(description="The last id here, for `after`.", examples=["ada"])]


class UserPath(msgspec.Struct):
    """Which user."""

    user: Annotated[str, Meta(description="The user's id, URL-encoded.", examples=["ada"])]


class DeletedUser(msgspec.Struct, kw_only=True):
    """That it is gone."""

    id: Annotated[str, Meta(description="The user's id, in your own words.", examples=["ada"])]
    object: Annotated[Literal["user.deleted"], Meta(description="Always `user.deleted`.")] = "user.deleted"
    deleted: Annotated[bool, Meta(description="Always true.")] = True
    events: Annotated[int, Meta(description="How many events were erased.", examples=[41])]


class ErasureReply(msgspec.Struct):
    """What was erased, when, and by whom; it names no person and holds no text."""

    id: Annotated[str, Meta(description="The record's id.", examples=[_ERASURE])]
    scope: Annotated[ErasureScope, Meta(description="What was erased.", examples=["event"])]
    conversation_id: Annotated[
        str | None, Meta(description="Where, for an event or a conversation.", examples=["conv_" + "0" * 48])
    ]
    first_seq: Annotated[int | None, Meta(description="The first seq that was erased there.", examples=[7])]
    last_seq: Annotated[int | None, Meta(description="The last seq that was erased there.", examples=[7])]
    events: Annotated[int, Meta(description="How many events were erased.", examples=[1])]
    actor: Annotated[
        str,
        Meta(description="The key that asked, or `retention`.", examples=["key_0196996af0f07c3a9f4e5d6c7b8a9012"]),
    ]
    created_at: Annotated[datetime, Meta(tz=True, description="When it was erased.", examples=["2026-05-04T09:00:00Z"])]


class ExpiredReply(msgspec.Struct):
    """What a run of retention removed."""

    conversations: Annotated[int, Meta(description="Conversations of which nothing was left.", examples=[0])]
    events: Annotated[int, Meta(description="Events that had expired.", examples=[0])]


class ErasureList(msgspec.Struct, kw_only=True):
    """A page of erasures, by time."""

    object: Annotated[Literal["list"], Meta(description="Always `list`.")] = "list"
    data: Annotated[list[ErasureReply], Meta(description="In the order asked for.")]
    has_more: Annotated[bool, Meta(description="Whether there are more after `last_id`.", examples=[False])]
    first_id: Annotated[str | None, Meta(description="The first id here; null when empty.", examples=[_ERASURE])]
    last_id: Annotated[str | None, Meta(description="The last id here, for `after`.", examples=[_ERASURE])]


@get(
    "/v1/users",
    **document(
        summary="List users",
        tag="Users",
        description="Every user that a conversation was made for, by id.",
        responses={200: UserList},
        query=PageQuery,
    ),
)
async def list_users(request: Call) -> Response[bytes]:
    caller = await admit(request, "read")
    query = read_query(request, PageQuery)
    found, has_more = await conversations.users(
        services(request).database,
        caller.tenant,
        after=query.after,
        limit=query.limit,
        descending=query.order == "desc",
    )
    data = [UserReply(name, created) for name, created in found]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return reply(UserList(data=data, has_more=has_more, first_id=first, last_id=last))


@delete(
    "/v1/users/{user:str}",
    **document(
        summary="Erase a user",
        tag="Erasure",
        description="Every conversation and event of the user goes; a record without the name stays.",
        responses={200: DeletedUser},
        path=UserPath,
        errors=[NotFound],
    ),
)
async def delete_user(request: Call, user: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "erase")
    name = decoded(user, "no such user")
    events = await erase.erase_user(services(request).database, caller.tenant, name, actor=caller.actor)
    return reply(DeletedUser(id=name, events=events))


@get(
    "/v1/erasures",
    **document(
        summary="List erasures",
        tag="Erasure",
        description="What was erased, when and by whom, oldest first by default; no names, no text.",
        responses={200: ErasureList},
        query=PageQuery,
    ),
)
async def list_erasures(request: Call) -> Response[bytes]:
    caller = await admit(request, "read")
    query = read_query(request, PageQuery)
    try:
        after = UUID(hex=query.after.removeprefix("erasure_")) if query.after is not None else None
    except ValueError:
        raise InvalidInput(f"after is {query.after!r}; give the id of an erasure", param="after") from None
    rows, has_more = await erase.listing(
        services(request).database, caller.tenant, after=after, limit=query.limit, descending=query.order == "desc"
    )
    data = [
        ErasureReply(
            f"erasure_{row.id.hex}",
            row.scope,
            str(ConversationId(row.user_key, row.conversation)) if row.conversation else None,
            row.first_seq,
            row.last_seq,
            row.events,
            row.actor,
            row.created_at,
        )
        for row in rows
    ]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return reply(ErasureList(data=data, has_more=has_more, first_id=first, last_id=last))


@post(
    "/v1/retention/run",
    **document(
        summary="Run retention now",
        tag="Erasure",
        description="For the key's own tenant; the server also runs it by itself, every hour by default.",
        responses={200: ExpiredReply},
    ),
)
async def run_retention(request: Call) -> Response[bytes]:
    caller = await admit(request, "admin")
    expired = await retention.run(services(request).database, caller.tenant)
    return reply(ExpiredReply(expired.conversations, expired.events))


HANDLERS = [list_users, delete_user, list_erasures, run_retention]
