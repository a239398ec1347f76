"""``/v1/export`` and ``/v1/import``: a tenant's log out, and in again as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec
from litestar import Response, get, post
from litestar.response import Stream
from msgspec import Meta

from server.api.documentation import Answer, document
from server.api.edge import Call, admit, conversation_id, read_body, read_query, reply, services
from server.api.json_text import check_text
from server.errors import BadRequest, Conflict, InvalidInput, NotFound, TenantNotEmpty, TooLarge
from server.log.formats.export_lines import Line
from server.log.transfer.chunk import parse
from server.log.transfer.export import export
from server.log.transfer.restore import restore

NDJSON: Final = "application/x-ndjson"


class ExportQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which part of the log; by default, all of it."""

    user: Annotated[str | None, Meta(description="Only this user's conversations.")] = None
    conversation: Annotated[
        str | None,
        Meta(description="Only this conversation, with those it was forked from.", examples=["conv_" + "0" * 48]),
    ] = None


class ImportReply(msgspec.Struct):
    """What a chunk added."""

    conversations: Annotated[int, Meta(description="How many conversations were made.")]
    events: Annotated[int, Meta(description="How many events were made.")]
    known: Annotated[int, Meta(description="How many of the chunk's events were here already.")]


@get(
    "/v1/export",
    **document(
        summary="Export the log",
        tag="Transfer",
        description=(
            "One JSON object a line, from one snapshot: a header with the salt that ids and hashes are made from, "
            "users, conversations each followed by its own events, erasures, and an end line: without it the export "
            "is cut off, as it is when the reader stops reading for a minute. An export holds all content and the salt."
        ),
        responses={200: Answer(body=Line, media_type=NDJSON, description="The export, a line for each record.")},
        query=ExportQuery,
        errors=[NotFound],
    ),
)
async def export_log(request: Call) -> Stream:
    caller = await admit(request, "admin")
    query = read_query(request, ExportQuery)
    only = None if query.conversation is None else conversation_id(query.conversation)
    chunks = export(services(request).database, caller.tenant, user=query.user, conversation=only)
    first = await anext(chunks)  # what is refused is refused before the answer begins

    async def body() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return Stream(body(), media_type=NDJSON, headers={"cache-control": "no-store"})


@post(
    "/v1/import",
    **document(
        summary="Restore an export",
        tag="Transfer",
        description=(
            "A chunk of lines of an export, in its order, stored in one transaction exactly as they were; a chunk that "
            "comes again adds nothing. Each chunk begins with the header line, and one that begins inside a "
            "conversation has that conversation's line next. An empty tenant takes over the export's salt (which takes "
            "a second); a tenant with another salt answers 409 `tenant_not_empty`: append the events anew then."
        ),
        request=Line,
        request_media_type=NDJSON,
        examples={"the header": {"kind": "header", "format": "turnstone-jsonl", "version": 1, "salt": "5f" * 32}},
        responses={200: ImportReply},
        errors=[BadRequest, InvalidInput, TooLarge, Conflict, TenantNotEmpty],
    ),
)
async def import_log(request: Call) -> Response[bytes]:
    caller = await admit(request, "admin")
    body = await read_body(request)
    # Beside the event loop: taking 16 MiB apart would hold up everybody else's requests.
    chunk = await asyncio.to_thread(parse, body, check_text)
    parts = services(request)
    restored = await restore(parts.database, caller.tenant, chunk)
    for part in chunk.parts:
        # The tenant may have taken the export's salt over just now.
        parts.embedder.hint(caller.tenant._replace(salt=chunk.salt), part.id, len(part.events))
    return reply(ImportReply(*restored))


HANDLERS = [export_log, import_log]
