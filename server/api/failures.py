"""Errors as HTTP answers, all in one shape."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.enums import MediaType
from litestar.exceptions import HTTPException

from server.database.failures import unavailable
from server.errors import TurnstoneError

logger = logging.getLogger(__name__)

_CODES = {
    400: ("invalid_request_error", "bad_request"),
    404: ("not_found_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    413: ("invalid_request_error", "too_large"),
}


def _body(message: str, kind: str, param: str | None, code: str, details: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code, **details}})


def known(_request: Request[Any, Any, Any], error: TurnstoneError) -> Response[bytes]:
    """Answer with an error of ours."""
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if error.status == 409:
        # OpenAI's SDKs take every 409 for a lock that is held for a moment, and try again.
        headers["x-should-retry"] = "false"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    body = _body(error.message, error.type, error.param, error.code, error.details)
    return Response(body, status_code=error.status, media_type=MediaType.JSON, headers=headers)


def http(_request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer with an error of the framework's: no such route, no such method, too large."""
    kind, code = _CODES.get(error.status_code, ("invalid_request_error", "bad_request"))
    body = _body(error.detail, kind, None, code, {})
    return Response(body, status_code=error.status_code, media_type=MediaType.JSON, headers=error.headers)


def unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer 503 when the database failed, else 500; the log gets the trace, the caller does not."""
    answer = unavailable(error)
    if answer is not None:
        return known(request, answer)
    logger.exception("unexpected error", exc_info=error)
    body = _body("an unexpected error; the log holds it under this x-request-id", "server_error", None, "internal", {})
    return Response(body, status_code=500, media_type=MediaType.JSON)


HANDLERS: dict[Any, Any] = {TurnstoneError: known, HTTPException: http, Exception: unexpected}
