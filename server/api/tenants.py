"""``/v1/tenants``: create, list, read and change the tenants of this server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath
from msgspec import UNSET, Meta, UnsetType

from server.access import tenants
from server.access.tenants import MAX_RETENTION_DAYS, NAME_PATTERN, UNCHANGED, TenantRow
from server.api.documentation import Answer, document
from server.api.edge import Call, admit, admit_operator, decode, decoded, read_query, reply, services
from server.errors import Conflict, Forbidden, InvalidInput, NotFound
from server.log.erase import erase_tenant

TenantName = Annotated[str, Meta(min_length=1, max_length=64, pattern=NAME_PATTERN)]
RetentionDays = Annotated[int, Meta(ge=1, le=MAX_RETENTION_DAYS)]


class CreateTenant(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A tenant to create."""

    name: Annotated[
        TenantName, Meta(description="Unique on this server; addresses the tenant as its id does.", examples=["acme"])
    ]
    retention_days: Annotated[
        RetentionDays | None, Meta(description="Days after which events are erased; null keeps them.", examples=[365])
    ] = None


class UpdateTenant(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What to change; what is left out stays."""

    name: Annotated[
        TenantName | UnsetType, Meta(description="The new name; only an operator may rename.", examples=["acme-eu"])
    ] = UNSET
    retention_days: Annotated[
        RetentionDays | UnsetType | None,
        Meta(description="Days after which events are erased; null keeps them.", examples=[90]),
    ] = UNSET


class TenantReply(msgspec.Struct, kw_only=True):
    """A tenant: an isolated customer of this server."""

    id: Annotated[str, Meta(description="The tenant's id.", examples=["ten_2"])]
    name: Annotated[str, Meta(description="The tenant's name.", examples=["acme"])]
    operator: Annotated[bool, Meta(description="Whether its admin keys manage all tenants.", examples=[False])]
    retention_days: Annotated[
        int | None, Meta(description="Days after which events are erased; null keeps them.", examples=[365])
    ]
    created_at: Annotated[datetime, Meta(description="When it was created.", examples=["2026-05-04T09:00:00Z"])]


class TenantList(msgspec.Struct, kw_only=True):
    """A page of tenants."""

    data: Annotated[list[TenantReply], Meta(description="In the order asked for.")]
    has_more: Annotated[bool, Meta(description="Whether there are more after `last_id`.", examples=[False])]
    first_id: Annotated[str | None, Meta(description="The first id here; null when empty.", examples=["ten_2"])]
    last_id: Annotated[str | None, Meta(description="The last id here, for `after`.", examples=["ten_2"])]


class TenantPath(msgspec.Struct):
    """Which tenant."""

    tenant: Annotated[str, Meta(description="The tenant's id or name.", examples=["default"])]


class TenantQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which tenants."""

    after: Annotated[str | None, Meta(description="Begin after this id.", examples=["ten_1"])] = None
    limit: Annotated[int, Meta(ge=1, le=100, description="How many at most.", examples=[20])] = 20
    order: Annotated[
        Literal["asc", "desc"], Meta(description="By creation; `desc` begins with the newest.", examples=["desc"])
    ] = "desc"


_LINKS = {operation: {"tenant": "$response.body#/id"} for operation in ("get_tenant", "update_tenant", "delete_tenant")}
_create = msgspec.json.Decoder(CreateTenant)
_update = msgspec.json.Decoder(UpdateTenant)


def present(row: TenantRow) -> TenantReply:
    """Return the wire form of a tenant, without its salt."""
    return TenantReply(
        id=row.wire_id,
        name=row.tenant.name,
        operator=row.tenant.operator,
        retention_days=row.tenant.retention_days,
        created_at=row.created_at.astimezone(UTC),
    )


class DeletedTenant(msgspec.Struct, kw_only=True):
    """That it is gone."""

    id: Annotated[str, Meta(description="The tenant that was erased.", examples=["ten_2"])]
    object: Annotated[Literal["tenant.deleted"], Meta(description="What this is.")] = "tenant.deleted"
    deleted: Annotated[bool, Meta(description="Always true.")] = True


@post(
    "/v1/tenants",
    **document(
        summary="Create a tenant",
        tag="Tenants",
        description="For an operator's admin key. Then create a key for the tenant.",
        request=CreateTenant,
        examples={"a customer": {"name": "acme"}, "with retention": {"name": "acme-eu", "retention_days": 365}},
        responses={201: Answer(body=TenantReply, links=_LINKS)},
        errors=[Conflict],
    ),
)
async def create_tenant(request: Call) -> Response[bytes]:
    await admit_operator(request)
    command = await decode(request, _create)
    made = await tenants.create_tenant(services(request).database, command.name, retention_days=command.retention_days)
    return reply(present(made), 201)


@get(
    "/v1/tenants",
    **document(
        summary="List tenants",
        tag="Tenants",
        description="For an operator's admin key.",
        query=TenantQuery,
        responses={200: TenantList},
    ),
)
async def list_tenants(request: Call) -> Response[bytes]:
    await admit_operator(request)
    query = read_query(request, TenantQuery)
    after = None if query.after is None else tenants.parse_id(query.after)
    if query.after is not None and after is None:
        raise InvalidInput(f"after is {query.after!r}; give the id of a tenant, such as ten_1", param="after")
    rows, has_more = await tenants.list_tenants(
        services(request).database, after=after, limit=query.limit, descending=query.order == "desc"
    )
    data = [present(row) for row in rows]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return reply(TenantList(data=data, has_more=has_more, first_id=first, last_id=last))


@get(
    "/v1/tenants/{tenant:str}",
    **document(
        summary="Read a tenant",
        tag="Tenants",
        description="Your own, or any for an operator's admin key.",
        path=TenantPath,
        responses={200: TenantReply},
        errors=[NotFound],
    ),
)
async def get_tenant(request: Call, tenant: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "admin")
    return reply(
        present(
            await tenants.find_tenant(
                services(request).database, decoded(tenant, "there is no such tenant"), caller=caller.tenant
            )
        )
    )


@post(
    "/v1/tenants/{tenant:str}",
    **document(
        summary="Change a tenant",
        tag="Tenants",
        description="Your own retention; or, for an operator's admin key, the name and retention of any tenant.",
        path=TenantPath,
        request=UpdateTenant,
        examples={"keep 90 days": {"retention_days": 90}, "keep for good": {"retention_days": None}},
        responses={200: TenantReply},
        errors=[NotFound, Conflict],
    ),
)
async def update_tenant(request: Call, tenant: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "admin")
    command = await decode(request, _update)
    database = services(request).database
    found = await tenants.find_tenant(database, decoded(tenant, "there is no such tenant"), caller=caller.tenant)
    if command.name is not UNSET and not caller.tenant.operator:
        # Whether a name is taken would tell a tenant which others exist.
        raise Forbidden("only an operator may rename a tenant", param="name")
    changed = await tenants.update_tenant(
        database,
        found.tenant.id,
        name=UNCHANGED if isinstance(command.name, UnsetType) else command.name,
        retention_days=UNCHANGED if isinstance(command.retention_days, UnsetType) else command.retention_days,
    )
    return reply(present(changed))


@delete(
    "/v1/tenants/{tenant:str}",
    **document(
        summary="Erase a tenant",
        tag="Erasure",
        description="Its keys stop working, then all that it holds goes. For an operator, and never its own tenant.",
        path=TenantPath,
        responses={200: DeletedTenant},
        errors=[NotFound, Conflict],
    ),
)
async def delete_tenant(request: Call, tenant: FromPath[str]) -> Response[bytes]:
    caller = await admit_operator(request)
    database = services(request).database
    found = await tenants.find_tenant(database, decoded(tenant, "there is no such tenant"), caller=caller.tenant)
    if found.tenant.operator:
        raise Conflict("an operator's tenant cannot be erased over the API: its keys manage the others", param="tenant")
    await erase_tenant(database, found.tenant, actor=caller.actor)
    return reply(DeletedTenant(id=tenants.wire_id(found.tenant.id)))


HANDLERS = [create_tenant, list_tenants, get_tenant, update_tenant, delete_tenant]
