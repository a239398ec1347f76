"""``/v1/golden``: sets of questions whose evidence is known, by which a new embedding model is judged."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath
from msgspec import Meta

from server.access import tenants
from server.api.documentation import document
from server.api.edge import Call, admit_operator, decode, decoded, named_tenant, read_query, reply, services
from server.database.tenant import Tenant
from server.embeddings.lifecycle.golden import GoldenSet, Question, Unusable
from server.embeddings.migration import golden
from server.embeddings.migration.golden import Stored
from server.errors import Conflict, InvalidInput, NotFound

MAX_QUESTIONS: Final = 20_000
_MISSING: Final = "there is no such golden set"
_Word = Annotated[str, Meta(min_length=1, max_length=256)]


class GoldenQuestion(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A question, and the events of its conversation that answer it."""

    id: Annotated[_Word, Meta(description="Unique in its set.", examples=["q1"])]
    conversation: Annotated[
        _Word, Meta(description="The conversation's id, or its `origin_id`.", examples=["conv_" + "0" * 48])
    ]
    question: Annotated[
        str,
        Meta(min_length=1, max_length=10_000, description="As somebody would ask it.", examples=["Where did I move?"]),
    ]
    evidence: Annotated[
        list[_Word],
        Meta(min_length=1, max_length=1_000, description="Ids of events, yours or the server's.", examples=[["D1:3"]]),
    ]
    category: Annotated[str, Meta(max_length=64, description="Your word for its kind.", examples=["temporal"])] = ""
    language: Annotated[
        str, Meta(max_length=64, description="Its language; else it is told from its words.", examples=["german"])
    ] = ""


class AddGolden(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A golden set to store, or to replace by its next version."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Unique in its tenant.", examples=["support-2026"]
        ),
    ]
    owner: Annotated[_Word, Meta(description="Who answers for it.", examples=["ida@example.com"])]
    questions: Annotated[list[GoldenQuestion], Meta(max_length=MAX_QUESTIONS, description="In the set's order.")]
    tenant: Annotated[
        str | None, Meta(description="Whose conversations it asks, by id or name; by default your own tenant's.")
    ] = None


class ApproveGolden(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which version is approved."""

    version: Annotated[int, Meta(ge=1, le=2**31 - 1, description="The version that you have looked at.", examples=[1])]


class LeftOut(msgspec.Struct, kw_only=True):
    """A question that cannot be asked."""

    id: Annotated[str, Meta(description="Its id in the set.", examples=["q2"])]
    why: Annotated[str, Meta(description="What is missing.", examples=["none of its evidence is in its conversation"])]


class GoldenReply(msgspec.Struct, kw_only=True):
    """A golden set."""

    name: Annotated[str, Meta(description="Unique in its tenant.", examples=["support-2026"])]
    tenant: Annotated[str, Meta(description="The tenant's id.", examples=["ten_1"])]
    version: Annotated[int, Meta(description="Raised by any change of its questions.", examples=[1])]
    owner: Annotated[str, Meta(description="Who answers for it.", examples=["ida@example.com"])]
    questions: Annotated[int, Meta(description="How many are asked.", examples=[120])]
    unusable: Annotated[int, Meta(description="How many were left out when it was stored.", examples=[0])]
    approved_by: Annotated[
        str | None, Meta(description="The key that approved this version; null: gates do not rest on it.")
    ]
    approved_at: Annotated[datetime | None, Meta(description="When it was approved.")]
    created_at: Annotated[datetime, Meta(description="When it was first stored.", examples=["2026-05-04T09:00:00Z"])]


class AddedGolden(GoldenReply, kw_only=True):
    """A golden set as it was stored."""

    left_out: Annotated[list[LeftOut], Meta(description="The questions that cannot be asked, and why.")]


class WholeGolden(GoldenReply, kw_only=True):
    """A golden set with its questions."""

    data: Annotated[list[GoldenQuestion], Meta(description="In its order, with the server's ids.")]


class GoldenList(msgspec.Struct, kw_only=True):
    """A tenant's golden sets."""

    data: Annotated[list[GoldenReply], Meta(description="By name.")]


class DeletedGolden(msgspec.Struct, kw_only=True):
    """That it is gone."""

    name: Annotated[str, Meta(description="The set that was removed.", examples=["support-2026"])]
    deleted: Annotated[bool, Meta(description="Always true.")] = True


class GoldenPath(msgspec.Struct):
    """Which set."""

    name: Annotated[str, Meta(description="The set's name.", examples=["support-2026"])]


class GoldenQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Whose sets."""

    tenant: Annotated[
        str | None, Meta(description="The tenant's id or name; by default your own.", examples=["default"])
    ] = None


_add = msgspec.json.Decoder(AddGolden)
_approve = msgspec.json.Decoder(ApproveGolden)


@post(
    "/v1/golden",
    **document(
        summary="Store a golden set",
        tag="Embeddings",
        description="Under a name that is there, other questions make its next version, which nobody has approved; the "
        "same questions change nothing. Erasing an event removes the questions that it answers. For an operator's "
        "admin key.",
        request=AddGolden,
        examples={
            "two questions": {
                "name": "support-2026",
                "owner": "ida@example.com",
                "questions": [
                    {"id": "q1", "conversation": "chat-1", "question": "Where did I move?", "evidence": ["D1:3"]},
                    {
                        "id": "q2",
                        "conversation": "conv_" + "0" * 48,
                        "question": "Wann war das?",
                        "evidence": ["evt_" + "0" * 32 + "_4"],
                        "category": "temporal",
                        "language": "german",
                    },
                ],
            }
        },
        responses={200: AddedGolden},
        errors=[NotFound],
    ),
)
async def add_golden(request: Call) -> Response[bytes]:
    caller = await admit_operator(request)
    command = await decode(request, _add)
    tenant = await named_tenant(request, caller, command.tenant)
    read = _read(command)
    stored, left_out = await golden.add(services(request).database, tenant, read)
    shown = [LeftOut(id=one.id, why=one.why) for one in left_out]
    return reply(AddedGolden(**_fields(tenant, stored), left_out=shown))


@get(
    "/v1/golden",
    **document(
        summary="List golden sets",
        tag="Embeddings",
        description="Of one tenant, by name. For an operator's admin key.",
        query=GoldenQuery,
        responses={200: GoldenList},
        errors=[NotFound],
    ),
)
async def list_golden(request: Call) -> Response[bytes]:
    caller = await admit_operator(request)
    tenant = await named_tenant(request, caller, read_query(request, GoldenQuery).tenant)
    found = await golden.listing(services(request).database, tenant)
    return reply(GoldenList(data=[GoldenReply(**_fields(tenant, one)) for one in found]))


@get(
    "/v1/golden/{name:str}",
    **document(
        summary="Read a golden set",
        tag="Embeddings",
        description="With its questions. For an operator's admin key.",
        path=GoldenPath,
        query=GoldenQuery,
        responses={200: WholeGolden},
        errors=[NotFound],
    ),
)
async def get_golden(request: Call, name: FromPath[str]) -> Response[bytes]:
    caller = await admit_operator(request)
    tenant = await named_tenant(request, caller, read_query(request, GoldenQuery).tenant)
    stored, questions = await golden.get(services(request).database, tenant, decoded(name, _MISSING))
    return reply(WholeGolden(**_fields(tenant, stored), data=[_shown(one) for one in questions]))


@post(
    "/v1/golden/{name:str}/approve",
    **document(
        summary="Approve a golden set",
        tag="Embeddings",
        description="Gates rest on approved sets, those of all tenants together. For an operator's admin key.",
        path=GoldenPath,
        query=GoldenQuery,
        request=ApproveGolden,
        examples={"its first version": {"version": 1}},
        responses={200: GoldenReply},
        errors=[NotFound, Conflict],
    ),
)
async def approve_golden(request: Call, name: FromPath[str]) -> Response[bytes]:
    caller = await admit_operator(request)
    command = await decode(request, _approve)
    tenant = await named_tenant(request, caller, read_query(request, GoldenQuery).tenant)
    approved = await golden.approve(
        services(request).database, tenant, decoded(name, _MISSING), command.version, who=caller.actor
    )
    return reply(GoldenReply(**_fields(tenant, approved)))


@delete(
    "/v1/golden/{name:str}",
    **document(
        summary="Remove a golden set",
        tag="Embeddings",
        description="With its questions. For an operator's admin key.",
        path=GoldenPath,
        query=GoldenQuery,
        responses={200: DeletedGolden},
        errors=[NotFound],
    ),
)
async def delete_golden(request: Call, name: FromPath[str]) -> Response[bytes]:
    caller = await admit_operator(request)
    tenant = await named_tenant(request, caller, read_query(request, GoldenQuery).tenant)
    wanted = decoded(name, _MISSING)
    await golden.remove(services(request).database, tenant, wanted)
    return reply(DeletedGolden(name=wanted))


def _read(command: AddGolden) -> GoldenSet:
    """Return the set as it was sent; raises InvalidInput for an id that stands twice, or for U+0000."""
    seen: set[str] = set()
    questions: list[Question] = []
    unusable: list[Unusable] = []
    for place, one in enumerate(command.questions):
        at = f"questions[{place}]"
        if one.id in seen:
            raise InvalidInput(f"the id {one.id!r} stands twice: give each question its own", param=f"{at}.id")
        seen.add(one.id)
        texts = (one.id, one.conversation, one.question, one.category, one.language, *one.evidence)
        if any("\0" in text for text in texts):
            raise InvalidInput("U+0000 has no place in a question", param=at)
        if not one.question.strip():
            unusable.append(Unusable(id=one.id, why="it asks nothing"))
            continue
        questions.append(
            Question(
                id=one.id,
                conversation=one.conversation,
                text=one.question,
                evidence=tuple(dict.fromkeys(one.evidence)),
                category=one.category,
                language=one.language,
            )
        )
    if "\0" in command.owner:
        raise InvalidInput("U+0000 has no place in an owner", param="owner")
    return GoldenSet(
        name=command.name,
        version=1,
        owner=command.owner,
        questions=tuple(questions),
        unusable=tuple(unusable),
    )


def _fields(tenant: Tenant, stored: Stored) -> dict[str, Any]:
    return {
        "name": stored.name,
        "tenant": tenants.wire_id(tenant.id),
        "version": stored.version,
        "owner": stored.owner,
        "questions": stored.questions,
        "unusable": stored.unusable,
        "approved_by": stored.approved_by,
        "approved_at": None if stored.approved_at is None else stored.approved_at.astimezone(UTC),
        "created_at": stored.created_at.astimezone(UTC),
    }


def _shown(one: Question) -> GoldenQuestion:
    return GoldenQuestion(
        id=one.id,
        conversation=one.conversation,
        question=one.text,
        evidence=list(one.evidence),
        category=one.category,
        language=one.language,
    )


HANDLERS = [add_golden, list_golden, get_golden, approve_golden, delete_golden]
