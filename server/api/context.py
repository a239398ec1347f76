"""``/v1/conversations/{id}/context``: what a model should see; and ``/v1/contexts/{id}``: what it saw."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from server.api.documentation import Answer, document
from server.api.edge import Call, admit, conversation_id, decode, decoded, reply_encoded, services
from server.api.events import ConversationPath, parse_as_of
from server.api.search import MAX_QUERY
from server.api.working_set import MinSeq
from server.context.composing import Wanted
from server.context.formats.known import NEWEST, Format
from server.context.record import ContextReply, FormattedReply
from server.context.snapshots import parse_snapshot_id, read_snapshot
from server.context.touches import MAX_TOUCHED
from server.errors import Conflict, InvalidInput, NotFound
from server.log import conversations
from server.working_set.choice import MAX_BUDGET

_MISSING: Final = "no such context"


class AskContext(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is asked for; `{}` is the working set as it is."""

    query: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_QUERY)] | None,
        Meta(
            description="The question that is to be answered: events that may hold its answer are brought in, from the "
            "whole conversation, and the constraints that govern it.",
            examples=["Where did I move to?"],
        ),
    ] = None
    type: Annotated[
        str | None,
        Meta(description="The question's type, if you know it better than its cues tell.", examples=["temporal"]),
    ] = None
    scope: Annotated[
        Literal["conversation", "user"],
        Meta(
            description="Where to look: `user` brings in what was said in the user's other conversations, too. That "
            "comes first, with its `conversation_id`; tool calls stay where they are."
        ),
    ] = "conversation"
    budget_tokens: Annotated[
        int | None,
        Meta(
            description="What the messages may take together; by default, the working set's budget. A smaller one "
            "shows what the policy would keep under it; it is at least twice what the pins take, unless all fits.",
            examples=[2000],
            extra_json_schema={"minimum": 1, "maximum": MAX_BUDGET},
        ),
    ] = None
    min_seq: MinSeq = None
    used: Annotated[
        list[Annotated[int, Meta(ge=1, le=2**53)]],
        Meta(
            max_length=MAX_TOUCHED,
            description="Seqs that the model, or you, made use of since the last time: a touch, which policies go by. "
            "What had left comes back. Needs a key that may append.",
            examples=[[1, 3]],
        ),
    ] = []
    as_of: Annotated[
        Annotated[int, Meta(ge=0, le=2**53)] | str | None,
        Meta(description="The context as it would have been at a seq, or at a time (RFC 3339).", examples=[3]),
    ] = None
    explain: Annotated[bool, Meta(description="Say what is not shown and why, what left last, what is next.")] = False
    format: Annotated[
        Format,
        Meta(
            description="Whose messages: `events` are ours, one for each event. `openai` are those of Chat "
            "Completions, `openai-responses` the input items of Responses, `anthropic` those of Messages, with "
            "`system` apart. These are valid as they are, tool calls with results; `sources` names each one's events.",
            examples=["openai"],
        ),
    ] = "events"


class SnapshotPath(msgspec.Struct):
    """Which context."""

    snapshot: Annotated[str, Meta(description="The `snapshot_id` of its answer.", examples=["ctx_" + "0" * 48])]


_ask = msgspec.json.Decoder(AskContext)


@post(
    "/v1/conversations/{conversation:str}/context",
    **document(
        summary="Assemble a context",
        tag="Context",
        description="Pins and the working set, in order, within the budget, each message with its reason. What was "
        "answered is kept under its `snapshot_id`, without its texts, which stay in the log. With a `format`, the "
        "messages are those of a model's API.",
        request=AskContext,
        examples={
            "as it is": {},
            "for a question": {"query": "Where did I move to?", "scope": "user", "budget_tokens": 2000},
            "a small one": {"budget_tokens": 500, "explain": True},
            "after a use": {"used": [1]},
            "of the past": {"as_of": 2},
            "for Chat Completions": {"format": "openai"},
            "for Anthropic": {"format": "anthropic", "query": "Where did I move to?"},
        },
        responses={
            200: Answer(
                body=(ContextReply, FormattedReply),
                description="What a model should see: events, or with `format` the messages of its API.",
                links={"get_context": {"snapshot": "$response.body#/snapshot_id"}},
            )
        },
        path=ConversationPath,
        errors=[NotFound, Conflict],
    ),
)
async def make_context(request: Call, conversation: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "read")
    command = await decode(request, _ask)
    at = conversation_id(conversation)
    parts = services(request)
    as_of = command.as_of if isinstance(command.as_of, int) else parse_as_of(command.as_of)
    if as_of is not None and (command.used or command.min_seq is not None):
        raise InvalidInput("of the past, nothing is used or new: leave out `used` and `min_seq`", param="as_of")
    _check_question(command)
    if command.used:
        caller.require("append")
        if command.min_seq is not None:
            await parts.working_sets.get(caller.tenant, at, min_seq=command.min_seq)
        await parts.working_sets.touch(caller.tenant, at, command.used)
    user = None
    if command.scope == "user":
        user = (await conversations.get(parts.database, caller.tenant, at)).user  # one that stands alone has none
    wanted = Wanted(
        query=command.query,
        type=command.type,
        user=user,
        budget=command.budget_tokens,
        # Only the database knows of the touch.
        min_seq=None if command.used else command.min_seq,
        as_of=as_of,
        explain=command.explain,
        format=NEWEST[command.format],
    )
    answered = await parts.composer.compose(caller.tenant, at, wanted)
    return reply_encoded(await parts.recorder.add(caller.tenant, at, answered))


def _check_question(command: AskContext) -> None:
    if command.query is None:
        for field in ("type", "scope"):
            if getattr(command, field) not in (None, "conversation"):
                raise InvalidInput(f"`{field}` goes with a `query`", param=field)
    elif not command.query.strip():
        raise InvalidInput("the question is empty: ask with at least one word", param="query")
    if command.as_of is not None and command.scope == "user":
        raise InvalidInput("of the past, only the conversation itself is known: leave out `scope`", param="scope")


@get(
    "/v1/contexts/{snapshot:str}",
    **document(
        summary="Read a context again",
        tag="Context",
        description="The answer as it was given, byte for byte. What has been erased since has only its place left, "
        "and `erased` names it.",
        responses={200: Answer(body=(ContextReply, FormattedReply), description="The answer, as it was given.")},
        path=SnapshotPath,
        errors=[NotFound],
    ),
)
async def get_context(request: Call, snapshot: FromPath[str]) -> Response[bytes]:
    caller = await admit(request, "read")
    parts = services(request)
    found = parse_snapshot_id(decoded(snapshot, _MISSING))
    if found is None:
        raise NotFound(_MISSING)
    return reply_encoded(await read_snapshot(parts.database, parts.recorder, caller.tenant, found))


HANDLERS = [make_context, get_context]
