"""What OpenAPI says about a route is what its structs say."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Litestar, Response, get, post
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import FromPath

from server.api.documentation import Answer, Documentation, document
from server.errors import IdConflict, StaleHead

Label = Annotated[str, msgspec.Meta(min_length=1)]


class Stone(msgspec.Struct, forbid_unknown_fields=True):
    """A stone on the beach."""

    weight: Annotated[int, msgspec.Meta(description="In grams.", ge=1, examples=[40])]
    label: Annotated[msgspec.Raw | msgspec.UnsetType, msgspec.Meta(description="Anything.")] = msgspec.UNSET

    note: Annotated[msgspec.Raw, msgspec.Meta(description="Anything else.")] = msgspec.Raw(b"")
    more: Annotated[msgspec.Raw, msgspec.Meta(description="And else.")] = msgspec.Raw(b"[1]")


class Beach(msgspec.Struct):
    """Where stones lie."""

    stones: Annotated[list[Stone], msgspec.Meta(description="In order.")]


class ById(msgspec.Struct):
    stone_id: Annotated[str, msgspec.Meta(description="Which stone.", examples=["stone_1"])]


class Paging(msgspec.Struct, rename={"page_size": "page-size"}):
    page_size: Annotated[int, msgspec.Meta(description="How many.", ge=1, le=9)] = 3
    shore: Annotated[Label | None, msgspec.Meta(description="Which shore.")] = None


@post(
    "/stones",
    **document(
        summary="Add a stone",
        tag="Stones",
        request=Stone,
        examples={"small": {"weight": 40}},
        responses={201: Beach, 200: "It was there already."},
        errors=[StaleHead, IdConflict],
    ),
)
async def add_stone() -> Response[bytes]:
    return Response(b"")


@get(
    "/stones/{stone_id:str}",
    **document(
        summary="Watch a stone",
        tag="Stones",
        path=ById,
        query=Paging,
        responses={200: Answer(media_type="text/event-stream", description="Its moves.", headers={"X-Tide": "High?"})},
        public=True,
    ),
)
async def watch_stone(stone_id: FromPath[str]) -> Response[bytes]:
    return Response(b"")


def served() -> dict[str, Any]:
    app = Litestar(
        [add_stone, watch_stone],
        openapi_config=Documentation(title="Stones", version="1", render_plugins=[JsonRenderPlugin()]),
    )
    return app.openapi_schema.to_schema()


def test_a_body_is_described_by_its_struct() -> None:
    api = served()
    operation = api["paths"]["/stones"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    assert content == {
        "schema": {"$ref": "#/components/schemas/Stone"},
        "examples": {"small": {"value": {"weight": 40}}},
    }
    stone = api["components"]["schemas"]["Stone"]
    assert stone["additionalProperties"] is False
    assert stone["properties"]["label"] == {"description": "Anything."}
    assert stone["properties"]["note"] == {"description": "Anything else."}
    assert stone["properties"]["more"] == {"description": "And else.", "default": [1]}
    assert operation["responses"]["201"]["content"]["application/json"]["schema"]["$ref"].endswith("/Beach")
    assert operation["responses"]["200"] == {"description": "It was there already."}
    assert operation["operationId"] == "add_stone"


def test_a_route_needs_a_key_unless_it_is_public() -> None:
    api = served()
    assert api["security"] == [{"key": []}]
    assert api["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert "security" not in api["paths"]["/stones"]["post"]
    assert api["paths"]["/stones/{stone_id}"]["get"]["security"] == []


def test_errors_of_one_status_are_its_examples() -> None:
    responses = served()["paths"]["/stones"]["post"]["responses"]
    assert list(responses) == ["201", "200", "400", "401", "403", "409", "413", "422", "429", "503"]
    assert set(responses["409"]["content"]["application/json"]["examples"]) == {"stale_head", "id_conflict"}
    assert "Retry-After" in responses["503"]["headers"]


def test_parameters_come_from_structs_and_replace_litestars() -> None:
    operation = served()["paths"]["/stones/{stone_id}"]["get"]
    assert operation["parameters"] == [
        {
            "name": "stone_id",
            "in": "path",
            "required": True,
            "description": "Which stone.",
            "example": "stone_1",
            "schema": {"type": "string"},
        },
        {
            "name": "page-size",
            "in": "query",
            "required": False,
            "description": "How many.",
            "schema": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
        },
        {
            "name": "shore",
            "in": "query",
            "required": False,
            "description": "Which shore.",
            "schema": {"type": "string", "minLength": 1},
        },
    ]
    assert operation["security"] == []
    assert operation["responses"]["200"]["content"] == {"text/event-stream": {"schema": {"type": "string"}}}
    assert "401" not in operation["responses"]
