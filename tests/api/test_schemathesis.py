"""Schemathesis fuzzes every operation of the served document: no 500, and nothing but what the document says."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

# Not use_after_free: an erased event and a revoked key are still there to be read, without what they held.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)


async def seed(client: httpx.AsyncClient) -> dict[str, list[Any]]:
    """Store something of everything, and return the ids by path parameter."""
    conversations, keys, tenants, snapshots = [], [], [], []
    events = [{"id": f"e{number}", "role": "user", "content": "hello"} for number in range(1, 6)]
    for number in range(40):
        made = await client.post("/v1/conversations", json={"user": f"user-{number % 8}", "items": events})
        conversations.append(made.json()["id"])
        asked = await client.post(f"/v1/conversations/{conversations[-1]}/context", json={})
        snapshots.append(asked.json()["snapshot_id"])
    for number in range(10):
        made = await client.post("/v1/keys", json={"name": f"key {number}", "scopes": ["read"]})
        keys.append(made.json()["id"])
        made = await client.post("/v1/tenants", json={"name": f"tenant-{number}"})
        tenants.append(made.json()["id"])
    users = [f"user-{number}" for number in range(8)]
    within = {
        "conversation": conversations,
        "event": ["e1", "e2", "e3"],
        "item": ["e3", "e4"],
        "seq": [1, 2, 3],
        "snapshot": snapshots,
    }
    return within | {"key": keys, "tenant": tenants, "user": users}


async def fuzz(directory: Path, client: httpx.AsyncClient, *options: str) -> str:
    """Run Schemathesis with what is stored in its dictionaries; its findings fail the test. Returns its report."""
    # A file, not arguments: those of a process are everyone's to see, and the key is one of them.
    lines = [
        f"headers = {{ Authorization = {json.dumps(client.headers['authorization'])} }}",
        f"hooks = {json.dumps(str(Path(__file__).with_name('schemathesis_hooks.py')))}",
    ]
    for name, values in (await seed(client)).items():
        lines += [
            f"[dictionaries.{name}]",
            f"values = {json.dumps(values)}",
            f'[parameters."path.{name}"]',
            f'dictionary = "{name}"',
            "probability = 0.8",
        ]
    config = directory / "schemathesis.toml"
    config.write_text("\n".join(lines))
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)]
    command += ["run", str(client.base_url.join("/openapi.json")), "--checks", ",".join(CHECKS), *options]
    command += ["--generation-deterministic", "--no-color", "--warnings", "off"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        report = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, report
    return report


@pytest.mark.timeout(480)
async def test_no_operation_breaks_its_promises(tmp_path: Path, client: httpx.AsyncClient) -> None:
    # The stream never ends (its refusals are tested in test_openapi.py). Revoking would sooner or later hit our key.
    # Adding a version opens whatever model it names, by the network too.
    excluded = ("stream_events", "revoke_key", "add_embedding_version")
    options = [option for name in excluded for option in ("--exclude-operation-id", name)]
    report = await fuzz(tmp_path, client, "--max-examples", "12", *options)
    document = (await client.get("/openapi.json")).json()
    operations = sum(len(item) for item in document["paths"].values())
    assert f"Tested: {operations - len(excluded)}" in report, report


async def test_revoking_keys_breaks_no_promises(tmp_path: Path, client: httpx.AsyncClient) -> None:
    phases = "examples,coverage,fuzzing"
    report = await fuzz(tmp_path, client, "--phases", phases, "--include-operation-id", "revoke_key")
    assert "Tested: 1" in report, report
