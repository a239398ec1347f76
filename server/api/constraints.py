"""``/v1/conversations/{id}/constraints``: standing instructions and preferences, and what is to become of each."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from schema.vocabulary import Role
from server.api.documentation import document
from server.api.edge import Call, admit, conversation_id, decode, read_query, reply, services
from server.api.events import ConversationPath
from server.api.working_set import MinSeq
from server.constraints import Constraint, Kind, Polarity, Rule, Topic
from server.context.reach import Reaching, in_force
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.errors import Conflict, InvalidInput, NotFound
from server.log import conversations
from server.log.read import read_events
from server.log.stored import StoredEvent
from server.working_set.items import text_and_media
from server.working_set.standing import Decided, Reach, Setting, State

_WHY: Final[dict[State, str]] = {
    "candidate": "a loose cue: it holds once it is confirmed",
    "recognised": "a firm cue: it holds, in this conversation, until it is dismissed or superseded",
    "confirmed": "it was confirmed, or stated as a constraint",
    "dismissed": "it was dismissed: an ordinary event",
}


class ConstraintShown(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A standing instruction or preference."""

    conversation_id: Annotated[str, Meta(description="Where it was set.", examples=["conv_" + "0" * 48])]
    seq: Annotated[int, Meta(description="The event that sets it.", examples=[3])]
    id: Annotated[str, Meta(description="The event's id, yours or the server's.")]
    role: Annotated[Role | None, Meta(description="Who speaks.")]
    text: Annotated[
        str, Meta(description="What sets it, of the event's text.", examples=["Never call me before nine."])
    ]
    first: Annotated[int, Meta(description="Where that begins, in characters.", examples=[0])]
    last: Annotated[int, Meta(description="Where it ends.", examples=[26])]
    kind: Annotated[Kind, Meta(description="What kind it is.", examples=["prohibition"])]
    polarity: Annotated[Polarity, Meta(description="To do something, or not to.", examples=["avoid"])]
    topic: Annotated[Topic | None, Meta(description="What it is about, if that is one of a closed set.")]
    cue: Annotated[str, Meta(description="What showed it; `explicit`: it was stated as one.", examples=["never"])]
    state: Annotated[State, Meta(description="How it stands; only `recognised` and `confirmed` ones hold.")]
    reach: Annotated[Reach, Meta(description="This conversation, or all of the user's.")]
    why: Annotated[str, Meta(description="Why it stands so.")]
    superseded_by: Annotated[int | None, Meta(description="The seq of what took its place.")] = None


class ConstraintList(msgspec.Struct, kw_only=True):
    """The constraints of a conversation."""

    head: Annotated[int, Meta(description="The last seq that is taken into account.", examples=[41])]
    data: Annotated[
        list[ConstraintShown],
        Meta(description="In the order in which they were set or confirmed; those of other conversations first."),
    ]


class ConstraintQuery(msgspec.Struct, forbid_unknown_fields=True):
    """How fresh to be."""

    min_seq: MinSeq = None


class Decide(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is to become of the constraints that an event sets."""

    seq: Annotated[int, Meta(ge=1, le=2**53, description="The event that sets them.", examples=[1])]
    state: Annotated[Decided, Meta(description="`confirmed`: they hold. `dismissed`: it is an ordinary event.")]
    reach: Annotated[
        Reach, Meta(description="With `confirmed`: how far. `user`: into all conversations of this one's user.")
    ] = "conversation"


_decide = msgspec.json.Decoder(Decide)


@get(
    "/v1/conversations/{conversation:str}/constraints",
    **document(
        summary="List constraints",
        tag="Constraints",
        description="Standing instructions and preferences as they were recognised in what users, systems and "
        "developers said (in English, German, French and Spanish), and what other conversations of the user bring.",
        responses={200: ConstraintList},
        path=ConversationPath,
        query=ConstraintQuery,
        errors=[NotFound, Conflict],
    ),
)
async def list_constraints(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "read")
    query = read_query(request, ConstraintQuery)
    return reply(await _list(request, caller.tenant, conversation_id(conversation), query.min_seq))


@post(
    "/v1/conversations/{conversation:str}/constraints",
    **document(
        summary="Confirm or dismiss constraints",
        tag="Constraints",
        description="Appends a `constraint` event, unless nothing changes. To set one in your own words, append a "
        "`constraint` event with them.",
        request=Decide,
        examples={"confirm": {"seq": 1, "state": "confirmed"}, "dismiss": {"seq": 1, "state": "dismissed"}},
        responses={200: ConstraintList},
        path=ConversationPath,
        errors=[NotFound, Conflict],
    ),
)
async def decide_constraint(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "append")
    command = await decode(request, _decide)
    at = conversation_id(conversation)
    parts = services(request)
    if command.reach == "user":
        if command.state == "dismissed":
            raise InvalidInput("`reach` goes with `confirmed`; what is dismissed reaches nowhere", param="reach")
        if (await conversations.get(parts.database, caller.tenant, at)).user is None:
            raise InvalidInput("the conversation has no user: its constraints reach no further", param="reach")
    head = await parts.control.decide(caller.tenant, at, command.seq, command.state, command.reach)
    parts.follower.appended(at)
    return reply(await _list(request, caller.tenant, at, head))


async def _list(request: Call, tenant: Tenant, at: ConversationId, min_seq: int | None) -> ConstraintList:
    parts = services(request)
    reaching = await parts.reach.read(tenant, at)
    hot = await parts.working_sets.get(tenant, at, min_seq=min_seq)
    settings = list(hot.fold.kept.standing)
    elsewhere = in_force(reaching, hot.fold.kept.standing)
    head, events = hot.head, dict(hot.events)
    missing = [setting.seq for setting in settings if setting.seq not in events]
    events |= await read_events(parts.database, tenant, at, missing) if missing else {}
    shown = [_of_another(one) for one in elsewhere]
    for setting in settings:
        event = events.get(setting.seq)
        if event is not None and event.erased_at is None:
            shown += _shown(at, setting, event)
    return ConstraintList(head=head, data=shown)


def _shown(at: ConversationId, setting: Setting, event: StoredEvent) -> list[ConstraintShown]:
    text, _ = text_and_media(event.content)
    rules = setting.rules or (Rule(kind="instruction", polarity="do", cue="explicit", first=0, last=len(text)),)
    found = []
    for place, rule in enumerate(rules):
        state = setting.state_of(place)
        by = setting.superseded.get(place)
        found.append(
            _one(
                at,
                event,
                rule,
                text=text[rule.first : rule.last],
                state=state,
                reach=setting.reach,
                why=f"event {by} took its place" if state == "superseded" else _WHY[state],
                superseded_by=by,
            )
        )
    return found


def _of_another(one: Reaching) -> ConstraintShown:
    return _one(
        one.conversation,
        one.event,
        one.constraint,
        text=one.constraint.text,
        state="confirmed",
        reach="user",
        why="it was confirmed for all of the user's conversations",
    )


def _one(
    at: ConversationId,
    event: StoredEvent,
    rule: Rule | Constraint,
    *,
    text: str,
    state: State,
    reach: Literal["conversation", "user"],
    why: str,
    superseded_by: int | None = None,
) -> ConstraintShown:
    return ConstraintShown(
        conversation_id=str(at),
        seq=event.seq,
        id=event.id,
        role=event.role,
        text=text,
        first=rule.first,
        last=rule.last,
        kind=rule.kind,
        polarity=rule.polarity,
        topic=rule.topic,
        cue=rule.cue,
        state=state,
        reach=reach,
        why=why,
        superseded_by=superseded_by,
    )


HANDLERS = [list_constraints, decide_constraint]
