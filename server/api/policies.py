"""``/v1/policies``: the eviction policies there are."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Response, get
from msgspec import Meta

from server.api.documentation import document
from server.api.edge import Call, admit, reply
from server.working_set.described import PolicyDescription, described


class PolicyList(msgspec.Struct):
    """All eviction policies."""

    data: Annotated[list[PolicyDescription], Meta(description="By name.")]


@get(
    "/v1/policies",
    **document(
        summary="List eviction policies",
        tag="Working set",
        description="When each wins and loses, and what can be set. Choose one with `PUT …/working-set`.",
        responses={200: PolicyList},
    ),
)
async def list_policies(request: Call) -> Response[bytes]:
    await admit(request, "read")
    return reply(PolicyList(described()))


HANDLERS = [list_policies]
