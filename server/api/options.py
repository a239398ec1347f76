"""``OPTIONS`` on every path: which methods it takes.

Litestar makes such a handler itself, but where several handlers share a path it forgets all but the first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from litestar import HttpMethod, Response, route
from litestar.handlers import HTTPRouteHandler

from server.api.edge import Call


def options(handlers: Sequence[HTTPRouteHandler]) -> HTTPRouteHandler:
    """Return one handler that answers OPTIONS, with an ``Allow`` header, for the paths of all the others."""
    methods: dict[str, set[str]] = {}
    for handler in handlers:
        for path in handler.paths:
            methods.setdefault(path, {"OPTIONS"}).update(handler.http_methods)
    # The request's template names path parameters without their types.
    allowed = {re.sub(r":\w+}", "}", path): ", ".join(sorted(found)) for path, found in methods.items()}

    @route(
        sorted(methods), http_method=HttpMethod.OPTIONS, status_code=204, include_in_schema=False, sync_to_thread=False
    )
    def answer_options(request: Call) -> Response[None]:
        return Response(None, status_code=204, headers={"allow": allowed[request.scope["path_template"]]})

    return answer_options
