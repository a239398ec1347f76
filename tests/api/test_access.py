"""Tenants, keys, authentication and limits, over HTTP and by the command line."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import event, select

from schema.tables import api_key
from server.access import admin_key as key_file
from server.access import authenticate, keys, tenants
from server.access.authenticate import Authenticator
from server.access.first_start import ensure_admin_key
from server.access.key_format import digest, new_secret
from server.cli.keys import keys as keys_command
from server.cli.tenants import tenants as tenants_command
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.tenant import Tenant
from server.errors import NotFound, RateLimited, Unauthorized

Servers = Callable[[], Awaitable[httpx.AsyncClient]]
NEVER_MADE = "ts_" + "A" * 43


async def make_key(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/v1/keys", json={"name": "test", "scopes": ["read", "append"], **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def make_tenant(client: httpx.AsyncClient, name: str, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/v1/tenants", json={"name": name, **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def admin_of(client: httpx.AsyncClient, tenant: str) -> dict[str, str]:
    """Return the headers of a new tenant's admin key."""
    await make_tenant(client, tenant)
    return bearer((await make_key(client, tenant=tenant, scopes=["admin"]))["key"])


# Who is let in


NO_KEYS = [
    None,
    "",
    "Bearer",
    "Bearer   x",
    "Basic dTpw",
    "Bearer ts_short",
    f"Bearer {NEVER_MADE}",
    f"Bearer {NEVER_MADE}x",
    f"Token {NEVER_MADE}",
    "Bearer ts_" + "\u00e9" * 43,
]


async def test_what_is_no_key_is_refused_in_the_same_words(client: httpx.AsyncClient) -> None:
    del client.headers["authorization"]
    missing = await client.get("/v1/keys", headers=bearer("ts_" + "B" * 43))
    assert missing.status_code == 401
    assert missing.headers["www-authenticate"] == "Bearer"
    for authorization in NO_KEYS:
        headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
        answer = await client.get("/v1/keys", headers=headers)
        assert (answer.status_code, answer.content) == (401, missing.content), authorization


async def test_the_scheme_may_be_written_in_any_case(client: httpx.AsyncClient, admin_key: str) -> None:
    assert (await client.get("/v1/keys", headers={"authorization": f"bearer  {admin_key}"})).status_code == 200


async def test_a_key_without_the_scope_is_forbidden(client: httpx.AsyncClient) -> None:
    headers = bearer((await make_key(client, scopes=["read", "append", "erase"]))["key"])
    for method, path in [
        ("GET", "/v1/keys"),
        ("POST", "/v1/keys"),
        ("DELETE", "/v1/keys/key_1"),
        ("GET", "/v1/tenants"),
        ("POST", "/v1/tenants/default"),
    ]:
        answer = await client.request(method, path, headers=headers, json={} if method == "POST" else None)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden"), path


async def test_an_expired_key_is_refused_even_while_it_is_remembered(database: Database, tenant: Tenant) -> None:
    expires = datetime.now(UTC) + timedelta(seconds=0.15)
    _, secret = await keys.create_key(database, tenant.id, name="soon", scopes=["read"], expires_at=expires)
    authenticator = Authenticator(database)
    await authenticator.caller(f"Bearer {secret}")
    await asyncio.sleep((expires - datetime.now(UTC)).total_seconds())
    with pytest.raises(Unauthorized):
        await authenticator.caller(f"Bearer {secret}")


async def test_a_revoked_key_is_refused_by_every_server_within_a_second(
    client: httpx.AsyncClient, servers: Servers
) -> None:
    other = await servers()
    made = await make_key(client, scopes=["admin"])
    headers = bearer(made["key"])
    for one in (client, other):
        assert (await one.get("/v1/keys", headers=headers)).status_code == 200
    revoked = await client.delete(f"/v1/keys/{made['id']}")
    since = time.monotonic()
    assert revoked.json()["revoked_at"] is not None
    for one in (client, other):
        while (await one.get("/v1/keys", headers=headers)).status_code != 401:
            assert time.monotonic() - since < 1.0
            await asyncio.sleep(0.02)
    again = await client.delete(f"/v1/keys/{made['id']}")
    assert again.json() == revoked.json()


# What the server remembers of keys


class Reads:
    """Counts the transactions that read a key's row."""

    def __init__(self, database: Database) -> None:
        self.count = 0
        event.listen(database._engine("turnstone_runtime").sync_engine, "before_cursor_execute", self._note)

    def _note(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        self.count += "FROM api_key" in statement


async def test_simultaneous_requests_read_the_row_once_and_a_fresh_row_is_not_read_again(
    database: Database, admin_key: str
) -> None:
    authenticator, reads = Authenticator(database), Reads(database)
    callers = await asyncio.gather(*(authenticator.caller(f"Bearer {admin_key}") for _ in range(50)))
    assert len(set(callers)) == 1
    await authenticator.caller(f"Bearer {admin_key}")
    assert reads.count == 1


async def test_a_client_that_goes_away_does_not_fail_those_who_wait_with_it(database: Database, admin_key: str) -> None:
    authenticator = Authenticator(database)
    leaves = asyncio.create_task(authenticator.caller(f"Bearer {admin_key}"))
    stays = asyncio.create_task(authenticator.caller(f"Bearer {admin_key}"))
    await asyncio.sleep(0)
    leaves.cancel()
    assert (await stays).tenant.name == "default"


async def test_what_it_remembers_is_bounded_and_holds_no_unknown_keys(database: Database, tenant: Tenant) -> None:
    authenticator = Authenticator(database, capacity=3)
    for number in range(5):
        _, secret = await keys.create_key(database, tenant.id, name=f"key {number}", scopes=["read"])
        await authenticator.caller(f"Bearer {secret}")
    for _ in range(5):
        with pytest.raises(Unauthorized):
            await authenticator.caller(f"Bearer {new_secret()}")
    assert len(authenticator._entries) == 3
    assert not authenticator._reading


async def test_a_busy_key_is_read_again_ahead_of_need(
    database: Database, admin_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator, reads = Authenticator(database), Reads(database)
    await authenticator.caller(f"Bearer {admin_key}")
    (entry,) = authenticator._entries.values()
    entry.read_at -= authenticate.TRUSTED_SECONDS * 0.75
    await authenticator.caller(f"Bearer {admin_key}")
    (reading,) = authenticator._reading.values()
    await reading
    assert reads.count == 2
    (newer,) = authenticator._entries.values()
    assert newer.read_at > entry.read_at


async def test_a_limit_holds_across_readings_of_the_row(database: Database, tenant: Tenant) -> None:
    _, secret = await keys.create_key(database, tenant.id, name="slow", scopes=["read"], rate_limit=2)
    authenticator = Authenticator(database)
    await authenticator.caller(f"Bearer {secret}")
    for entry in authenticator._entries.values():
        entry.read_at -= 10
    await authenticator.caller(f"Bearer {secret}")
    with pytest.raises(RateLimited):
        await authenticator.caller(f"Bearer {secret}")


async def test_over_the_limit_is_429_with_when_to_come_back(client: httpx.AsyncClient) -> None:
    headers = bearer((await make_key(client, scopes=["admin"], rate_limit=1))["key"])
    statuses = [(await client.get("/v1/keys", headers=headers)).status_code for _ in range(2)]
    refused = await client.get("/v1/keys", headers=headers)
    assert statuses[0] == 200
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert (await client.get("/v1/keys")).status_code == 200, "another key is not held to it"


# Keys


async def test_a_key_is_shown_once_and_kept_as_a_hash(client: httpx.AsyncClient, database: Database) -> None:
    made = await make_key(client, name="backend", rate_limit=50, expires_at="2099-01-01T01:00:00+01:00")
    assert made["key"].startswith("ts_")
    assert len(made["key"]) == 46
    assert made["prefix"] == made["key"][:8]
    assert made["expires_at"] == "2099-01-01T00:00:00Z"
    read = await client.get(f"/v1/keys/{made['id']}")
    assert read.json() == {name: value for name, value in made.items() if name != "key"}
    async with database.transaction(None, operator=True) as connection:
        stored = (await connection.execute(select(api_key).where(api_key.c.name == "backend"))).one()
    assert made["key"] not in repr(stored)
    assert bytes(stored.digest) == digest(made["key"])


async def test_keys_are_listed_in_pages_both_ways(client: httpx.AsyncClient) -> None:
    ids = [(await make_key(client, name=f"key {number}"))["id"] for number in range(5)]
    admin = (await client.get("/v1/keys", params={"order": "asc", "limit": 1})).json()["data"][0]["id"]
    for order, expected in (("asc", [admin, *ids]), ("desc", [*reversed(ids), admin])):
        seen: list[str] = []
        after: str | None = None
        while True:
            query = {"limit": "2", "order": order} | ({"after": after} if after else {})
            page = (await client.get("/v1/keys", params=query)).json()
            seen += [one["id"] for one in page["data"]]
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
            after = page["last_id"]
            if not page["has_more"]:
                break
        assert seen == expected


WRONG_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"name": "", "scopes": ["read"]}, "name"),
    ({"name": "a\u0000b", "scopes": ["read"]}, "name"),
    ({"name": "ends\n", "scopes": ["read"]}, "name"),
    ({"name": "a", "scopes": []}, "scopes"),
    ({"name": "a", "scopes": ["write"]}, "scopes[0]"),
    ({"name": "a", "scopes": ["read"], "rate_limit": 0}, "rate_limit"),
    ({"name": "a", "scopes": ["read"], "expires_at": "2099-01-01"}, "expires_at"),
    ({"name": "a", "scopes": ["read"], "expires_at": "2099-01-01T00:00:00"}, "expires_at"),
    ({"name": "a", "scopes": ["read"], "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
    ({"name": "a", "scopes": ["read"], "expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at"),
    ({"name": "a", "scopes": ["read"], "expires_at": "9999-12-31T23:59:59-14:00"}, "expires_at"),
    ({"name": "a", "scopes": ["read"], "colour": "red"}, "colour"),
]


async def test_a_wrong_field_is_named(client: httpx.AsyncClient) -> None:
    for body, param in WRONG_FIELDS:
        answer = await client.post("/v1/keys", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text


async def test_a_wrong_parameter_is_named(client: httpx.AsyncClient) -> None:
    for query in ["after=key_1", "limit=0", "limit=101", "order=up", "colour=red", "after=%00"]:
        answer = await client.get(f"/v1/keys?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, query.partition("=")[0]), query


async def test_another_tenants_key_is_as_missing_as_one_that_never_was(client: httpx.AsyncClient) -> None:
    theirs = await make_key(client)
    headers = await admin_of(client, "acme")
    never = "key_" + "0" * 32
    for method in ("GET", "DELETE"):
        answers = [
            await client.request(method, f"/v1/keys/{key}", headers=headers)
            for key in (theirs["id"], never, "x", "%00")
        ]
        assert {answer.status_code for answer in answers} == {404}
        assert len({answer.content for answer in answers}) == 1
    assert (await client.get(f"/v1/keys/{theirs['id']}")).json()["revoked_at"] is None


async def test_an_operator_manages_the_keys_of_others_and_others_only_their_own(client: httpx.AsyncClient) -> None:
    headers = await admin_of(client, "acme")
    mine = await client.post("/v1/keys", headers=headers, json={"name": "own", "scopes": ["read"], "tenant": "acme"})
    assert mine.status_code == 201
    listed = (await client.get("/v1/keys", params={"tenant": mine.json()["tenant"]})).json()["data"]
    assert [one["name"] for one in listed] == ["own", "test"]
    for reference in ("default", "ten_1", "nobody", "ten_99999999999", "ten_999"):
        answer = await client.post(
            "/v1/keys", headers=headers, json={"name": "sly", "scopes": ["read"], "tenant": reference}
        )
        assert answer.status_code == 404, reference
    revoked = await client.delete(f"/v1/keys/{mine.json()['id']}", params={"tenant": "acme"})
    assert revoked.json()["revoked_at"] is not None


# Tenants


async def test_a_tenant_is_created_found_and_changed(client: httpx.AsyncClient) -> None:
    made = await make_tenant(client, "acme", retention_days=30)
    assert made["retention_days"] == 30
    assert made["operator"] is False
    assert (await client.get("/v1/tenants/acme")).json() == made
    assert (await client.get(f"/v1/tenants/{made['id']}")).json() == made
    renamed = await client.post(f"/v1/tenants/{made['id']}", json={"name": "acme-eu"})
    assert renamed.json() == {**made, "name": "acme-eu"}
    kept = await client.post("/v1/tenants/acme-eu", json={"retention_days": None})
    assert kept.json() == {**made, "name": "acme-eu", "retention_days": None}
    assert (await client.post("/v1/tenants/acme-eu", json={})).json() == kept.json()
    assert [one["name"] for one in (await client.get("/v1/tenants")).json()["data"]] == ["acme-eu", "default"]


async def test_a_name_is_taken_once(client: httpx.AsyncClient) -> None:
    await make_tenant(client, "acme")
    again = await client.post("/v1/tenants", json={"name": "acme"})
    renamed = await client.post("/v1/tenants/acme", json={"name": "default"})
    for answer in (again, renamed):
        assert (answer.status_code, answer.json()["error"]["param"]) == (409, "name")


async def test_a_name_that_could_not_be_addressed_is_refused(client: httpx.AsyncClient) -> None:
    for name in ["", "ten_1", "a b", "a/b", "ends\n", "é", "-a", "a" * 65, "a\u0000"]:
        answer = await client.post("/v1/tenants", json={"name": name})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "name"), repr(name)


async def test_a_tenant_sees_and_changes_itself_only(client: httpx.AsyncClient) -> None:
    headers = await admin_of(client, "acme")
    assert (await client.get("/v1/tenants/acme", headers=headers)).status_code == 200
    changed = await client.post("/v1/tenants/acme", headers=headers, json={"retention_days": 7})
    assert changed.json()["retention_days"] == 7
    answers = [
        await client.request(method, f"/v1/tenants/{other}", headers=headers, json=body)
        for other in ("default", "ten_1", "ten_999", "nobody")
        for method, body in (("GET", None), ("POST", {"retention_days": 1}))
    ]
    assert {(answer.status_code, answer.content) for answer in answers} == {(404, answers[0].content)}
    for answer in (
        await client.get("/v1/tenants", headers=headers),
        await client.post("/v1/tenants", headers=headers, json={"name": "more"}),
        await client.post("/v1/tenants/acme", headers=headers, json={"name": "default"}),
    ):
        assert answer.status_code == 403


async def test_a_key_cannot_be_made_for_a_tenant_that_is_gone(database: Database, admin_key: str) -> None:
    with pytest.raises(NotFound):
        await keys.create_key(database, 999, name="lost", scopes=["read"])


# The first start


async def test_servers_that_start_at_once_make_one_tenant_and_one_key(address: EmbeddedAddress) -> None:
    opened = [Database(address) for _ in range(4)]
    try:
        secrets = await asyncio.gather(*(tenants.bootstrap(one) for one in opened))
    finally:
        await asyncio.gather(*(one.close() for one in opened))
    assert sum(secret is not None for secret in secrets) == 1


async def test_the_admin_key_is_kept_for_its_owner_only_and_found_again(database: Database, tmp_path: Path) -> None:
    file = await ensure_admin_key(database, tmp_path, embedded=True)
    assert file == key_file.path(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600 or os.name != "posix"
    secret = key_file.read(tmp_path)
    assert (await Authenticator(database).caller(f"Bearer {secret}")).tenant.operator
    await ensure_admin_key(database, tmp_path, embedded=True)
    assert key_file.read(tmp_path) == secret
    assert [file.name for file in file.parent.glob("*")] == ["admin-key"]


@pytest.mark.parametrize("kept", [None, "", "not a key", NEVER_MADE, "\udcff", "revoked"])
async def test_a_lost_admin_key_is_replaced_where_the_data_is_ours(
    database: Database, admin_key: str, tmp_path: Path, kept: str | None
) -> None:
    if kept == "revoked":
        (key,), _ = await keys.list_keys(database, 1)
        await keys.revoke_key(database, 1, key.wire_id)
        kept = admin_key
    if kept is not None:
        key_file.path(tmp_path).write_bytes(kept.encode(errors="surrogateescape"))
    assert await ensure_admin_key(database, tmp_path, embedded=False) is None
    assert await ensure_admin_key(database, tmp_path, embedded=True) is not None
    secret = key_file.read(tmp_path)
    assert secret != admin_key
    assert (await Authenticator(database).caller(f"Bearer {secret}")).tenant.operator
    found, _ = await keys.list_keys(database, 1)
    assert len(found) == 2


# The command line


@pytest.fixture
def run(server_url: str, admin_key: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[Result]]:
    """Runs a command against the served instance, in a thread since the server runs in this one."""

    async def run(command: click.Command, *arguments: str, key: str = admin_key) -> Result:
        environment = {"TURNSTONE_URL": server_url, "TURNSTONE_KEY": key}
        return await asyncio.to_thread(CliRunner().invoke, command, arguments, env=environment)

    return run


async def test_the_command_line_makes_a_tenant_and_its_key(
    run: Callable[..., Awaitable[Result]], client: httpx.AsyncClient
) -> None:
    assert (await run(tenants_command, "create", "acme", "--retention-days", "30")).exit_code == 0
    made = await run(
        keys_command, "create", "--tenant", "acme", "--name", "[bold]backend", "--scope", "admin", "--expires", "90d"
    )
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    assert (await client.get("/v1/keys", headers=bearer(secret))).status_code == 200
    table = await run(keys_command, "list", key=secret)
    assert "[bold]backend" in table.stdout
    assert secret not in table.stdout
    listed = await run(keys_command, "list", "--json", key=secret)
    (row,) = [json.loads(line) for line in listed.stdout.splitlines()]
    assert (await run(keys_command, "revoke", row["id"], "--tenant", "acme")).exit_code == 0
    assert (await client.get(f"/v1/keys/{row['id']}?tenant=acme")).json()["revoked_at"] is not None


async def test_the_command_line_changes_tenants(
    run: Callable[..., Awaitable[Result]], client: httpx.AsyncClient
) -> None:
    await run(tenants_command, "create", "acme")
    assert (await run(tenants_command, "update", "acme", "--name", "acme-eu")).exit_code == 0
    assert (await run(tenants_command, "retention", "acme-eu", "14")).exit_code == 0
    assert (await client.get("/v1/tenants/acme-eu")).json()["retention_days"] == 14
    assert (await run(tenants_command, "retention", "acme-eu", "forever")).exit_code == 0
    listed = await run(tenants_command, "list", "--json")
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [(row["name"], row["retention_days"]) for row in rows] == [("default", None), ("acme-eu", None)]


async def test_the_command_line_tells_an_error_in_one_line(run: Callable[..., Awaitable[Result]]) -> None:
    for result, words in (
        (await run(tenants_command, "create", "default"), "already"),
        (await run(tenants_command, "update", "nobody", "--name", "x"), "no such tenant"),
        (await run(tenants_command, "list", key=NEVER_MADE), "valid API key"),
        (await run(tenants_command, "list", key="sesame"), "is not a key"),
    ):
        assert result.exit_code == 1
        assert words in result.stderr
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1


def test_no_server_says_how_to_start_one(tmp_path: Path) -> None:
    arguments = ["list", "--data-dir", str(tmp_path), "--port", "1"]
    without_key = CliRunner().invoke(tenants_command, arguments)
    assert without_key.exit_code == 1
    assert f"no key in {tmp_path / 'admin-key'}" in without_key.stderr
    key_file.write(tmp_path, NEVER_MADE)
    alone = CliRunner().invoke(tenants_command, arguments)
    assert (alone.exit_code, alone.stderr) == (
        1,
        "Error: no server at http://127.0.0.1:1; start it with `turnstone serve`\n",
    )


@pytest.mark.parametrize("expires", ["soon", "0d", "2030-13-01"])
def test_an_expiry_that_is_none_is_a_usage_error(tmp_path: Path, expires: str) -> None:
    key_file.write(tmp_path, NEVER_MADE)
    arguments = ["create", "--name", "a", "--scope", "read", "--expires", expires, "--data-dir", str(tmp_path)]
    result = CliRunner().invoke(keys_command, arguments)
    assert result.exit_code == 2
    assert "--expires" in result.stderr
