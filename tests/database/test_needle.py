"""The needle test: text that was erased is nowhere in the database, whichever field it was written into.

Every text field of every request that stores text gets a needle of its own; the tables are analysed, as autovacuum
does; then each kind of erasure runs, and every column of every table, and the planner's statistics, are searched for
what should be gone. What a plain VACUUM leaves is free space: no statement reaches it, but the bytes stand in the file
until something overwrites them. So the files are searched after a VACUUM FULL, which an operator runs who must be sure
of the disk. The write-ahead log and backups are not searched: they hold what was written until they are rotated out.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import httpx
import msgspec
import psycopg
import pytest
from psycopg import sql

from schema.vocabulary import ROLES
from server.api.conversations import CreateConversation, DescribeConversation, ForkConversation
from server.api.events import AppendEvents
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.embedded import EmbeddedPostgres
from server.log.erase import erase_tenant
from server.log.events import NewEvent
from server.log.registry import HOLDINGS, vectors
from tests.api.test_access import make_key, make_tenant
from tests.api.test_context import written
from tests.conftest import the_tenant

# Text-capable columns that erasure leaves, and why nothing of what a user wrote can be in them.
HARMLESS = {
    ("event", "type"): "one of a closed set",
    ("event", "role"): "one of a closed set",
    ("event", "client_key"): "HMAC under the tenant's salt: a retry after erasure must stay a retry",
    ("event", "client_digest"): "HMAC under the tenant's salt",
    ("idempotency", "key_digest"): "HMAC under the tenant's salt",
    ("idempotency", "body_digest"): "HMAC under the tenant's salt",
    ("retry_chain", "digest"): "HMAC under the tenant's salt",
    ("snapshot", "digest"): "HMAC under the tenant's salt",
    ("snapshot", "record"): "stamps, seqs and reasons of ours",
    ("erasure", "scope"): "one of a closed set",
    ("erasure", "user_digest"): "HMAC under the tenant's salt",
    ("erasure", "actor"): "the id of a key, or a word of ours",
    ("tenant", "name"): "the operator's name for a customer",
    ("tenant", "salt"): "random",
    ("api_key", "name"): "the operator's name for a key",
    ("api_key", "digest"): "SHA-256 of 32 random bytes",
    ("api_key", "prefix"): "of a random key",
    ("api_key", "scopes"): "of a closed set",
    ("server", "hostname"): "of a server",
    ("server", "release"): "of a server",
    ("alembic_version", "version_num"): "a revision",
    ("embedding_failure", "error"): "the name of a class, or a word of ours",
    **{
        ("embedding_version", column): "of a model, by an operator"
        for column in (
            "name",
            "provider",
            "model",
            "revision",
            "options",
            "metric",
            "query_prefix",
            "document_prefix",
            "text_builder",
            "fingerprint",
            "probe",
            "state",
        )
    },
    **{
        ("embedding_history", column): "an operator's words, and ours" for column in ("action", "who", "note", "forced")
    },
    ("embedding_history", "detail"): "figures, and the names of tenants",
    ("embedding_worker", "hostname"): "of a process",
    ("embedding_worker", "why"): "words and figures of ours",
    ("embedding_comparison", "query_type"): "one of a closed set",
    ("embedding_comparison", "error"): "the name of a class",
    ("embedding_routing", "salt"): "random",
    ("embedding_routing", "tuning"): "an operator's numbers",
}
TEXT_TYPES = (
    "text",
    "varchar",
    "bpchar",
    "json",
    "jsonb",
    "bytea",
    "name",
    "xml",
    "hstore",
    "vector",
    "halfvec",
    "_text",
)
# Numbers, times and ids: 8 or 16 bytes of the server's own making.
PLAIN_TYPES = ("int2", "int4", "int8", "_int4", "_int8", "bool", "float4", "float8", "uuid", "_uuid", "timestamptz")

COLUMNS = """
SELECT c.relname::text, a.attname::text, t.typname::text
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'm', 'f') AND a.attnum > 0
  AND NOT a.attisdropped
ORDER BY 1, 2
"""

SAMPLED = """
SELECT attrelid::regclass::text, attname::text FROM pg_attribute
WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r')
  AND attnum > 0 AND attstattarget IS DISTINCT FROM 0
"""


def test_every_text_column_is_registered_or_harmless(address: EmbeddedAddress) -> None:
    """A column of tomorrow fails here until erasure knows it."""
    holdings = (*HOLDINGS, vectors("embedding_v1"))
    registered = {(holding.table, column) for holding in holdings for column in holding.columns}
    with psycopg.connect(address.conninfo("admin")) as connection:
        columns = connection.execute(COLUMNS).fetchall()
    unknown = {name for _, _, name in columns} - {*TEXT_TYPES, *PLAIN_TYPES}
    assert not unknown, f"decide whether these types can hold text: {unknown}"
    text = {(table, column) for table, column, name in columns if name in TEXT_TYPES}
    assert text - registered - set(HARMLESS) == set()
    assert (registered | set(HARMLESS)) - text == set(), "these columns are no more"
    assert not registered & set(HARMLESS)
    with psycopg.connect(address.conninfo("admin")) as connection:
        sampled = connection.execute(SAMPLED).fetchall()
    assert registered & set(sampled) == set(), "ANALYZE copies these into statistics: add them to security.UNSAMPLED"


class Needles:
    """Makes texts that occur nowhere else, and remembers where each was put."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self.where: dict[str, str] = {}

    def __call__(self, where: str) -> str:
        needle = f"needle{next(self._numbers):04d}x{id(self) % 10**8:08d}"
        self.where[needle] = where
        return needle

    def take(self) -> dict[str, str]:
        """Return the needles made since the last call."""
        taken, self.where = self.where, {}
        return taken


def fill(shape: type[msgspec.Struct], needle: Needles, **given: Any) -> dict[str, Any]:
    """Return a request with a needle in every field that takes text; fails on a kind of field it does not know."""
    request: dict[str, Any] = dict(given)
    for field in msgspec.structs.fields(shape):
        name = f"{shape.__name__}.{field.encode_name}"
        if field.encode_name in given:
            continue
        kind = str(field.type)
        if field.name == "metadata":
            request[field.encode_name] = {needle(f"{name} key"): [needle(f"{name} value"), {"deep": needle(name)}]}
        elif field.name == "content":
            request[field.encode_name] = [{"type": "text", "text": needle(name), needle(f"{name} key"): 1}]
        elif "str" in kind:
            request[field.encode_name] = needle(name)
        else:
            assert "int" in kind or "datetime" in kind, f"how is {name} filled?"
    return request


def events(needle: Needles) -> list[dict[str, Any]]:
    """Return an event of each kind of content, with needles in every field."""
    made = [fill(NewEvent, needle, type="message", role=role) for role in ROLES]
    made.append(fill(NewEvent, needle, type="message", role="user", content=needle("content string")))
    made.append(fill(NewEvent, needle, type="item", role=None, content={"any": [needle("item content")]}))
    # Large enough to be compressed and moved out of the row; random, so that no compression hides the needle.
    filler = "".join(needle("long content") + chr(0x100 + n) for n in range(400))
    needle.where = {text: where for text, where in needle.where.items() if where != "long content"}
    made.append(fill(NewEvent, needle, type="message", role="user", content=needle("start") + filler + needle("end")))
    return made


def found(address: EmbeddedAddress, needles: dict[str, str]) -> dict[str, set[str]]:
    """Return where needles stand in the database: by table and column, what they were written into."""
    result: dict[str, set[str]] = {}
    with psycopg.connect(address.conninfo("admin")) as connection:
        for table, column, kind in connection.execute(COLUMNS).fetchall():
            value = sql.SQL("encode({}, 'escape')" if kind == "bytea" else "{}::text").format(sql.Identifier(column))
            query = sql.SQL("SELECT DISTINCT n FROM {}, unnest(%s::text[]) n WHERE strpos({}, n) > 0").format(
                sql.Identifier(table), value
            )
            for (needle,) in connection.execute(query, (list(needles),)).fetchall():
                result.setdefault(f"{table}.{column}", set()).add(needles[needle])
        samples = "SELECT concat(most_common_vals, histogram_bounds) FROM pg_stats WHERE schemaname = 'public'"
        for (sample,) in connection.execute(samples).fetchall():
            for needle in needles:
                if needle in sample:
                    result.setdefault("pg_stats", set()).add(needles[needle])
    return result


def found_in_files(cluster: EmbeddedPostgres, address: EmbeddedAddress, needles: dict[str, str]) -> dict[str, set[str]]:
    """Return the files of the database that hold needles, after a VACUUM FULL and a checkpoint."""
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        connection.execute("VACUUM (FULL)")
        connection.execute("CHECKPOINT")
        row = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    assert row is not None
    folder = cluster.data_dir / "postgres" / "base" / str(row[0])
    result: dict[str, set[str]] = {}
    searched = 0
    for file in folder.iterdir():
        data = file.read_bytes()
        searched += len(data)
        for needle, where in needles.items():
            if needle.encode() in data:
                result.setdefault(file.name, set()).add(where)
    assert searched > 1_000_000, "these are not the files of the database"
    return result


def analyze(address: EmbeddedAddress) -> None:
    """Let PostgreSQL take its samples, as autovacuum does whenever it likes."""
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        connection.execute("ANALYZE")


async def create(client: httpx.AsyncClient, needle: Needles, **given: Any) -> str:
    body = fill(CreateConversation, needle, **given)
    answer = await client.post("/v1/conversations", json=body, headers={"idempotency-key": needle("create key")})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def write(client: httpx.AsyncClient, address: EmbeddedAddress, needle: Needles, conversation: str) -> list[str]:
    """Append events full of needles, and let a model see them; returns their ids."""
    body = fill(AppendEvents, needle, events=events(needle))
    headers = {"idempotency-key": needle("append key")}
    answer = await client.post(f"/v1/conversations/{conversation}/events", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    await show(client, address, conversation)
    return [event["id"] for event in answer.json()["events"]]


async def show(client: httpx.AsyncClient, address: EmbeddedAddress, conversation: str) -> None:
    """Ask for contexts of every kind, and wait until their snapshots are written."""
    before = len(await written(address, 0))
    bodies: list[dict[str, Any]] = [{}, {"explain": True}, {"budget_tokens": 100}, {"used": [1, 2]}, {"as_of": 2}]
    for body in bodies:
        answer = await client.post(f"/v1/conversations/{conversation}/context", json=body)
        assert answer.status_code == 200, answer.text
        assert body == {"as_of": 2} or "needle" in answer.text
    await written(address, before + len(bodies))


async def fork(client: httpx.AsyncClient, needle: Needles, conversation: str, at_seq: int) -> str:
    body = fill(ForkConversation, needle, at_seq=at_seq)
    answer = await client.post(f"/v1/conversations/{conversation}/fork", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def delete(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.delete(path)
    assert answer.status_code == 200, answer.text


@pytest.fixture
def needle() -> Needles:
    return Needles()


async def test_erased_events_are_gone(
    client: httpx.AsyncClient, address: EmbeddedAddress, cluster: EmbeddedPostgres, needle: Needles
) -> None:
    """Every field of an event goes with it, also when it is erased through a fork; the conversation's own stay."""
    conversation = await create(client, needle, items=[])
    names = needle.take()
    ids = await write(client, address, needle, conversation)
    branch = await fork(client, Needles(), conversation, len(ids))
    written = needle.take()
    stored = {text: where for text, where in written.items() if where != "append key"}
    assert set().union(*found(address, written).values()) == set(stored.values()), "the search finds what is there"
    analyze(address)
    for place, event in enumerate(ids):
        await delete(client, f"/v1/conversations/{(conversation, branch)[place % 2]}/events/{event}")
    assert found(address, written) == {}
    assert found_in_files(cluster, address, written) == {}
    assert found(address, names) != {}, "the user's name and the metadata are not the event's"
    events = (await client.get(f"/v1/conversations/{branch}/events")).json()["data"]
    assert all(
        set(event) == {"id", "seq", "type", "role", "occurred_at", "recorded_at", "erased_at"}
        for event in events
        if event["type"] == "message"
    )


async def test_a_deleted_conversation_is_gone(
    client: httpx.AsyncClient, address: EmbeddedAddress, cluster: EmbeddedPostgres, needle: Needles
) -> None:
    """What live forks show stays until they go; everything else goes at once."""
    conversation = await create(client, needle, user=None, items=events(needle)[:2])
    described = fill(DescribeConversation, needle)
    assert (await client.post(f"/v1/conversations/{conversation}", json=described)).status_code == 200
    inherited = needle.take()
    await write(client, address, needle, conversation)
    private = needle.take()
    branch = await fork(client, needle, conversation, 2)
    await write(client, address, needle, branch)
    own = needle.take()
    analyze(address)
    await delete(client, f"/v1/conversations/{conversation}")
    assert found(address, private) == {}
    left = set().union(*found(address, inherited).values())
    assert left
    assert all(where.startswith("NewEvent.") for where in left), "a deleted conversation keeps more than shared events"
    assert found(address, own) != {}
    await delete(client, f"/v1/conversations/{branch}")
    everything = inherited | private | own
    assert found(address, everything) == {}
    assert found_in_files(cluster, address, everything) == {}


async def test_an_erased_user_is_gone(
    client: httpx.AsyncClient, address: EmbeddedAddress, cluster: EmbeddedPostgres, needle: Needles
) -> None:
    """Name, conversations, forks, events, keys of requests: nothing is left but a record that names nobody."""
    user = needle("user")
    for _ in range(2):
        conversation = await create(client, needle, user=user, items=events(needle)[:3])
        await write(client, address, needle, conversation)
        branch = await fork(client, needle, conversation, 2)
        await write(client, address, needle, branch)
        await write(client, address, needle, await fork(client, needle, branch, 3))
        await delete(client, f"/v1/conversations/{conversation}")
    written = needle.take()
    analyze(address)
    assert found(address, written) != {}
    await delete(client, f"/v1/users/{user}")
    assert found(address, written) == {}
    assert found_in_files(cluster, address, written) == {}
    record = (await client.get("/v1/erasures", params={"order": "desc"})).json()["data"][0]
    assert (record["scope"], record["conversation_id"]) == ("user", None)


async def test_an_expired_conversation_is_gone(
    client: httpx.AsyncClient, address: EmbeddedAddress, cluster: EmbeddedPostgres, needle: Needles
) -> None:
    """Retention removes what a conversation held, its name and metadata included."""
    conversation = await create(client, needle, user=None, items=events(needle))
    written = needle.take()
    retention = f"/v1/conversations/{conversation}/retention"
    assert (await client.put(retention, json={"retention_days": 1})).status_code == 200
    with psycopg.connect(address.conninfo("admin")) as connection:
        for table in ("event", "conversation"):
            connection.execute(f"UPDATE {table} SET recorded_at = recorded_at - interval '2 days'")
    analyze(address)
    assert (await client.post("/v1/retention/run")).json()["conversations"] == 1
    assert found(address, written) == {}
    assert found_in_files(cluster, address, written) == {}


async def test_an_erased_tenant_is_gone(
    client: httpx.AsyncClient,
    address: EmbeddedAddress,
    cluster: EmbeddedPostgres,
    database: Database,
    needle: Needles,
) -> None:
    made = await make_tenant(client, needle("tenant name"))
    key = await make_key(client, tenant=made["name"], scopes=["read", "append"], name=needle("key name"))
    headers = {"authorization": f"Bearer {key['key']}"}
    async with httpx.AsyncClient(base_url=client.base_url, headers=headers) as theirs:
        conversation = await create(theirs, needle, items=events(needle)[:2])
        await write(theirs, address, needle, conversation)
        await fork(theirs, needle, conversation, 1)
    written = needle.take()
    analyze(address)
    assert found(address, written) != {}
    await erase_tenant(database, await the_tenant(database, made["name"]), actor="test")
    assert found(address, written) == {}
    assert found_in_files(cluster, address, written) == {}
