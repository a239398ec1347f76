"""``/v1/embeddings``: the versions there are, and the migration from one to the next; for an operator's admin key."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Response, get, post
from msgspec import Meta

from server.access import keys
from server.access.caller import Caller
from server.access.key_format import wire_id
from server.api.documentation import document
from server.api.edge import Call, admit_operator, decode, read_query, reply, services
from server.api.migration_presented import (
    names_of,
    present_done,
    present_history,
    present_migration,
    present_versions,
)
from server.api.migration_shapes import (
    PATH,
    TAG,
    DoneReply,
    Epoch,
    History,
    MigrationReply,
    Text,
    VersionList,
    VersionName,
)
from server.embeddings.providers import NAMES, Spec
from server.errors import InvalidInput, MigrationRefused, ModelRefused, ProviderUnavailable

_PROVIDERS = ", ".join(name.replace("_", "-") for name in NAMES)
_SPEC = ("provider", "model", "revision", "options", "query_prefix", "document_prefix")


class AddVersion(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A model to register as a version."""

    name: VersionName
    provider: Annotated[
        str, Meta(description=f"What runs the model: {_PROVIDERS}.", examples=["sentence-transformers"])
    ]
    model: Annotated[Text, Meta(description="The model, as its provider names it.", examples=["all-MiniLM-L6-v2"])]
    revision: Annotated[Text, Meta(description="Of the model.", examples=["main"])] = ""
    options: Annotated[
        dict[str, Any], Meta(description="The provider's own; never a secret.", examples=[{"device": "cpu"}])
    ] = {}
    query_prefix: Annotated[Text, Meta(description="What stands before a question.", examples=["query: "])] = ""
    document_prefix: Annotated[Text, Meta(description="What stands before a text.", examples=["passage: "])] = ""
    epoch: Epoch = None


class HistoryQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which lines."""

    version: Annotated[str | None, Meta(description="Only of this version.", examples=["minilm-384"])] = None
    newest: Annotated[int, Meta(ge=1, le=10_000, description="Only so many, the newest.", examples=[20])] = 1000


_add = msgspec.json.Decoder(AddVersion)


async def who(request: Call, caller: Caller) -> str:
    """Return what the history names: the key, by its name and id."""
    key = await keys.get_key(services(request).database, caller.tenant.id, wire_id(caller.key_id))
    return f"{key.name} ({key.wire_id})"


@get(
    "/v1/embeddings/versions",
    **document(
        summary="List embedding versions",
        tag=TAG,
        description="For an operator's admin key.",
        responses={200: VersionList},
    ),
)
async def list_embedding_versions(request: Call) -> Response[bytes]:
    await admit_operator(request)
    return reply(VersionList(data=present_versions(await services(request).migration.stored())))


@post(
    "/v1/embeddings/versions",
    **document(
        summary="Add an embedding version",
        tag=TAG,
        description="Opens the model and takes its fingerprint from what it answers. Nothing else changes.",
        request=AddVersion,
        examples={
            "a question's prefix": {
                "name": "wordllama-asking",
                "provider": "wordllama",
                "model": "l2_supercat_256",
                "query_prefix": "question: ",
            }
        },
        responses={201: DoneReply},
        errors=[MigrationRefused, ProviderUnavailable],
    ),
)
async def add_embedding_version(request: Call) -> Response[bytes]:
    caller = await admit_operator(request)
    given = await decode(request, _add)
    spec = Spec(**{name: getattr(given, name) for name in _SPEC} | {"provider": given.provider.replace("-", "_")})
    try:
        done = await services(request).migration.add(given.name, spec, await who(request, caller), epoch=given.epoch)
    except ModelRefused as error:  # here it is the request's fault, not the server's
        raise InvalidInput(error.message, param="model") from None
    names = names_of(await services(request).migration.stored())
    return reply(present_done(done, names), 201)


@get(
    PATH,
    **document(
        summary="Read where the migration stands",
        tag=TAG,
        description="And what stands in the way of each command. For an operator's admin key.",
        responses={200: MigrationReply},
    ),
)
async def get_migration(request: Call) -> Response[bytes]:
    await admit_operator(request)
    return reply(present_migration(await services(request).migration.show()))


@get(
    f"{PATH}/history",
    **document(
        summary="Read the history of migrations",
        tag=TAG,
        description="Every step, with who, when, and the figures that it rested on. For an operator's admin key.",
        query=HistoryQuery,
        responses={200: History},
    ),
)
async def get_migration_history(request: Call) -> Response[bytes]:
    await admit_operator(request)
    query = read_query(request, HistoryQuery)
    stored = await services(request).migration.stored()
    return reply(present_history(stored, query.version, query.newest))


HANDLERS = [list_embedding_versions, add_embedding_version, get_migration, get_migration_history]
