"""``GET /v1/conversations/{id}/events/stream``: the log as server-sent events, from a seq on and then live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
from server.errors import Forbidden, InvalidInput, NotFound, TurnstoneError, Unauthorized
from server.log.follow import POLL
from server.log.read import read_range, read_state
from server.operations import metrics

HEARTBEAT: Final = 15.0  # seconds; proxies close what is silent for 30 to 60
READMIT: Final = 0.4  # seconds between two looks at the key, so that a revoked one reads for no longer than a second
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
    authorization = header(request, b"authorization")
    body = _follow(parts, caller.tenant, authorization, at, after, request.app.state.stopping)
    return Stream(
        body, media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"}
    )


async def _follow(
    parts: Services,
    tenant: Tenant,
    authorization: str | None,
    at: ConversationId,
    after: int,
    stopping: asyncio.Event,
) -> AsyncIterator[bytes]:
    """Yield what is stored, page by page as the reader takes it, then what comes; end when the key is valid no more.

    Nothing is queued for a slow reader: it is the reader's own pace that asks for the next page.
    """
    changed = parts.follower.subscribe(at)
    changed.set()
    metrics.STREAMS.inc()
    halt = asyncio.create_task(stopping.wait())
    time = asyncio.get_running_loop().time
    said_at = read_at = admitted_at = time()
    try:
        yield b": connected\n\n"
        while not stopping.is_set():
            if time() - admitted_at >= READMIT:
                if not await _admitted(parts, authorization):
                    return
                admitted_at = time()
            if changed.is_set() or time() - read_at >= POLL:
                changed.clear()
                read_at = time()
                try:
                    page = await read_range(parts.database, tenant, at, after_seq=after, limit=PAGE)
                except NotFound:
                    yield b"event: deleted\ndata: {}\n\n"
                    return
                except TurnstoneError:  # the database is away: the stream waits for it
                    page = None
                if page is not None and page.events:
                    changed.set()  # there may be more
                    for event in page.events:
                        yield b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.type.encode(), _encode(event))
                    after = page.events[-1].seq
                    said_at = time()
                    continue
            if time() - said_at >= HEARTBEAT:
                yield b": \n\n"
                said_at = time()
            woken = asyncio.create_task(changed.wait())
            try:
                await asyncio.wait({woken, halt}, timeout=READMIT, return_when=asyncio.FIRST_COMPLETED)
            finally:
                woken.cancel()
    finally:
        halt.cancel()
        metrics.STREAMS.dec()
        parts.follower.unsubscribe(at, changed)


async def _admitted(parts: Services, authorization: str | None) -> bool:
    """Whether the key that opened the stream may still read."""
    try:
        (await parts.authenticator.still(authorization)).require("read")
    except (Unauthorized, Forbidden):
        return False
    except TurnstoneError:  # nobody can tell while the database is away, and nothing can be read either
        return True
    return True
