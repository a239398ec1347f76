"""What ``turnstone doctor`` looks at in a database: each check is one function, of one connection, that only reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Literal

import msgspec
import psycopg

from schema.security import TENANT_POLICIES
from schema.vocabulary import DATABASE_ROLES
from server.database.upgrade import MINIMUM_PGVECTOR, MINIMUM_POSTGRES, newest_revision

Connection = psycopg.Connection[tuple[Any, ...]]

_CLOCK_WARN, _CLOCK_FAIL = 1.0, 60.0  # seconds
_OLD_TRANSACTION = 300  # seconds; vacuum cannot clean up behind it
_LAG = 120  # seconds; an event is embedded within one
_OLD_ROWS = 1_000_000_000  # transactions; PostgreSQL refuses writes at about two billion


class Finding(msgspec.Struct, frozen=True):
    """What one check found; ``advice`` says what to do unless ``status`` is ok."""

    check: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    advice: str | None = None


def ok(check: str, detail: str) -> Finding:
    return Finding(check, "ok", detail)


def warn(check: str, detail: str, advice: str) -> Finding:
    return Finding(check, "warn", detail, advice)


def fail(check: str, detail: str, advice: str) -> Finding:
    return Finding(check, "fail", detail, advice)


def _one(connection: Connection, query: str, *values: object) -> Any:
    row = connection.execute(query, values or None).fetchone()
    return row[0] if row else None


def postgres_version(connection: Connection) -> Finding:
    number, shown = connection.info.server_version, _one(connection, "SHOW server_version")
    if number < MINIMUM_POSTGRES:
        return fail("PostgreSQL", f"{shown}", f"upgrade it to {MINIMUM_POSTGRES // 10000} or newer")
    return ok("PostgreSQL", f"{shown}")


def pgvector_version(connection: Connection) -> Finding:
    found = _one(connection, "SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    needed = ".".join(map(str, MINIMUM_PGVECTOR))
    if found is None:
        return fail("pgvector", "not installed in this database", "run turnstone migrate")
    if tuple(int(part) for part in found.split(".")) < MINIMUM_PGVECTOR:
        return fail(
            "pgvector", f"{found}, older than {needed}", "install it newer and run ALTER EXTENSION vector UPDATE"
        )
    return ok("pgvector", found)


def schema_revision(connection: Connection) -> Finding:
    newest = newest_revision()
    if _one(connection, "SELECT to_regclass('alembic_version')") is None:
        return fail("schema", "none", "run turnstone migrate")
    found = _one(connection, "SELECT version_num FROM alembic_version")
    if found != newest:
        return fail(
            "schema", f"revision {found}, this release needs {newest}", "run turnstone migrate, or use its release"
        )
    return ok("schema", f"revision {found}")


def roles(connection: Connection) -> Finding:
    rows = connection.execute(
        "SELECT rolname, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = ANY(%s)", [list(DATABASE_ROLES)]
    ).fetchall()
    missing = sorted(set(DATABASE_ROLES) - {name for name, _ in rows})
    mighty = sorted(name for name, too_much in rows if too_much)
    if missing:
        return fail("roles", f"missing: {', '.join(missing)}", "run turnstone migrate")
    if mighty:
        return fail(
            "roles",
            f"{', '.join(mighty)} can bypass row-level security",
            "; ".join(f"ALTER ROLE {name} NOSUPERUSER NOBYPASSRLS" for name in mighty),
        )
    return ok("roles", f"{len(rows)}, none of them superuser or exempt from row-level security")


def append_only(connection: Connection) -> Finding:
    held = [
        f"{privilege} for {role}"
        for role in ("turnstone_runtime", "turnstone_worker")
        for privilege in ("UPDATE", "DELETE", "TRUNCATE")
        if _one(connection, "SELECT has_table_privilege(%s, 'event', %s)", role, privilege)
        or (privilege == "UPDATE" and _one(connection, "SELECT has_any_column_privilege(%s, 'event', 'UPDATE')", role))
    ]
    if held:
        return fail(
            "append-only", f"events can be changed: {', '.join(held)}", "run turnstone migrate, which revokes it"
        )
    return ok("append-only", "the server's role can neither change nor delete events")


def row_level_security(connection: Connection) -> Finding:
    rows = connection.execute(
        "SELECT c.relname, c.relrowsecurity AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid) "
        "FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND "
        "(c.relname = ANY(%s) OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid "
        "AND a.attname = 'tenant_id' AND NOT a.attisdropped))",
        [list(TENANT_POLICIES)],
    ).fetchall()
    open_ = sorted(name for name, guarded in rows if not guarded)
    if open_ or not rows:
        return fail("row-level security", f"off on {', '.join(open_) or 'all tables'}", "run turnstone migrate")
    return ok("row-level security", f"on for all {len(rows)} tables with tenants' rows")


def durability(connection: Connection) -> Finding:
    names = ("fsync", "synchronous_commit", "full_page_writes")
    # What the server's own connections get: a role or database may have a setting of its own.
    off = [f"{name} = {value}" for name in names if (value := _one(connection, f"SHOW {name}")) in ("off", "local")]
    if off:
        return fail("durability", ", ".join(off), "turn it on: acknowledged events may be lost in a crash")
    return ok("durability", f"{', '.join(names)} are on")


def checksums(connection: Connection) -> Finding:
    if _one(connection, "SHOW data_checksums") != "on":
        return warn("checksums", "off", "turn them on with pg_checksums --enable while PostgreSQL is stopped")
    return ok("checksums", "on")


def clock(connection: Connection) -> Finding:
    before = time.time()
    there = float(_one(connection, "SELECT extract(epoch FROM clock_timestamp())"))
    apart = abs(there - (before + time.time()) / 2)
    detail = f"{apart:.3f} s between this machine and the database"
    advice = "synchronise both with NTP: keys expire and leases end by the database's clock"
    if apart > _CLOCK_FAIL:
        return fail("clock", detail, advice)
    return warn("clock", detail, advice) if apart > _CLOCK_WARN else ok("clock", detail)


def leases(connection: Connection) -> Finding:
    live, stale = connection.execute(
        "SELECT count(*) FILTER (WHERE lease_until >= now()), count(*) FILTER (WHERE lease_until < now()) FROM server"
    ).fetchone() or (0, 0)
    if stale:
        return warn(
            "servers",
            f"{live} alive, {stale} ended without a word",
            "look why they were killed; their rows go by themselves an hour later, at a server's start",
        )
    return ok("servers", f"{live} alive")


def oldest_transaction(connection: Connection) -> Finding:
    row = connection.execute(
        "SELECT extract(epoch FROM now() - xact_start)::bigint, pid, usename, state FROM pg_stat_activity WHERE "
        "xact_start IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend' ORDER BY 1 DESC LIMIT 1"
    ).fetchone()
    prepared = _one(connection, "SELECT count(*) FROM pg_prepared_xacts WHERE now() - prepared > interval '5 minutes'")
    if prepared:
        return warn(
            "transactions", f"{prepared} prepared ones were forgotten", "see pg_prepared_xacts; commit or roll back"
        )
    if row is None:
        return ok("transactions", "none is open")
    age, pid, user, state = row
    detail = f"the oldest is {age} s old (process {pid}, {user}, {state})"
    if age > _OLD_TRANSACTION:
        return warn("transactions", detail, f"vacuum waits for it; SELECT pg_terminate_backend({pid}) ends it")
    return ok("transactions", detail)


def wraparound(connection: Connection) -> Finding:
    age = _one(connection, "SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()")
    if age > _OLD_ROWS:
        return warn(
            "vacuum",
            f"{age} transactions since everything was frozen",
            "run VACUUM (FREEZE); see that autovacuum is on",
        )
    if _one(connection, "SHOW autovacuum") != "on":
        return warn("vacuum", "autovacuum is off", "turn it on: what is erased stays on disk until a vacuum")
    return ok("vacuum", f"autovacuum is on; {age} transactions since everything was frozen")


def indexes(connection: Connection) -> Finding:
    broken = connection.execute(
        "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE NOT i.indisvalid AND c.relnamespace = 'public'::regnamespace"
    ).fetchall()
    if broken:
        names = [name for (name,) in broken]
        return warn(
            "indexes", f"not valid: {', '.join(names)}", "; ".join(f"REINDEX INDEX CONCURRENTLY {n}" for n in names)
        )
    return ok("indexes", "all valid")


def embeddings(connection: Connection) -> Finding:
    rows = connection.execute(
        "SELECT v.name, w.events, w.seconds::bigint, (SELECT count(*) FROM embedding_failure f WHERE f.version = v.id) "
        "FROM embedding_routing r JOIN embedding_version v ON v.id = ANY (r.written) CROSS JOIN LATERAL ("
        "SELECT coalesce(sum(c.head - coalesce(p.seq, 0)), 0) AS events, "
        "coalesce(extract(epoch FROM now() - min(c.recorded_at)), 0) AS seconds "
        "FROM conversation c LEFT JOIN embedding_progress p ON p.user_key = c.user_key AND p.conversation = c.id "
        "AND p.version = v.id WHERE c.head > coalesce(p.seq, 0)) w ORDER BY v.id"
    ).fetchall()
    if not rows:
        return fail("embeddings", "there is no version", "run turnstone migrate, which makes the first one")
    detail = "; ".join(
        f"{name}: {events} events wait" + (f", {refused} were refused" if refused else "")
        for name, events, _, refused in rows
    )
    if any(seconds > _LAG for _, _, seconds, _ in rows):
        longest = max(seconds for _, _, seconds, _ in rows)
        return warn(
            "embeddings",
            f"{detail}; some for {longest} s",
            "search misses them by meaning. See that a server runs with the embedder on, and what it logs of its "
            "provider (turnstone_embedding_provider_up is 0 while that is down)",
        )
    return ok("embeddings", detail)


def size(connection: Connection) -> Finding:
    shown = _one(connection, "SELECT pg_size_pretty(pg_database_size(current_database()))")
    return ok("size", f"{shown} in the database")


CHECKS: tuple[Callable[[Connection], Finding], ...] = (
    postgres_version,
    pgvector_version,
    schema_revision,
    roles,
    append_only,
    row_level_security,
    durability,
    checksums,
    clock,
    leases,
    oldest_transaction,
    wraparound,
    indexes,
    embeddings,
    size,
)


# A superuser needs no role; another may not read the tables of a role that it merely may become.
_OF_TABLES = {schema_revision, leases, embeddings}


@contextmanager
def _as_owner(connection: Connection) -> Iterator[None]:
    with suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue):
        connection.execute("SET ROLE turnstone_owner")
    try:
        yield
    finally:
        connection.execute("RESET ROLE")


def examine(connection: Connection) -> list[Finding]:
    """Run every check; one that cannot run is a finding too. The connection must be in autocommit mode."""
    findings = []
    for check in CHECKS:
        try:
            with _as_owner(connection) if check in _OF_TABLES else nullcontext():
                findings.append(check(connection))
        except psycopg.Error as error:
            text = str(error).strip().splitlines()[0]
            findings.append(
                fail(check.__name__.replace("_", " "), f"cannot be looked at: {text}", "run turnstone migrate")
            )
    return findings
