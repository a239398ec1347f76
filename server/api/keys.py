"""``/v1/keys``: create, list, read and revoke API keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath
from msgspec import Meta

from schema.vocabulary import Scope
from server.access import keys
from server.access.key_format import parse_id
from server.access.keys import Key
from server.access.tenants import wire_id
from server.api.documentation import Answer, document
from server.api.edge import Call, admit, decode, decoded, named_tenant, read_query, reply, services
from server.errors import InvalidInput, NotFound

_KEY_ID = "key_0196996af0f07c3a9f4e5d6c7b8a9012"


class CreateKey(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A key to create."""

    name: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=100,
            pattern="^[^\\u0000-\\u001f\\u007f]+$",
            description="What the key is for, to tell keys apart.",
            examples=["chat backend"],
        ),
    ]
    scopes: Annotated[
        list[Scope],
        Meta(
            min_length=1,
            max_length=4,
            description="What it may do; `admin` includes all.",
            examples=[["read", "append"]],
        ),
    ]
    expires_at: Annotated[
        Annotated[datetime, Meta(tz=True)] | None,
        Meta(
            description="When it stops to work (RFC 3339, with a zone); null never.", examples=["2099-01-01T00:00:00Z"]
        ),
    ] = None
    rate_limit: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(description="Requests per second, shared out over server processes; null has no limit.", examples=[100]),
    ] = None
    tenant: Annotated[
        str | None,
        Meta(
            description="Another tenant's id or name, for an operator's admin key; by default your own.",
            examples=["default"],
        ),
    ] = None


class KeyReply(msgspec.Struct, kw_only=True):
    """A key, without its secret."""

    id: Annotated[str, Meta(description="The key's id.", examples=[_KEY_ID])]
    tenant: Annotated[str, Meta(description="The tenant that it belongs to.", examples=["ten_1"])]
    name: Annotated[str, Meta(description="What the key is for.", examples=["chat backend"])]
    prefix: Annotated[str, Meta(description="The first characters of the secret.", examples=["ts_a1B2c"])]
    scopes: Annotated[list[str], Meta(description="What it may do.", examples=[["read", "append"]])]
    rate_limit: Annotated[int | None, Meta(description="Requests per second; null has no limit.", examples=[100])]
    created_at: Annotated[datetime, Meta(description="When it was created.", examples=["2026-05-04T09:00:00Z"])]
    expires_at: Annotated[
        datetime | None, Meta(description="When it stops to work; null never.", examples=["2099-01-01T00:00:00Z"])
    ]
    revoked_at: Annotated[
        datetime | None, Meta(description="When it was revoked; null if it was not.", examples=["2026-06-01T12:00:00Z"])
    ]


class CreatedKey(KeyReply, kw_only=True):
    """A new key with its secret."""

    key: Annotated[
        str,
        Meta(
            description="The secret itself. Keep it now: it is never shown again.",
            examples=["ts_" + "a1B2c3D4" * 5 + "e5F"],
        ),
    ]


class KeyList(msgspec.Struct, kw_only=True):
    """A page of keys."""

    data: Annotated[list[KeyReply], Meta(description="In the order asked for, revoked ones included.")]
    has_more: Annotated[bool, Meta(description="Whether there are more after `last_id`.", examples=[False])]
    first_id: Annotated[str | None, Meta(description="The first id here; null when empty.", examples=[_KEY_ID])]
    last_id: Annotated[str | None, Meta(description="The last id here, for `after`.", examples=[_KEY_ID])]


class KeyPath(msgspec.Struct):
    """Which key."""

    key: Annotated[str, Meta(description="The key's id.", examples=[_KEY_ID])]


class KeyQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Whose key."""

    tenant: Annotated[
        str | None, Meta(description="Another tenant's id or name, for an operator.", examples=["default"])
    ] = None


class KeysQuery(KeyQuery, forbid_unknown_fields=True, kw_only=True):
    """Which keys."""

    after: Annotated[str | None, Meta(description="Begin after this id.", examples=[_KEY_ID])] = None
    limit: Annotated[int, Meta(ge=1, le=100, description="How many at most.", examples=[20])] = 20
    order: Annotated[
        Literal["asc", "desc"], Meta(description="By creation; `desc` begins with the newest.", examples=["desc"])
    ] = "desc"


_LINKS = {operation: {"key": "$response.body#/id"} for operation in ("get_key", "revoke_key")}
_create = msgspec.json.Decoder(CreateKey)


def present(key: Key) -> KeyReply:
    """Return the wire form of a key."""
    return KeyReply(
        id=key.wire_id,
        tenant=wire_id(key.tenant_id),
        name=key.name,
        prefix=key.prefix,
        scopes=list(key.scopes),
        rate_limit=key.rate_limit,
        created_at=key.created_at.astimezone(UTC),
        expires_at=key.expires_at and key.expires_at.astimezone(UTC),
        revoked_at=key.revoked_at and key.revoked_at.astimezone(UTC),
    )


@post(
    "/v1/keys",
    **document(
        summary="Create a key",
        tag="Keys",
        description="The secret is in this answer only: the server keeps its SHA-256.",
        request=CreateKey,
        examples={
            "a backend": {"name": "chat backend", "scopes": ["read", "append"]},
            "limited": {"name": "trial", "scopes": ["read"], "expires_at": "2099-01-01T00:00:00Z", "rate_limit": 10},
        },
        responses={201: Answer(body=CreatedKey, links=_LINKS)},
        errors=[NotFound],
    ),
)
async def create_key(request: Call) -> Response[bytes]:
    caller = await admit(request, "admin")
    command = await decode(request, _create)
    made, secret = await keys.create_key(
        services(request).database,
        (await named_tenant(request, caller, command.tenant)).id,
        name=command.name,
        scopes=command.scopes,
        expires_at=command.expires_at,
        rate_limit=command.rate_limit,
    )
    shown = CreatedKey(**msgspec.structs.asdict(present(made)), key=secret)
    return reply(shown, 201, {"cache-control": "no-store"})


@get(
    "/v1/keys",
    **document(
        summary="List keys",
        tag="Keys",
        description="Revoked and expired ones too; never their secrets.",
        query=KeysQuery,
        responses={200: KeyList},
        errors=[NotFound],
    ),
)
async def list_keys(request: Call) -> Response[bytes]:
    caller = await admit(request, "admin")
    query = read_query(request, KeysQuery)
    after = None if query.after is None else parse_id(query.after)
    if query.after is not None and after is None:
        raise InvalidInput(f"after is {query.after!r}; give the id of a key", param="after")
    found, has_more = await keys.list_keys(
        services(request).database,
        (await named_tenant(request, caller, query.tenant)).id,
        after=after,
        limit=query.limit,
        descending=query.order == "desc",
    )
    data = [present(key) for key in found]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return reply(KeyList(data=data, has_more=has_more, first_id=first, last_id=last))


@get(
    "/v1/keys/{key:str}",
    **document(
        summary="Read a key",
        tag="Keys",
        description="All but its secret.",
        path=KeyPath,
        query=KeyQuery,
        responses={200: KeyReply},
        errors=[NotFound],
    ),
)
async def get_key(request: Call, key: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "admin")
    tenant_id = (await named_tenant(request, caller, read_query(request, KeyQuery).tenant)).id
    return reply(
        present(await keys.get_key(services(request).database, tenant_id, decoded(key, "there is no such key")))
    )


@delete(
    "/v1/keys/{key:str}",
    **document(
        summary="Revoke a key",
        tag="Keys",
        description="It is refused everywhere within a second, for good. Revoking it again changes nothing.",
        path=KeyPath,
        query=KeyQuery,
        responses={200: KeyReply},
        errors=[NotFound],
    ),
)
async def revoke_key(request: Call, key: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "admin")
    tenant_id = (await named_tenant(request, caller, read_query(request, KeyQuery).tenant)).id
    return reply(
        present(await keys.revoke_key(services(request).database, tenant_id, decoded(key, "there is no such key")))
    )


HANDLERS = [create_key, list_keys, get_key, revoke_key]
