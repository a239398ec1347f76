"""What happens around every request: an id, a time, a count, a line in the log when it is worth one.

Pure ASGI, since it sits on the path of every append: it adds under 10 microseconds.
"""

from __future__ import annotations

import logging
import random
import re
from time import perf_counter
from typing import cast

from litestar import Litestar
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from server.operations.logs import REQUEST_ID
from server.operations.metrics import UNMATCHED, observe_request

logger = logging.getLogger("server.requests")

_SLOW = 1.0  # seconds
_GONE = 499  # as nginx counts a client that left before its answer
# Ids go into headers and logs: printable, no blanks, of bounded length.
_ID = re.compile(rb"[!-~]{1,128}")


class RequestObserver:
    """Wraps an ASGI application.

    ``log`` is the setting log_requests: ``all``, ``slow`` (a second or more to the first byte, or 5xx; of 503
    one a second) or ``none``.
    The caller's ``x-request-id`` is kept when it is 1 to 128 printable ASCII characters, else one is made.
    """

    def __init__(self, app: ASGIApp, log: str) -> None:
        self._app = app
        self._all = log == "all"
        self._slow = _SLOW if log == "slow" else float("inf")
        self._failed = 600 if log == "none" else 500
        self._said_unavailable = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind: str = scope["type"]
        if kind != "http":
            await self._app(scope, receive, send)
            return
        scope = cast("HTTPScope", scope)
        began = perf_counter()
        request_id = _request_id(scope)
        REQUEST_ID.set(request_id.decode())
        status = 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
                self._observe(scope, status, perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except BaseException as error:
            if not status:
                self._observe(scope, 500 if isinstance(error, Exception) else _GONE, perf_counter() - began)
                status = 500
            raise
        finally:
            if not status:
                self._observe(scope, _GONE, perf_counter() - began)

    def _observe(self, scope: HTTPScope, status: int, seconds: float) -> None:
        route = scope.get("path_template") or UNMATCHED
        method = scope["method"]
        observe_request(route, method, status, seconds)
        if self._all or seconds >= self._slow or status >= self._failed:
            if status == 503 and not self._all:
                # A database that is down fails every request alike; thousands of lines would hide why.
                now = perf_counter()
                if now - self._said_unavailable < _SLOW:
                    return
                self._said_unavailable = now
            level = logging.ERROR if status >= 500 else logging.WARNING if seconds >= self._slow else logging.INFO
            # The route, not the path: a path may name an end user.
            logger.log(
                level,
                "request",
                extra={"method": method, "route": route, "status": status, "milliseconds": round(seconds * 1000, 2)},
            )


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            if _ID.fullmatch(value):
                return value
            break
    # To tell requests apart takes no secrets, and no system call.
    return b"%024x" % random.getrandbits(96)


def observe(app: Litestar, log: str) -> Litestar:
    """Put the observer around everything that the application does, its 404s and 500s included."""
    app.asgi_handler = RequestObserver(app.asgi_handler, log)
    return app
