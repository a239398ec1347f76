"""The OpenAPI document is valid, complete and true: its examples run; and its page needs nothing from the internet."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from schemathesis.openapi import from_dict

from server.api.docs import INTRODUCTION, TAGS
from server.app import create_app
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.settings import Settings
from tests.operator_steps import Operator

METHODS = {"get", "put", "post", "delete", "patch"}
Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    """The document as it is served, without a key."""
    answer = await client.get("/openapi.json", headers={"authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> list[Operation]:
    return [(path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()]


def properties(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every property of every schema below a node, with its place."""
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict):
            yield from ((f"{at}.{name}", schema) for name, schema in node["properties"].items())
        for key, value in node.items():
            if key not in ("example", "examples"):
                yield from properties(value, f"{at}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from properties(value, f"{at}[{index}]")


def test_every_route_is_documented(settings: Settings, address: EmbeddedAddress) -> None:
    app = create_app(settings, address)
    paths = app.openapi_schema.to_schema()["paths"]
    documented = {(path, method.upper()) for path, item in paths.items() for method in item}
    routed = {
        (re.sub(r":\w+}", "}", route.path), method) for route in app.routes for method in route.methods or () if method
    }
    beside = {("/docs", "GET"), ("/docs/{name}", "GET"), ("/openapi.json", "GET")}
    assert {one for one in routed if one[1] != "OPTIONS"} - beside == documented


def test_the_document_is_valid(settings: Settings, address: EmbeddedAddress) -> None:
    document = create_app(settings, address).openapi_schema.to_schema()
    assert document["openapi"].startswith("3.1")
    schema = from_dict(document)
    schema.validate()
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)


async def test_operations_are_described(document: dict[str, Any]) -> None:
    assert [tag["name"] for tag in document["tags"]] == list(TAGS)
    assert all(tag["description"] for tag in document["tags"])
    lacking = []
    for path, method, operation in operations(document):
        statuses = set(operation["responses"])
        needs = {"401", "403", "429", "503"} if operation.get("security") != [] else set()
        needs |= {"400", "413", "422"} if "requestBody" in operation else set()
        needs |= {"404"} if re.search(r"/(conversations|tenants|keys|users)/{", path) else set()
        lacking += [
            f"{method} {path}: {name}"
            for name in ("summary", "description", "operationId", "tags")
            if not operation.get(name)
        ]
        lacking += [f"{method} {path}: status {status}" for status in needs - statuses]
        lacking += [f"{method} {path}: success"] * (not any(status.startswith("2") for status in statuses))
        lacking += [f"{method} {path}: tag {tag}" for tag in operation["tags"] if tag not in TAGS]
        lacking += [
            f"{method} {path}: {status} undescribed"
            for status, one in operation["responses"].items()
            if not one["description"]
        ]
        if "requestBody" in operation:
            lacking += [f"{method} {path}: no example of a body"] * (
                not any(content.get("examples") for content in operation["requestBody"]["content"].values())
            )
    assert lacking == []


async def test_every_field_and_parameter_is_described(document: dict[str, Any]) -> None:
    bare = [at for at, schema in properties(document) if not schema.get("description")]
    bare += [
        f"{method} {path}: {parameter['name']}"
        for path, method, operation in operations(document)
        for parameter in operation.get("parameters", [])
        if not parameter.get("description") or (parameter["required"] and "example" not in parameter)
    ]
    bare += [name for name, schema in document["components"]["schemas"].items() if not schema.get("description")]
    assert bare == []


async def test_examples_run(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    ran = 0
    for path, method, operation in operations(document):
        if operation["operationId"] == "stream_events":
            continue  # endless; it is tested with the stream
        if path.startswith("/v1/embeddings/migration/") and method == "post":
            continue  # they have an order, see below
        bodies: list[dict[str, Any] | None] = [None]
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            bodies = [{"type": media_type, "value": one["value"]} for one in content["examples"].values()]
        for body in bodies:
            url = path.format(**await resources(client, operation["operationId"]))
            headers = {"content-type": body["type"]} if body else {}
            if operation["operationId"] == "import_log":
                headers["authorization"] = await empty_tenant(client)
            content = json.dumps(body["value"]) if body else None
            answer = await client.request(method, url, content=content, headers=headers)
            assert answer.is_success, (method, url, body, answer.text)
            assert str(answer.status_code) in operation["responses"]
            ran += 1
    assert ran > 20


async def test_the_examples_of_a_migration_run(
    client: httpx.AsyncClient, document: dict[str, Any], database: Database, address: EmbeddedAddress
) -> None:
    """In the order of a migration; what would take long to measure is taken as measured."""
    operator = Operator(client, database)
    await operator.add("minilm-384")
    steps = ["plan", "start", "backfill", "pause", "resume", "verify", "shadow", "compare", "ramp", "cutover"]
    again = ["start", "backfill", "verify", "shadow", "ramp", "cutover"]
    for step in (*steps, "rollback", *again, "contract"):
        if step in ("verify", "shadow"):
            await operator.verified()
        if step == "ramp":
            await operator.compared()
        if step == "contract":
            with psycopg.connect(address.conninfo("admin")) as connection:
                connection.execute("UPDATE embedding_version SET state_since = now() - interval '73 hours'")
        await operator.followed()
        path = f"/v1/embeddings/migration/{step}"
        operation = document["paths"][path]["post"]
        for content in operation["requestBody"]["content"].values():
            for example in content["examples"].values():
                answer = await client.post(path, json=example["value"])
                assert answer.status_code == 200, (step, answer.text)
    tried = {path.rpartition("/")[2] for path in document["paths"] if path.startswith("/v1/embeddings/migration/")}
    assert tried - {"history"} == {*steps, "rollback", "contract"}


async def empty_tenant(client: httpx.AsyncClient) -> str:
    """Make a tenant, and return what to send as Authorization: an export is restored into an empty one."""
    tenant = (await client.post("/v1/tenants", json={"name": "empty"})).json()["id"]
    made = await client.post("/v1/keys", json={"name": "restore", "scopes": ["admin"], "tenant": tenant})
    return f"Bearer {made.json()['key']}"


async def resources(client: httpx.AsyncClient, operation: str) -> dict[str, str | int]:
    """Make what a path may name, anew for each example: some of them erase it."""
    texts = ["Never call me before nine.", *map(str, range(1, 5))]
    conversation = {"user": "ada", "items": [{"role": "user", "content": text} for text in texts]}
    made = (await client.post("/v1/conversations", json=conversation)).json()["id"]
    events = (await client.get(f"/v1/conversations/{made}/events")).json()["data"]
    key = (await client.post("/v1/keys", json={"name": "example", "scopes": ["read"]})).json()["id"]
    tenant = (await client.get("/v1/tenants")).json()["data"][-1]["id"]
    if operation == "delete_tenant":
        tenant = (await client.post("/v1/tenants", json={"name": "gone"})).json()["id"]
    snapshot = (await client.post(f"/v1/conversations/{made}/context", json={})).json()["snapshot_id"]
    named = {"conversation": made, "event": events[0]["id"], "seq": 1, "snapshot": snapshot}
    named["item"] = events[0]["id"].replace("evt_", "msg_")
    question = {"id": "q", "conversation": made, "question": "When?", "evidence": [events[0]["id"]]}
    await client.post("/v1/golden", json={"name": "ours", "owner": "ida", "questions": [question]})
    return named | {"key": key, "tenant": tenant, "user": "ada", "name": "ours"}


async def test_the_curl_of_the_introduction_runs(client: httpx.AsyncClient) -> None:
    block = re.search(r"^curl (?:.*\\\n)*.*$", INTRODUCTION, re.MULTILINE)
    assert block is not None
    # Read as curl would, since not every machine has it.
    words = iter(shlex.split(block[0].replace("\\\n", " "))[1:])
    url, body, headers = "", "", {}
    for word in words:
        if word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value.replace("Bearer $TURNSTONE_KEY", client.headers["authorization"])
        elif word == "-d":
            body = next(words)
        elif not word.startswith("-"):
            url = word
    answer = await client.post(url.removeprefix("http://127.0.0.1:8420"), content=body, headers=headers)
    assert (answer.status_code, answer.json()["head"]) == (200, 1), answer.text


async def test_the_page_loads_from_this_server_alone(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) >= 5
    for url in loaded:
        assert url.startswith("/"), url
        answer = await client.get(url)
        assert (answer.status_code, answer.headers["x-content-type-options"]) == (200, "nosniff"), url
        assert answer.content, url
    assert "SwaggerUIBundle" in (await client.get("/docs/swagger-ui-bundle.js")).text


async def test_a_file_that_the_page_does_not_load_is_404(client: httpx.AsyncClient) -> None:
    for name in ("index.html", "..%2f__init__.py", "%2e%2e", "swagger-ui.js"):
        answer = await client.get(f"/docs/{name}")
        assert answer.status_code == 404, name


@pytest.mark.parametrize("path", ["/schema", "/schema/swagger", "/schema/openapi.json", "/docs/openapi.json"])
async def test_litestars_own_pages_are_not_served(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


async def test_options_names_every_method(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        answer = await client.options(re.sub(r"{\w+}", "x", path))
        methods = {method.upper() for method in item if method in METHODS}
        assert (answer.status_code, set(answer.headers["allow"].split(", "))) == (204, methods | {"OPTIONS"}), path


async def test_the_stream_refuses_as_the_document_says(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    made = (await client.post("/v1/conversations", json={})).json()["id"]
    url = f"/v1/conversations/{made}/events/stream"
    refused = {
        401: await client.get(url, headers={"authorization": "Bearer nobody"}),
        404: await client.get(f"/v1/conversations/conv_{'0' * 48}/events/stream"),
        422: await client.get(url, params={"after_seq": "-1"}),
    }
    responses = document["paths"]["/v1/conversations/{conversation}/events/stream"]["get"]["responses"]
    for status, answer in refused.items():
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
        assert str(status) in responses
    for bad in ("x", "-1", "1" * 30, "\u0661"):
        answer = await client.get(url, headers=[(b"last-event-id", bad.encode())])
        assert answer.status_code == 422, bad
        assert answer.json()["error"]["param"] == "Last-Event-ID"
