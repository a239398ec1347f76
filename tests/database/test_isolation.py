"""Row-level security and grants, tried as the server's own roles without the tenant filter; and over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from schema.security import GRANTS, RELATION_GRANTS, RELATION_POLICY, TENANT_POLICIES
from server.app import create_app
from server.database.address import EmbeddedAddress
from server.database.ids import parse_conversation_id
from server.settings import Settings
from tests.api.test_access import admin_of, bearer, make_key
from tests.api.test_events import append, new_conversation
from tests.database.test_embeddings import caught_up

ROLES = ("turnstone_runtime", "turnstone_worker", "turnstone_eraser")
# Tables without a tenant, and why nobody's data is in them.
SHARED = {
    "alembic_version": "the schema's revision",
    "server": "which server processes are alive",
    "embedding_version": "models, by an operator",
    "embedding_routing": "which of them serves",
    "embedding_history": "what operators did with them",
    "embedding_worker": "which processes backfill",
}
# Of every table with tenants' rows, and of the relation of vectors that a database begins with.
POLICIES = {**TENANT_POLICIES, "embedding_v1": RELATION_POLICY}

TENANT_TABLES = """
SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') ORDER BY 1
"""


@pytest.fixture
async def two_tenants(client: httpx.AsyncClient, address: EmbeddedAddress) -> tuple[str, httpx.Headers]:
    """A conversation of the default tenant, with rows in every table, and the headers of another that has some too."""
    conversation = await new_conversation(client, user="ada")
    url = f"/v1/conversations/{conversation}/events"
    body = {"events": [{"role": "user", "content": "mine", "id": "theirs"}, {"role": "user", "content": "erase me"}]}
    first = (await client.post(url, json=body, headers={"idempotency-key": "k"})).json()
    assert (await client.delete(f"{url}/{first['events'][1]['id']}")).status_code == 200
    attempt = {"x-stainless-retry-count": "0"}
    item = {"items": [{"role": "user", "content": "mine"}]}
    assert (await client.post(f"/v1/conversations/{conversation}/items", json=item, headers=attempt)).status_code == 200
    headers = await admin_of(client, "other")
    scopes = ["read", "append", "erase", "admin"]
    key = await client.post("/v1/keys", json={"name": "all", "scopes": scopes}, headers=headers)
    other = httpx.Headers(bearer(key.json()["key"]))
    async with httpx.AsyncClient(base_url=client.base_url, headers=other) as theirs:
        await append(theirs, await new_conversation(theirs, user="bob"), "theirs")
    await caught_up(address)
    with psycopg.connect(address.conninfo("admin")) as connection:
        at = parse_conversation_id(conversation)
        assert at is not None
        # What a server writes in its own time: how is not the matter here.
        for write in (
            "INSERT INTO touch SELECT user_key, id, 1, tenant_id, 1, '{1}' FROM conversation WHERE id = %s",
            "INSERT INTO checkpoint SELECT user_key, id, 1, tenant_id, 0, 'fold' FROM conversation WHERE id = %s",
            "INSERT INTO snapshot SELECT user_key, id, tenant_id, id, 1, 'digest', '{}', now() "
            "FROM conversation WHERE id = %s",
            "INSERT INTO embedding_failure SELECT user_key, id, 9, 1, tenant_id, 'error', 1 "
            "FROM conversation WHERE id = %s",
            "INSERT INTO embedding_progress SELECT user_key, id, 9, tenant_id, 1 FROM conversation WHERE id = %s",
            "INSERT INTO golden_set SELECT tenant_id, 'set', 1, 'owner' FROM conversation WHERE id = %s",
            "INSERT INTO golden_question SELECT user_key, tenant_id, 'set', 'q', 1, id, 'text', '{1}', ARRAY[id] "
            "FROM conversation WHERE id = %s",
            "INSERT INTO embedding_comparison SELECT user_key, id, tenant_id, id, now(), 1, 2, 1, 'default', "
            "'{}', '{}', '{}', '{}', '{}', 1, 1 FROM conversation WHERE id = %s",
            f"INSERT INTO embedding_v1 SELECT user_key, id, 9, tenant_id, 'hash', '[{','.join(['1'] * 256)}]' "
            "FROM conversation WHERE id = %s",
        ):
            connection.execute(write, (at.uuid,))
    return conversation, other


@contextmanager
def acting_as(address: EmbeddedAddress, role: str, tenant: int | str | None) -> Iterator[psycopg.Connection[Any]]:
    """A transaction as a role, with the tenant as given; rolled back."""
    with psycopg.connect(address.conninfo(role)) as connection:
        if tenant is not None:
            connection.execute("SELECT set_config('turnstone.tenant', %s, true)", (str(tenant),))
        yield connection
        connection.rollback()


def rows(connection: psycopg.Connection[Any], table: str) -> int | None:
    """How many rows a role sees in a table without a filter; None where it may not look."""
    try:
        with connection.transaction():
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            row = connection.execute(query).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None
    assert row is not None
    return int(row[0])


def test_every_table_is_isolated_by_policy_or_shared_for_a_reason(address: EmbeddedAddress) -> None:
    """Walks the catalog, so that a table of tomorrow fails until it has its policy."""
    with psycopg.connect(address.conninfo("admin")) as connection:
        tables = {name for (name,) in connection.execute(TENANT_TABLES).fetchall()}
        secured = {
            name
            for (name,) in connection.execute(
                "SELECT relname::text FROM pg_class WHERE relrowsecurity AND relnamespace = 'public'::regnamespace"
            )
        }
        owners = connection.execute(
            "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        policies = connection.execute(
            "SELECT tablename::text, roles::text[], cmd, qual, with_check FROM pg_policies WHERE schemaname = 'public'"
        ).fetchall()
        columns = connection.execute(
            "SELECT table_name::text FROM information_schema.columns "
            "WHERE table_schema = 'public' AND column_name = 'tenant_id'"
        ).fetchall()
        tenants_own = {name for (name,) in columns} | {"tenant"}
    assert tables - set(SHARED) == secured == set(POLICIES) == tenants_own
    assert owners == [("turnstone_owner",)], "the owner of a table is above its policies"
    assert {policy[0] for policy in policies} == secured
    for table, roles, command, using, check in policies:
        assert (roles, command) == (["public"], "ALL"), table
        assert using == check, table
        assert "turnstone.tenant" in using, table


def test_the_roles_are_plain(address: EmbeddedAddress) -> None:
    """No role of the server's is above the policies, or a member of one that is."""
    with psycopg.connect(address.conninfo("admin")) as connection:
        for role in (*ROLES, "turnstone_owner"):
            found = connection.execute(
                "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication FROM pg_roles "
                "WHERE rolname = %s",
                (role,),
            ).fetchone()
            assert found == (False,) * 5, role
            for other in {*ROLES, "turnstone_owner", "postgres", "pg_read_all_data", "pg_write_all_data"} - {role}:
                member = connection.execute("SELECT pg_has_role(%s, %s, 'MEMBER')", (role, other)).fetchone()
                assert member == (False,), f"{role} may become {other}"


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_sees_one_tenant_at_most(
    two_tenants: tuple[str, httpx.Headers], address: EmbeddedAddress, role: str
) -> None:
    with psycopg.connect(address.conninfo("admin")) as connection:
        tenants = [number for (number,) in connection.execute("SELECT id FROM tenant ORDER BY id")]
        truth = {
            table: {
                number: connection.execute(
                    sql.SQL("SELECT count(*) FROM {} WHERE {} = %s").format(
                        sql.Identifier(table), sql.Identifier("id" if table == "tenant" else "tenant_id")
                    ),
                    (number,),
                ).fetchone()
                for number in tenants
            }
            for table in POLICIES
        }
    assert len(tenants) == 2
    assert all(truth[table][tenants[0]] != (0,) for table in POLICIES), "the fixture leaves a table empty"
    for table in POLICIES:
        granted = table in GRANTS[role] or (table == "embedding_v1" and role in RELATION_GRANTS)
        for nobody in (None, "", 0, -1, 2**31 - 1):
            with acting_as(address, role, nobody) as connection:
                assert rows(connection, table) == (0 if granted else None), (table, nobody)
        for number in tenants:
            with acting_as(address, role, number) as connection:
                expected = truth[table][number]
                assert expected is not None
                assert rows(connection, table) == (expected[0] if granted else None), (table, number)
    with acting_as(address, role, tenants[1]) as connection:
        # Off means: fail rather than filter. It must not mean: show all.
        connection.execute("SET LOCAL row_security = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            connection.execute("SELECT count(*) FROM event")


@pytest.mark.parametrize("role", ROLES)
async def test_no_role_writes_for_another_tenant(
    two_tenants: tuple[str, httpx.Headers], address: EmbeddedAddress, role: str
) -> None:
    with psycopg.connect(address.conninfo("admin")) as connection:
        first, second = [number for (number,) in connection.execute("SELECT id FROM tenant ORDER BY id")]
    refused = pytest.raises(psycopg.errors.InsufficientPrivilege)
    for table in sorted({name for name in POLICIES if name != "tenant"}):
        for setting in (None, second):
            # The other tenant's own rows, copied under the first one's number.
            with psycopg.connect(address.conninfo("admin")) as connection:
                copy = connection.execute(
                    sql.SQL("SELECT row_to_json(t)::text FROM {} t WHERE tenant_id = %s LIMIT 1").format(
                        sql.Identifier(table)
                    ),
                    (first,),
                ).fetchone()
            assert copy is not None, table
            with acting_as(address, role, setting) as connection, refused:
                connection.execute(
                    sql.SQL("INSERT INTO {0} SELECT * FROM json_populate_record(NULL::{0}, %s)").format(
                        sql.Identifier(table)
                    ),
                    (copy[0],),
                )
            for write in ("UPDATE {} SET tenant_id = %(first)s", "DELETE FROM {} WHERE tenant_id = %(first)s"):
                with acting_as(address, role, setting) as connection:
                    try:
                        touched = connection.execute(
                            sql.SQL(write).format(sql.Identifier(table)), {"first": first}
                        ).rowcount
                    except psycopg.errors.InsufficientPrivilege:
                        continue
                    assert touched == 0, (write, table)


MAY_NOT = [
    "UPDATE event SET content = NULL",
    "UPDATE event SET seq = seq",
    "DELETE FROM event",
    "TRUNCATE event",
    "SELECT FROM event FOR UPDATE",
    "MERGE INTO event e USING event f ON e.seq = f.seq AND e.conversation = f.conversation WHEN MATCHED THEN DELETE",
    "INSERT INTO event SELECT * FROM event ON CONFLICT (user_key, conversation, seq) DO UPDATE SET content = NULL",
    "DELETE FROM conversation",
    "UPDATE conversation SET deleted_at = now()",
    "UPDATE conversation SET lineage = NULL",
    "UPDATE conversation SET tenant_id = 1",
    "DELETE FROM erasure",
    "INSERT INTO erasure SELECT * FROM erasure",
    "UPDATE idempotency SET head = 0",
    "UPDATE tenant SET salt = ''",
    "UPDATE tenant SET operator = true",
    "UPDATE api_key SET scopes = '{admin}'",
    "UPDATE alembic_version SET version_num = 'x'",
    "UPDATE embedding_routing SET active = 1",
    "UPDATE embedding_version SET state = 'dropped'",
    "UPDATE embedding_history SET who = 'somebody else'",
    "DELETE FROM embedding_history",
    "INSERT INTO embedding_history SELECT * FROM embedding_history",
    "DELETE FROM embedding_progress",
    "UPDATE embedding_progress SET seq = 0",
    "DELETE FROM embedding_v1",
    "INSERT INTO embedding_v1 SELECT * FROM embedding_v1",
]
NOBODY_MAY = [
    "CREATE TABLE public.mine (a int)",
    "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
    "ALTER TABLE event DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE event NO FORCE ROW LEVEL SECURITY",
    "DROP POLICY event_tenant ON event",
    "CREATE POLICY mine ON event USING (true)",
    "ALTER TABLE event OWNER TO turnstone_runtime",
    "CREATE TRIGGER t BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "SET ROLE turnstone_owner",
    "SET SESSION AUTHORIZATION postgres",
    "ALTER ROLE turnstone_runtime SUPERUSER",
    "SET session_replication_role = replica",
    "COPY event TO PROGRAM 'cat'",
    "SELECT pg_read_file('PG_VERSION')",
    "TRUNCATE conversation",
]


@pytest.mark.parametrize(
    ("role", "statements"), [("turnstone_runtime", MAY_NOT), *((role, NOBODY_MAY) for role in ROLES)]
)
def test_what_a_role_may_not_do(address: EmbeddedAddress, role: str, statements: list[str]) -> None:
    """The log is append-only for the server's own role, and no role can lift what holds it."""
    for statement in statements:
        with acting_as(address, role, 1) as connection:
            try:
                connection.execute(statement)
            except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidSchemaName):
                continue
            except psycopg.errors.FeatureNotSupported as error:  # pragma: no cover - says what was wrong with the test
                pytest.fail(f"{statement}: {error}")
            pytest.fail(f"{role} may: {statement}")


async def test_another_tenants_ids_answer_like_missing_ones(
    client: httpx.AsyncClient, two_tenants: tuple[str, httpx.Headers], settings: Settings, address: EmbeddedAddress
) -> None:
    """Every route with an id in its path, for an id that is another tenant's and for one that never was."""
    conversation, headers = two_tenants
    erasure = (await client.get("/v1/erasures")).json()["data"][0]["id"]
    key = (await make_key(client))["id"]
    listed = (await client.get("/v1/tenants")).json()["data"]
    (tenant,) = [one["id"] for one in listed if one["name"] == "default"]
    missing = conversation[:-1] + ("0" if conversation[-1] != "0" else "1")
    real = {"conversation": conversation, "event": "theirs", "user": "ada", "key": key, "tenant": tenant}
    real |= {"item": "theirs", "seq": "1", "snapshot": "ctx_" + "0" * 48, "name": "set"}
    made_up = real | {"conversation": missing, "user": "nobody", "key": f"key_{'0' * 32}", "tenant": "ten_999999"}
    paths = create_app(settings, address).openapi_schema.to_schema()["paths"]
    bodies: dict[tuple[str, str], Any] = {
        ("post", "/v1/conversations/{conversation}"): {"metadata": {}},
        ("post", "/v1/conversations/{conversation}/events"): {"events": [{"role": "user", "content": "x"}]},
        ("post", "/v1/conversations/{conversation}/items"): {"items": [{"role": "user", "content": "x"}]},
        ("post", "/v1/conversations/{conversation}/fork"): {"at_seq": 1},
        ("put", "/v1/conversations/{conversation}/retention"): {"retention_days": 3},
        ("put", "/v1/conversations/{conversation}/working-set"): {"budget_tokens": 4000},
        ("post", "/v1/conversations/{conversation}/pins"): {"seq": 1},
        ("post", "/v1/conversations/{conversation}/constraints"): {"seq": 1, "state": "confirmed"},
        ("post", "/v1/conversations/{conversation}/context"): {"query": "What did they say?"},
        ("post", "/v1/tenants/{tenant}"): {"retention_days": 3},
    }
    walked = set()

    async def ask(method: str, path: str, names: dict[str, str]) -> tuple[int, bytes]:
        async with httpx.AsyncClient(base_url=client.base_url, headers=headers) as theirs:
            answer = await theirs.request(method, path.format(**names), json=bodies.get((method, path)))
        return answer.status_code, answer.content

    for path, operations in paths.items():
        for method in operations:
            if "{" not in path or method not in ("get", "post", "put", "patch", "delete"):
                continue
            walked.add((method, path))
            theirs = await ask(method, path, real)
            nobodys = await ask(method, path, made_up)
            assert theirs == nobodys, (method, path)
            assert theirs[0] in (403, 404), (method, path, theirs)
    assert {("get", "/v1/conversations/{conversation}/events/stream"), *bodies} <= walked
    async with httpx.AsyncClient(base_url=client.base_url, headers=headers) as stranger:
        found = (await stranger.get("/v1/conversations")).json()["data"]
        assert [one["user"] for one in found] == ["bob"]
        assert [one["id"] for one in (await stranger.get("/v1/users")).json()["data"]] == ["bob"]
        assert (await stranger.get("/v1/conversations", params={"user": "ada"})).json()["data"] == []
        assert (await stranger.get("/v1/erasures")).json()["data"] == []
        after = await stranger.get("/v1/erasures", params={"after": erasure})
        assert after.json()["data"] == []
        assert key not in (await stranger.get("/v1/keys")).text
    page = (await client.get(f"/v1/conversations/{conversation}/events")).json()
    assert page["head"] == 4, "the other tenant changed something"


async def test_the_same_names_in_two_tenants_are_different_things(
    client: httpx.AsyncClient, two_tenants: tuple[str, httpx.Headers]
) -> None:
    """Users, origin ids and Idempotency-Keys of one tenant mean nothing to another."""
    _, headers = two_tenants
    body = {"user": "ada", "origin_id": "old"}
    mine = await client.post("/v1/conversations", json=body, headers={"idempotency-key": "c"})
    theirs = await client.post("/v1/conversations", json=body, headers={**headers, "idempotency-key": "c"})
    assert mine.status_code == theirs.status_code == 200
    assert mine.json()["id"] != theirs.json()["id"]
    assert mine.json()["id"][:21] != theirs.json()["id"][:21], "the same user of two tenants shares a key"
    assert (await client.delete("/v1/users/ada", headers=headers)).status_code == 200
    assert (await client.get(f"/v1/conversations/{mine.json()['id']}")).status_code == 200
