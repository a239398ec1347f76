"""Brings a database to this release's schema, under a lock, so that many servers may start at once.

Also checks what the database must be before anything is created in it: PostgreSQL 16+, pgvector 0.8.4+, UTF-8.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import schema
from schema import security
from schema.embeddings import is_relation
from schema.vocabulary import DATABASE_ROLES
from server.database.address import Address
from server.errors import DatabaseRefused, DatabaseUnavailable

MINIMUM_POSTGRES = 160000
MINIMUM_PGVECTOR = (0, 8, 4)
_LOCK = 0x7475726E73746F6E  # "turnston": one upgrade at a time in a database
_LOCKS_TIMEOUT = 60.0  # seconds

# What the statements of schema/security.py act on, as one value; beside it, what it was after they last ran.
_SECURITY = sqlalchemy.text(
    """
    SELECT md5(string_agg(line, chr(10) ORDER BY line)) FROM (
        SELECT concat_ws('|', nspname, nspacl) FROM pg_namespace WHERE nspname = 'public'
        UNION ALL SELECT concat_ws('|', relname, relacl, relrowsecurity) FROM pg_class
            WHERE relnamespace = CAST('public' AS regnamespace) AND relkind IN ('r', 'p')
        UNION ALL SELECT concat_ws('|', CAST(attrelid AS regclass), attname, attacl, attstattarget) FROM pg_attribute
            JOIN pg_class ON pg_class.oid = attrelid
            WHERE relnamespace = CAST('public' AS regnamespace) AND relkind IN ('r', 'p') AND attnum > 0
        UNION ALL SELECT concat_ws('|', tablename, policyname, permissive, roles, cmd, qual, with_check)
            FROM pg_policies WHERE schemaname = 'public'
    ) AS state(line)
    """
)
_TABLES = sqlalchemy.text(
    "SELECT CAST(tablename AS text) FROM pg_tables WHERE schemaname = 'public' AND tableowner = current_user"
)
_SECURED = sqlalchemy.text("SELECT obj_description(CAST('alembic_version' AS regclass), 'pg_class')")


def migrations() -> Config:
    """Return the Alembic configuration of this release, from a checkout or from an installed wheel."""
    package = Path(schema.__file__).parent
    folders = (package.parent / "alembic", package / "_alembic")
    config = Config()
    config.set_main_option(
        "script_location", str(next(f for f in folders if (f / "env.py").exists())).replace("%", "%%")
    )
    config.set_main_option("path_separator", "os")
    return config


def newest_revision() -> str:
    """Return the revision that this release needs."""
    revision = ScriptDirectory.from_config(migrations()).get_current_head()
    assert revision is not None
    return revision


def upgrade(address: Address, *, timeout: float = 600) -> bool:
    """Create the roles, the extension and the tables, or bring them up to date; returns whether anything changed.

    ``timeout`` is in seconds, for the lock and for the database to come up. Raises DatabaseRefused for a database that
    Turnstone may not use and DatabaseUnavailable when it cannot be reached.
    """
    with _locked(address, timeout) as connection:
        _prepare(connection)
        with _as_owner(connection):
            return _upgrade(connection)


@contextmanager
def owning(address: Address, *, timeout: float = 600) -> Iterator[sqlalchemy.Connection]:
    """Give an operator's command a connection as the tables' owner, while nothing else changes the schema.

    The caller commits. Raises as ``upgrade`` does.
    """
    with _locked(address, timeout) as connection, _as_owner(connection):
        yield connection


@contextmanager
def _locked(address: Address, timeout: float) -> Iterator[sqlalchemy.Connection]:
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: _connect(address), poolclass=sqlalchemy.NullPool
    )
    with engine.connect() as connection:
        _check(connection)
        deadline = time.monotonic() + timeout
        # Polled, not awaited: who waits for a lock holds a snapshot that CREATE INDEX CONCURRENTLY waits for.
        while not connection.scalar(sqlalchemy.text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}):
            connection.rollback()
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(f"another server has been upgrading this database for over {timeout:.0f} s")
            time.sleep(0.05)
        try:
            connection.commit()
            yield connection
        finally:
            connection.rollback()
            connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            connection.commit()


@contextmanager
def _as_owner(connection: sqlalchemy.Connection) -> Iterator[None]:
    connection.execute(sqlalchemy.text("SET ROLE turnstone_owner"))
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(sqlalchemy.text("RESET ROLE"))
        connection.commit()


def _connect(address: Address) -> psycopg.Connection:
    try:
        return psycopg.connect(address.conninfo("admin"))
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"the database cannot be reached: {str(error).strip()}") from None


def _check(connection: sqlalchemy.Connection) -> None:
    version = int(connection.scalar(sqlalchemy.text("SHOW server_version_num")) or 0)
    if version < MINIMUM_POSTGRES:
        raise DatabaseRefused(
            f"this is PostgreSQL {version // 10000}.{version % 10000}; Turnstone needs 16 or newer. "
            "Upgrade it, or leave TURNSTONE_DATABASE_URL unset to use the embedded one"
        )
    encoding = connection.scalar(sqlalchemy.text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise DatabaseRefused(f"the database's encoding is {encoding}; create it with ENCODING 'UTF8'")
    offered = connection.scalar(
        sqlalchemy.text("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'")
    )
    installed = connection.scalar(sqlalchemy.text("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
    found = installed or offered
    needed = ".".join(map(str, MINIMUM_PGVECTOR))
    if found is None:
        raise DatabaseRefused(f"this PostgreSQL has no pgvector; install pgvector {needed} or newer")
    if tuple(int(part) for part in found.split(".")) < MINIMUM_PGVECTOR:
        raise DatabaseRefused(
            f"this database has pgvector {found}, which can corrupt indexes under vacuum; Turnstone needs {needed} or "
            "newer. Install it and run ALTER EXTENSION vector UPDATE"
        )
    connection.rollback()


def _upgrade(connection: sqlalchemy.Connection) -> bool:
    config = migrations()
    newest = newest_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    # As the owner: who is no superuser may not read the tables of a role that it merely may become.
    current = MigrationContext.configure(connection).get_current_revision()
    connection.rollback()
    if current is not None and current not in known:
        raise DatabaseRefused(
            f"the database is at revision {current}, made by a newer release of Turnstone; this one knows up to "
            f"{newest}. Start the newer release"
        )
    if current != newest:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    _secure(connection)
    return current != newest


def _secure(connection: sqlalchemy.Connection) -> None:
    """Bring grants and policies to what they should be, if they are not.

    That takes the strongest lock on every table, so it is done only when needed, and it gives up before PostgreSQL
    would look for a deadlock and might choose somebody's append as its victim.
    """
    deadline = time.monotonic() + _LOCKS_TIMEOUT
    while not _is_secured(connection):
        try:
            connection.execute(sqlalchemy.text("SET LOCAL lock_timeout = '300ms'"))
            for statement in security.statements(_relations(connection)):
                connection.execute(sqlalchemy.text(statement))
            _note_secured(connection)
            connection.commit()
        except sqlalchemy.exc.OperationalError as error:
            connection.rollback()
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"the tables could not be locked for {_LOCKS_TIMEOUT:.0f} s to set grants and policies; end long "
                    "transactions (pg_stat_activity) and start again"
                ) from error
            time.sleep(0.2)


def try_schema_lock(connection: sqlalchemy.Connection) -> bool:
    """Keep upgrades out until the caller's transaction ends, unless one is under way; returns whether that is so."""
    return bool(connection.scalar(sqlalchemy.text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}))


@contextmanager
def staying_secured(connection: sqlalchemy.Connection) -> Iterator[None]:
    """Let the block make, with its grants, or drop relations of vectors: the next start has nothing to put right."""
    secured = _is_secured(connection)
    yield
    if secured:
        _note_secured(connection)


@contextmanager
def securing(connection: sqlalchemy.Connection, relation: str) -> Iterator[None]:
    """Secure a relation of vectors that the block makes, in the same transaction, and lock no other table for it."""
    with staying_secured(connection):
        yield
        for statement in security.relation_statements(relation):
            connection.execute(sqlalchemy.text(statement))


def _is_secured(connection: sqlalchemy.Connection) -> bool:
    return bool(connection.scalar(_SECURED) == _seal(connection))


def _note_secured(connection: sqlalchemy.Connection) -> None:
    connection.execute(sqlalchemy.text(f"COMMENT ON TABLE alembic_version IS '{_seal(connection)}'"))


def _seal(connection: sqlalchemy.Connection) -> str:
    wanted = hashlib.sha256("\n".join(security.statements(_relations(connection))).encode()).hexdigest()
    return f"{wanted} {connection.scalar(_SECURITY)}"


def _relations(connection: sqlalchemy.Connection) -> list[str]:
    """Return the relations of vectors that exist, in one order always."""
    return sorted(name for name in connection.scalars(_TABLES) if is_relation(name))


def _prepare(connection: sqlalchemy.Connection) -> None:
    """Create what only a privileged user may: the extension, the roles, and the owner's right to create tables."""
    execute = connection.execute
    existing = set(connection.scalars(sqlalchemy.text("SELECT rolname FROM pg_roles")))
    login = connection.scalar(sqlalchemy.text("SELECT current_user"))
    for role in DATABASE_ROLES:
        if role not in existing:
            # Databases of one cluster share its roles: another server may be creating them at this moment.
            execute(
                sqlalchemy.text(
                    f"DO $$ BEGIN CREATE ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS; EXCEPTION WHEN duplicate_object "
                    "OR unique_violation THEN NULL; END $$"
                )
            )
    superuser = connection.scalar(sqlalchemy.text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))
    if not superuser:
        for role in DATABASE_ROLES:
            if not connection.scalar(sqlalchemy.text(f"SELECT pg_has_role('{role}', 'SET')")):
                execute(sqlalchemy.text(f'GRANT {role} TO "{login}" WITH SET TRUE, INHERIT FALSE'))
    execute(sqlalchemy.text("CREATE EXTENSION IF NOT EXISTS vector"))
    execute(sqlalchemy.text("GRANT CREATE, USAGE ON SCHEMA public TO turnstone_owner"))
    connection.commit()
