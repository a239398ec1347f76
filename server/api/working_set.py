"""``/v1/conversations/{id}/working-set`` and ``…/pins``: what is resident and why, and what governs it."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from litestar import Response, delete, get, post, put
from litestar.params import FromPath
from msgspec import UNSET, Meta, UnsetType

from schema.vocabulary import EventType, Role
from server.api.documentation import document
from server.api.edge import Call, admit, conversation_id, decode, read_query, reply, reply_encoded, services
from server.api.events import ConversationPath
from server.context.hot import Hot
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.errors import Conflict, InvalidInput, NotFound
from server.log.read import read_event
from server.working_set.choice import MAX_BUDGET, parameters_in_force, pin_quota
from server.working_set.explain import Explanation, Resident, explain, residents
from server.working_set.features import SCORER
from server.working_set.tokens import TOKENIZER

_MAX_NEAR: Final = 100
_SEQ: Final = 2**53

MinSeq = Annotated[
    Annotated[int, Meta(ge=0, le=_SEQ)] | None,
    Meta(
        description="Never show less than this seq: the head that an append answered. With it, the answer may come "
        "from memory; without it, it is as new as the database.",
        examples=[5],
    ),
]


class ResidentEvent(Resident, frozen=True, kw_only=True, omit_defaults=True):
    """An event of the working set."""

    id: Annotated[str, Meta(description="The event's id, yours or the server's.")]
    type: Annotated[EventType, Meta(description="What kind of event it is.", examples=["message"])]
    role: Annotated[Role | None, Meta(description="Who speaks.")] = None


class Pins(msgspec.Struct, kw_only=True):
    """What is pinned."""

    head: Annotated[int, Meta(description="The last seq of the conversation.", examples=[41])]
    seqs: Annotated[list[int], Meta(description="The pinned events, in order.", examples=[[3]])]
    tokens: Annotated[int, Meta(description="What they take of the budget.", examples=[120])]
    quota_tokens: Annotated[int, Meta(description="What pins may take: half of the budget.", examples=[4000])]


class WorkingSetReply(msgspec.Struct, kw_only=True):
    """The working set of a conversation."""

    head: Annotated[int, Meta(description="The last seq that it takes into account.", examples=[41])]
    policy: Annotated[str, Meta(description="The eviction policy.", examples=["importance"])]
    policy_version: Annotated[int, Meta(description="Its version.", examples=[1])]
    parameters: Annotated[dict[str, Any], Meta(description="Its parameters in force.", examples=[{"window": 0.3}])]
    budget_tokens: Annotated[int, Meta(description="What the residents may take together.", examples=[8000])]
    tokens: Annotated[int, Meta(description="What they take.", examples=[1210])]
    pins: Annotated[Pins, Meta(description="What is pinned.")]
    residents: Annotated[
        list[ResidentEvent], Meta(description="The resident events in order, each with what keeps it.")
    ]
    near: Annotated[
        list[Explanation],
        Meta(description="The last that left, the latest first; then those that would leave next, the next first."),
    ]
    scorer: Annotated[str, Meta(description="What read the features of texts.", examples=[SCORER])]
    tokenizer: Annotated[str, Meta(description="What counted tokens.", examples=[TOKENIZER])]


class WorkingSetQuery(msgspec.Struct, forbid_unknown_fields=True):
    """How much to explain, and how fresh to be."""

    near: Annotated[
        int,
        Meta(
            ge=0, le=_MAX_NEAR, description="How many events near the line to explain, on either side.", examples=[10]
        ),
    ] = 10
    min_seq: MinSeq = None


class SetWorkingSet(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What to change; what is left out stays."""

    policy: Annotated[
        str | UnsetType,
        Meta(description="One of `GET /v1/policies`; a new policy begins with its defaults.", examples=["tool_first"]),
    ] = UNSET
    budget_tokens: Annotated[
        int | UnsetType,
        Meta(
            description="What the residents may take together, at least twice what the pins take.",
            examples=[4000],
            extra_json_schema={"minimum": 1, "maximum": MAX_BUDGET},
        ),
    ] = UNSET
    parameters: Annotated[
        dict[str, Any] | UnsetType,
        Meta(description="The policy's parameters; those that are left out take their defaults.", examples=[{}]),
    ] = UNSET


class Pin(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which event to pin: by its seq, or by its id."""

    seq: Annotated[
        Annotated[int, Meta(ge=1, le=_SEQ)] | UnsetType,
        Meta(description="Its place in the conversation.", examples=[3]),
    ] = UNSET
    event: Annotated[str | UnsetType, Meta(description="Its id, yours or the server's.", examples=["m1"])] = UNSET


class PinPath(ConversationPath):
    """Which pin."""

    seq: Annotated[int, Meta(ge=1, le=_SEQ, description="The seq of the pinned event.", examples=[1])]


_set = msgspec.json.Decoder(SetWorkingSet)
_pin = msgspec.json.Decoder(Pin)
_encode = msgspec.json.Encoder().encode


@get(
    "/v1/conversations/{conversation:str}/working-set",
    **document(
        summary="Read the working set",
        tag="Working set",
        description="Which events are resident and why, what left last, and what would leave next.",
        responses={200: WorkingSetReply},
        path=ConversationPath,
        query=WorkingSetQuery,
        errors=[NotFound, Conflict],
    ),
)
async def get_working_set(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "read")
    query = read_query(request, WorkingSetQuery)
    return await _answer(request, caller.tenant, conversation_id(conversation), query.near, query.min_seq)


@put(
    "/v1/conversations/{conversation:str}/working-set",
    **document(
        summary="Choose policy and budget",
        tag="Working set",
        description="Appends a `working_set` event, unless nothing changes, and answers the new working set. What no "
        "longer fits leaves; what has left before does not come back by itself.",
        request=SetWorkingSet,
        examples={
            "a smaller budget": {"budget_tokens": 4000},
            "another policy": {"policy": "tool_first", "parameters": {"keep": 1}},
        },
        responses={200: WorkingSetReply},
        path=ConversationPath,
        errors=[NotFound, Conflict],
    ),
)
async def set_working_set(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "append")
    command = await decode(request, _set)
    at = conversation_id(conversation)
    given = {name: value for name, value in msgspec.structs.asdict(command).items() if value is not UNSET}
    head = await services(request).control.choose(caller.tenant, at, **given)
    _tell(request, at)
    return await _answer(request, caller.tenant, at, WorkingSetQuery().near, head)


@post(
    "/v1/conversations/{conversation:str}/pins",
    **document(
        summary="Pin an event",
        tag="Working set",
        description="A pinned event never leaves the working set, and is whole; an event of a tool call is pinned with "
        "the call. Appends a `pin` event, unless it is pinned already. Pins may take half of the budget.",
        request=Pin,
        examples={"by seq": {"seq": 1}},
        responses={200: Pins},
        path=ConversationPath,
        errors=[NotFound, Conflict],
    ),
)
async def add_pin(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "append")
    command = await decode(request, _pin)
    at = conversation_id(conversation)
    parts = services(request)
    match command.seq, command.event:
        case int(seq), UnsetType():
            pass
        case UnsetType(), str(event):
            seq = (await read_event(parts.database, caller.tenant, at, event)).seq
        case _:
            raise InvalidInput("give either `seq` or `event`", param="seq")
    head = await parts.control.pin(caller.tenant, at, seq)
    _tell(request, at)
    return reply(_pins(await parts.working_sets.get(caller.tenant, at, min_seq=head)))


@delete(
    "/v1/conversations/{conversation:str}/pins/{seq:str}",
    **document(
        summary="Unpin an event",
        tag="Working set",
        description="Appends an `unpin` event; for an event that is not pinned, nothing.",
        responses={200: Pins},
        path=PinPath,
        errors=[NotFound, Conflict],
    ),
)
async def delete_pin(request: Call, conversation: FromPath[str], seq: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "append")
    at = conversation_id(conversation)
    parts = services(request)
    if not (seq.isascii() and seq.isdigit() and len(seq) < 17 and int(seq)):
        raise NotFound("no such event")
    head = await parts.control.unpin(caller.tenant, at, int(seq))
    _tell(request, at)
    hot = await parts.working_sets.get(caller.tenant, at, min_seq=head)
    if int(seq) > hot.head:
        raise NotFound("no such event")
    return reply(_pins(hot))


async def _answer(request: Call, tenant: Tenant, at: ConversationId, near: int, min_seq: int | None) -> Response[bytes]:
    working_sets = services(request).working_sets
    hot = await working_sets.get(tenant, at, min_seq=min_seq)
    body = hot.memo.get(("working_set", near))
    if not isinstance(body, bytes):
        body = _encode(_reply(hot, near))
        working_sets.remember(tenant, hot, ("working_set", near), body, len(body))
    return reply_encoded(body)


def _reply(hot: Hot, near: int) -> WorkingSetReply:
    fold = hot.fold
    return WorkingSetReply(
        head=hot.head,
        policy=fold.choice.policy,
        policy_version=fold.kept.policy.version,
        parameters=parameters_in_force(fold.choice),
        budget_tokens=fold.choice.budget_tokens,
        tokens=fold.used,
        pins=_pins(hot),
        residents=[_resident(hot, resident) for resident in residents(fold)],
        near=explain(fold, near),
        scorer=SCORER,
        tokenizer=TOKENIZER,
    )


def _resident(hot: Hot, resident: Resident) -> ResidentEvent:
    event = hot.events[resident.seq]
    return ResidentEvent(id=event.id, type=event.type, role=event.role, **msgspec.structs.asdict(resident))


def _pins(hot: Hot) -> Pins:
    fold = hot.fold
    return Pins(
        head=hot.head,
        seqs=sorted(fold.kept.pins),
        tokens=fold.kept.residents.taken("pin"),
        quota_tokens=pin_quota(fold.choice.budget_tokens),
    )


def _tell(request: Call, at: ConversationId) -> None:
    services(request).follower.appended(at)


HANDLERS = [get_working_set, set_working_set, add_pin, delete_pin]
