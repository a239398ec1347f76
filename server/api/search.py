"""``/v1/search``: the events that may hold a question's answer."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar import Response, post
from msgspec import Meta

from server.api.documentation import document
from server.api.edge import Call, admit, decode, reply, services
from server.database.ids import ConversationId, parse_conversation_id
from server.errors import Conflict, InvalidInput, NotFound
from server.search.answer import SearchReply
from server.search.asked import MAX_K, Asked, Filters, Place

MAX_QUERY = 100_000  # characters
MAX_WHY_NOT = 20


class Search(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A question, and where to look: one of `user`, `conversation_id` and `scope`."""

    query: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_QUERY,
            description="The question as it was asked, in any language.",
            examples=["Where did I move to?"],
        ),
    ]
    user: Annotated[
        Annotated[str, Meta(min_length=1, max_length=256)] | None,
        Meta(description="All live conversations of this user.", examples=["ada"]),
    ] = None
    conversation_id: Annotated[
        str | None, Meta(description="One conversation, with the past that it shares.", examples=["conv_" + "0" * 48])
    ] = None
    scope: Annotated[
        Literal["tenant"] | None, Meta(description="`tenant`: all users of the tenant; needs an admin key.")
    ] = None
    k: Annotated[int, Meta(ge=1, le=MAX_K, description="How many events at most.", examples=[10])] = 10
    type: Annotated[
        str | None,
        Meta(description="The question's type, if you know it better than its cues tell.", examples=["temporal"]),
    ] = None
    filters: Annotated[Filters, Meta(description="Which events may be answers.")] = Filters()
    min_seq: Annotated[
        Annotated[int, Meta(ge=0, le=2**53)] | None,
        Meta(
            description="With `conversation_id`: both legs see everything up to this seq, such as the head that your "
            "append answered; 409 if it lies beyond the head.",
            examples=[41],
        ),
    ] = None
    explain: Annotated[bool, Meta(description="Say how the answer came about.")] = False
    why_not: Annotated[
        list[Place],
        Meta(max_length=MAX_WHY_NOT, description="Events of which to say why they are not in the answer."),
    ] = []


_search = msgspec.json.Decoder(Search)
_EXAMPLES = {
    "a user": {"query": "Where did I move to?", "user": "ada"},
    "only what was said in May": {
        "query": "What did I say about Lisbon?",
        "user": "ada",
        "k": 5,
        "filters": {"roles": ["user"], "occurred_after": "2026-05-01T00:00:00Z"},
        "explain": True,
    },
}


@post(
    "/v1/search",
    **document(
        summary="Search",
        tag="Search",
        description="By words and by meaning, ranked by a plan that fits the kind of question. Sees every event that "
        "was stored before it; by meaning, what was stored moments ago only with `min_seq`.",
        request=Search,
        examples=_EXAMPLES,
        responses={200: SearchReply},
        errors=[NotFound, Conflict],
    ),
)
async def search(request: Call) -> Response[bytes]:
    caller = await admit(request, "read")
    command = await decode(request, _search)
    asked = _read(command)
    if asked.user is None and asked.conversation is None:
        caller.require("admin")
    return reply(await services(request).searcher.search(caller.tenant, asked))


def _read(command: Search) -> Asked:
    """Return what is asked; raises InvalidInput, and NotFound for a conversation that cannot be."""
    if not command.query.strip():
        raise InvalidInput("the question is empty: ask with at least one word", param="query")
    given = [name for name in ("user", "conversation_id", "scope") if getattr(command, name) is not None]
    if len(given) != 1:
        raise InvalidInput(
            f"give one of user, conversation_id and scope, not {' and '.join(given) or 'none'}",
            param=given[1] if given else "user",
        )
    if command.user is not None and "\0" in command.user:
        raise InvalidInput("U+0000 has no place in a user", param="user")
    if command.min_seq is not None and command.conversation_id is None:
        raise InvalidInput("min_seq is a place in one conversation: give conversation_id", param="min_seq")
    conversation: ConversationId | None = None
    if command.conversation_id is not None:
        conversation = parse_conversation_id(command.conversation_id)
        if conversation is None:
            raise NotFound("no such conversation", param="conversation_id")
    within = None
    if command.filters.conversations is not None:
        # One that does not exist, or is somebody else's, matches nothing.
        within = tuple(at for one in command.filters.conversations if (at := parse_conversation_id(one)) is not None)
    return Asked(
        query=command.query,
        k=command.k,
        user=command.user,
        conversation=conversation,
        type=command.type,
        filters=command.filters,
        within=within,
        min_seq=command.min_seq,
        explain=command.explain,
        why_not=tuple(command.why_not),
    )


HANDLERS = [search]
