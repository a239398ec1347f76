"""``/docs`` and ``/openapi.json``: the API described, to be read and tried in a browser without internet.

Swagger UI's files come from the package ``flask-swagger-ui``, which carries them unchanged; neither it nor Flask is
ever imported.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec
from litestar import Response, Router, get
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, License, SecurityScheme, Tag
from litestar.params import FromPath

from server.api.documentation import Documentation
from server.api.edge import Call
from server.errors import NotFound

TAGS: Final = {
    "Conversations": "Create, list, describe and fork conversations.",
    "Events": "Append to a conversation's log, read it both ways and as of any moment, and follow it live.",
    "Items": "The same log as OpenAI's Conversations API shows it: point its SDKs at this server.",
    "Working set": "Which events stay hot within a token budget: the eviction policy, pins, and why each is there.",
    "Constraints": "Standing instructions and preferences: recognised, confirmed or dismissed, and never dropped.",
    "Context": "What a model should see now, and what it saw then.",
    "Search": "The events that may hold a question's answer, by words and by meaning, and why each is there.",
    "Embeddings": "Embedding versions and the migration from one to the next; with an operator's admin key.",
    "Users": "The end users that conversations belong to.",
    "Erasure": "Erase an event, a conversation or a user for good, and let retention do it after a time.",
    "Tenants": "The isolated customers of this server; managed with an operator's admin key.",
    "Keys": "API keys: their scopes, limits, expiry and revocation.",
    "Transfer": "Conversations in and out as JSON Lines.",
    "Operations": "Health and figures, for orchestrators and Prometheus; these need no key.",
}

INTRODUCTION: Final = """\
A **conversation memory database**: an append-only log of what was said and done in chats. A *conversation* is one
sequence of immutable *events*, numbered `seq` 1, 2, 3 … without gaps; its *head* is the last `seq`.

Create a conversation with its first event (`make serve` prints where the admin key is kept):

```sh
export TURNSTONE_KEY="$(cat DATA_DIRECTORY/admin-key)"

curl -sS http://127.0.0.1:8420/v1/conversations \\
  -H "Authorization: Bearer $TURNSTONE_KEY" -H "Content-Type: application/json" \\
  -d '{"user": "ada", "items": [{"role": "user", "content": "I moved to Lisbon."}]}'
```

**Authentication.** Send `Authorization: Bearer <key>`; here, press *Authorize* once. A key belongs to one tenant and
has scopes: `read`, `append`, `erase`, and `admin`, which includes all. What belongs to another tenant answers 404, as
if it did not exist.

**Errors.** All have one shape: `{"error": {"message", "type", "param", "code"}}`, where `param` names the field and
`code` never changes. Every answer carries `x-request-id`; yours is kept if you send one. On 429 and 503, wait
`Retry-After` seconds and retry.

**Pagination.** Lists take `limit`, `order` and `after`, and answer `has_more` and `last_id`: pass `last_id` as the next
`after`. The log is read by `after_seq` and `before_seq`.

**Idempotency.** Creating and appending take an `Idempotency-Key`. The same key with the same body gives the first
answer again, also after a restart; with another body, 422. Keys are remembered for 24 hours by default. An event's own
`id` does the same for as long as the conversation lives, and `expected_head` refuses with 409 to append to a log
that has moved on.

**Working set and context.** An eviction policy keeps the events that fit into a conversation's token budget;
`GET …/working-set` says why each stays, and why others left. `POST …/context` is what a model should see: pins and the
working set, in order, never more tokens than the budget. Its `snapshot_id` gives the answer back byte for byte. A read
with `min_seq` shows at least that `seq` and may come from memory; one without is as new as the database.

**Limits.** By default 1 MiB for one event, 16 MiB for one request, else 413; 1,000 events in one append; 64 KiB of
metadata; 100 levels of nesting. Unknown fields are refused, but inside `content` and `metadata` everything is kept as
sent, byte for byte in meaning.
"""

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Turnstone API</title>
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/page.css">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript; <a href="/openapi.json">openapi.json</a> does not.</noscript>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/page.js"></script>
</body>
</html>
"""

# A file of its own, since the page's policy allows no inline script.
_SCRIPT: Final = """\
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
"""

_STYLE: Final = """\
body { margin: 0; }
.swagger-ui .info { margin: 2rem 0 0; }
.swagger-ui .info .renderedMarkdown { max-width: 58rem; }
.swagger-ui .info pre { padding: 0.75rem 1rem; border-radius: 4px; }
.swagger-ui .markdown code, .swagger-ui .renderedMarkdown code { color: #3b4151; font-weight: 500; }
.swagger-ui .scheme-container { margin: 0; padding: 0 0 1rem; box-shadow: none; background: none; }
.swagger-ui .servers-title, .swagger-ui .servers { display: none; } /* there is one: this */
.swagger-ui .auth-wrapper { margin-left: auto; }
.swagger-ui .responses-table .response-col_links { display: none; }
"""

# Swagger UI draws its icons as data: URLs, and React sets styles that a nonce cannot cover.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_SWAGGER_UI: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


class _Nowhere(Router):
    """Takes the pages that Litestar would serve, which load their scripts from the internet, and serves none."""

    def register(self, value: Any) -> list[Any]:
        return []


def documentation() -> Documentation:
    """Return what the document says about the API as a whole."""
    bearer = SecurityScheme(type="http", scheme="bearer", description="An API key, such as `ts_…`.")
    return Documentation(
        title="Turnstone",
        version=version("turnstone"),
        description=INTRODUCTION,
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        tags=[Tag(name=name, description=text) for name, text in TAGS.items()],
        components=Components(security_schemes={"key": bearer}),
        security=[{"key": []}],
        render_plugins=[JsonRenderPlugin()],
        openapi_router=_Nowhere("/docs", route_handlers=[]),
    )


def _file(name: str) -> bytes:
    spec = find_spec("flask_swagger_ui")
    if spec is None or spec.origin is None:
        raise NotFound("Swagger UI is not installed; install Turnstone with its dependencies")
    return (Path(spec.origin).parent / "dist" / name).read_bytes()


@get("/openapi.json", include_in_schema=False, sync_to_thread=False)
def get_openapi(request: Call) -> Response[bytes]:
    """Answer with the OpenAPI document, made once and then kept."""
    state = request.app.state
    if "openapi" not in state:
        state.openapi = msgspec.json.encode(request.app.openapi_schema.to_schema())
    return _answer(state.openapi, "application/json")


@get("/docs", include_in_schema=False, sync_to_thread=False)
def get_page() -> Response[bytes]:
    """Answer with the page that shows the document."""
    return _answer(_PAGE.encode(), "text/html")


@get("/docs/{name:str}", include_in_schema=False, sync_to_thread=False)
def get_page_file(name: FromPath[str]) -> Response[bytes]:
    """Answer with a file that the page loads."""
    if name in _SWAGGER_UI:
        return _answer(_file(name), _SWAGGER_UI[name])
    if name == "page.js":
        return _answer(_SCRIPT.encode(), "text/javascript")
    if name == "page.css":
        return _answer(_STYLE.encode(), "text/css")
    raise NotFound("no such page")


def _answer(body: bytes, media_type: str) -> Response[bytes]:
    return Response(body, media_type=media_type, headers=_HEADERS)


HANDLERS = [get_openapi, get_page, get_page_file]
