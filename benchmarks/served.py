"""``turnstone serve`` with what a benchmark compares: ``python -m benchmarks.served [--without PART]... [FLAG]...``.

``PUT /bench/NAME`` keeps a body, and ``GET /bench/NAME`` returns it, as any route of this server would whose answer is
at hand. ``--without snapshots`` writes none; ``--without write-through`` tells nobody in memory of appends.
"""

from __future__ import annotations

import sys
from typing import Any, cast

from litestar import Litestar, Response, get, put
from litestar.params import FromPath

from server.api.edge import Call, read_body, reply_encoded
from server.app import create_app
from server.cli import main as turnstone
from server.context.hot import WorkingSets
from server.context.record import begin
from server.context.snapshots import Answered, Recorder, SnapshotId
from server.database.ids import ConversationId, uuid7
from server.database.tenant import Tenant
from server.log.tails import Tails
from server.serve import http

PARTS = ("snapshots", "write-through")
_bodies: dict[str, bytes] = {}


@put("/bench/{name:str}", include_in_schema=False)
async def keep(request: Call, name: FromPath[str]) -> Response[bytes]:
    _bodies[name] = await read_body(request)
    return reply_encoded(b"{}")


@get("/bench/{name:str}", include_in_schema=False)
async def give(name: FromPath[str]) -> Response[bytes]:
    return reply_encoded(_bodies[name])


async def _answer_only(_self: Recorder, _tenant: Tenant, conversation: ConversationId, answered: Answered) -> bytes:
    return begin(str(SnapshotId(conversation.user_key, uuid7()))) + answered.rest


def main() -> None:
    """Serve, with the flags of ``turnstone serve``."""
    arguments = sys.argv[1:]

    def with_routes(*given: Any) -> Litestar:
        app = create_app(*given)
        app.register(keep)
        app.register(give)
        return app

    cast("Any", http).create_app = with_routes
    while arguments[:1] == ["--without"]:
        match arguments[1]:
            case "snapshots":
                cast("Any", Recorder).add = _answer_only
            case "write-through":
                for listener in (WorkingSets, Tails):
                    cast("Any", listener).on_append = lambda *_: None
            case other:
                raise SystemExit(f"there is no part {other!r}; there are {', '.join(PARTS)}")
        del arguments[:2]
    turnstone(["serve", *arguments], prog_name="turnstone")


if __name__ == "__main__":
    main()
