"""``GET /v1/conversations/{id}/events/stream``: the log as server-sent events, from a seq on and then live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Final

import msgspec
from litestar import get
from litestar.params import FromPath
from litestar.response import Stream
from msgspec import Meta

from server.api.documentation import Answer, document
from server.api.edge import Call, admit, conversation_id, header, read_query, services
from server.api.events import ConversationPath
from server.api.services import Services
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.errors import InvalidInput, NotFound, TurnstoneError
from server.log.follow import POLL
from server.log.read import read_range, read_state

HEARTBEAT: Final = 15.0  # seconds; proxies close what is silent for 30 to 60
PAGE: Final = 100  # events held in memory for one reader, however slow it is

_encode = msgspec.json.Encoder().encode


class StreamQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Where to begin."""

    after_seq: Annotated[
        Annotated[int, Meta(ge=0, le=2**53)] | None,
        Meta(description="Begin after this seq; `Last-Event-ID` wins. By default, at the end.", examples=[0]),
    ] = None


class StreamHeaders(msgspec.Struct, rename={"last_event_id": "Last-Event-ID"}):
    """What an SSE client sends when it comes back."""

    last_event_id: Annotated[str | None, Meta(description="The last seq that was received.", examples=["41"])] = None


@get(
    "/v1/conversations/{conversation:str}/events/stream",
    **document(
        summary="Follow a conversation",
        tag="Events",
        description=(
            "Each event is one server-sent event: `id` is its seq, `event` its type, `data` the event as JSON. "
            "A client that reconnects sends `Last-Event-ID` and misses nothing. Comments keep the connection alive."
        ),
        responses={200: Answer(media_type="text/event-stream", description="An endless stream of events.")},
        path=ConversationPath,
        query=StreamQuery,
        headers=StreamHeaders,
        errors=[NotFound],
    ),
)
async def stream_events(request: Call, conversation: FromPath[str]) -> Stream:
    caller = await admit(request, "read")
    parts = services(request)
    at = conversation_id(conversation)
    query = read_query(request, StreamQuery)
    resumed = header(request, b"last-event-id")
    state = await read_state(parts.database, caller.tenant, at)
    after = query.after_seq if query.after_seq is not None else state.head
    if resumed is not None:
        if not (resumed.isascii() and resumed.isdigit() and len(resumed) < 17):
            raise InvalidInput(f"Last-Event-ID is {resumed!r}; send the seq of the last event", param="Last-Event-ID")
        after = int(resumed)
    body = _follow(parts, caller.tenant, at, after, request.app.state.stopping)
    return Stream(
        body, media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"}
    )


async def _follow(
    parts: Services, tenant: Tenant, at: ConversationId, after: int, stopping: asyncio.Event
) -> AsyncIterator[bytes]:
    """Yield what is stored, page by page as the reader takes it, then what comes.

    Nothing is queued for a slow reader: it is the reader's own pace that asks for the next page.
    """
    changed = parts.follower.subscribe(at)
    halt = asyncio.create_task(stopping.wait())
    loop = asyncio.get_running_loop()
    said_at = loop.time()
    try:
        yield b": connected\n\n"
        while not stopping.is_set():
            changed.clear()
            try:
                page = await read_range(parts.database, tenant, at, after_seq=after, limit=PAGE)
            except NotFound:
                yield b"event: deleted\ndata: {}\n\n"
                return
            except TurnstoneError:  # the database is away: the stream waits for it
                page = None
            if page is not None and page.events:
                for event in page.events:
                    yield b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.type.encode(), _encode(event))
                after = page.events[-1].seq
                said_at = loop.time()
                continue
            if loop.time() - said_at >= HEARTBEAT:
                yield b": \n\n"
                said_at = loop.time()
            woken = asyncio.create_task(changed.wait())
            with suppress(asyncio.CancelledError):
                await asyncio.wait({woken, halt}, timeout=POLL, return_when=asyncio.FIRST_COMPLETED)
            woken.cancel()
    finally:
        halt.cancel()
        parts.follower.unsubscribe(at, changed)
