"""What every route does: admit the caller, read the body, answer in one shape.

The error object is the same everywhere: ``{"error": {"message", "type", "param", "code"}}``, with an ``x-request-id``.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Receive, Scope, Send

from server.access.caller import Caller
from server.access.tenants import find_tenant
from server.api.json_text import check_text
from server.api.services import Services
from server.database.ids import ConversationId, parse_conversation_id
from server.database.tenant import Tenant
from server.errors import BadRequest, InvalidInput, NotFound, TooLarge

T = TypeVar("T")
Call = Request[Any, Any, State]

_PATH = re.compile(r" - at `(?:key in )?\$?\.?([^`]*)`$")
_encoder = msgspec.json.Encoder()


def services(request: Call) -> Services:
    """Return the parts that the application was composed of."""
    found: Services = request.app.state.services
    return found


async def admit(request: Call, scope: str) -> Caller:
    """Return who is calling; raises Unauthorized, Forbidden or RateLimited."""
    caller = await services(request).authenticator.caller(header(request, b"authorization"))
    caller.require(scope)
    return caller


async def admit_operator(request: Call) -> Caller:
    """Return the operator who is calling; raises as ``admit`` does, and Forbidden for anybody else."""
    caller = await admit(request, "admin")
    caller.require_operator()
    return caller


async def named_tenant(request: Call, caller: Caller, reference: str | None) -> Tenant:
    """Return the tenant that is meant: the caller's own, or for an operator the one named; raises NotFound."""
    if reference is None:
        return caller.tenant
    return (await find_tenant(services(request).database, reference, caller=caller.tenant)).tenant


def header(request: Call, name: bytes) -> str | None:
    """Return one request header by its lower-case name, without building a mapping of all of them."""
    for key, value in request.scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


async def read_body(request: Call) -> bytes:
    """Return the whole body; raises TooLarge before it is read whole, and BadRequest when the client leaves."""
    limit = services(request).settings.max_request_bytes
    # The server's parser has made sure that a Content-Length is a number.
    size = int(header(request, b"content-length") or 0)
    chunks: list[bytes] = []
    more = True
    while more and size <= limit:
        message = await request.receive()
        if message["type"] != "http.request":
            raise BadRequest("the connection ended before the body did; nothing was stored")
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
        size = max(size, sum(map(len, chunks)))
    if size > limit:
        raise TooLarge(f"the request is larger than {limit} bytes; send fewer events at once")
    return b"".join(chunks)


async def decode(request: Call, decoder: msgspec.json.Decoder[T]) -> T:
    """Read and decode the body; raises BadRequest for what is not JSON and InvalidInput naming the field."""
    return decode_bytes(await read_body(request), decoder)


def decode_bytes(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode JSON strictly: UTF-8, no lone surrogates, no NaN, no absurd nesting, no unknown fields."""
    check_text(body)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _named(error) from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise InvalidInput("the body is nested too deeply") from None


def read_query(request: Call, shape: type[T]) -> T:
    """Return the query parameters as a struct; raises InvalidInput for one that is unknown, repeated or wrong."""
    given: dict[str, str] = {}
    for name, value in parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if name in given:
            raise InvalidInput(f"the parameter {name!r} is given twice", param=name)
        if "\0" in value:
            raise InvalidInput("U+0000 has no place in a parameter", param=name)
        given[name] = value
    try:
        return msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError as error:
        raise _named(error) from None


def keep_encoded(app: ASGIApp) -> ASGIApp:
    """Route by the path as it was sent, so that an encoded slash is part of a name.

    Decoded, ``/v1/users/ada%2F`` would be ``/v1/users/ada/``, which is the same route as ``/v1/users/ada``: erasing the
    one user would erase the other. So path parameters arrive encoded; ``decoded`` reads them.
    """

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        kind: str = scope["type"]
        if kind == "http":
            scope["path"] = scope["raw_path"].decode("latin-1")
        await app(scope, receive, send)

    return route


def decoded(text: str, missing: str) -> str:
    """Return a path parameter as it was meant; raises NotFound, saying what is missing, for one that no name can be."""
    if "%" in text:
        try:
            text = unquote(text, errors="strict")
        except UnicodeDecodeError:
            raise NotFound(missing) from None
    if "\0" in text:
        raise NotFound(missing)
    return text


def conversation_id(text: str) -> ConversationId:
    """Return the parts of a conversation id in a path; raises NotFound, as for one that does not exist."""
    missing = "no such conversation"
    found = parse_conversation_id(decoded(text, missing))
    if found is None:
        raise NotFound(missing)
    return found


def _named(error: msgspec.ValidationError) -> InvalidInput:
    """Return the field's path as ``param`` and the rest as the message."""
    message = str(error)
    match = _PATH.search(message)
    if match:
        return InvalidInput(message[: match.start()], param=match[1] or None)
    unknown = re.search(r"(?:unknown|required) field `([^`]*)`", message)
    return InvalidInput(message, param=unknown[1] if unknown else None)


class _Encoded(ASGIResponse):
    """A body that is encoded already, with its headers: nothing is left to negotiate."""

    def __init__(self, body: bytes, status: int, headers: dict[str, str] | None) -> None:
        self.body = body
        self.status_code = status
        self.raw_headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if headers:
            self.raw_headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class _Reply(Response[bytes]):
    """What a handler returns, without the general response's cookies, encoders and header merging."""

    def __init__(self, answer: _Encoded) -> None:
        self.answer = answer

    def to_asgi_response(self, app: Litestar | None, request: Call, **_: Any) -> ASGIResponse:
        return self.answer


def reply(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    """Answer with a msgspec struct (or what it can encode) as JSON."""
    return _Reply(_Encoded(_encoder.encode(value), status, headers))


def reply_encoded(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    """Answer with JSON that is encoded already."""
    return _Reply(_Encoded(body, status, headers))
