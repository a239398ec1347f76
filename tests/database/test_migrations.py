"""Schema upgrades: complete, alone at a time, repeatable, on a busy database, and refused where they would do harm."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg import sql

from schema import security
from schema.embeddings import is_relation
from schema.tables import metadata
from schema.vocabulary import DATABASE_ROLES
from server.database import upgrade as module
from server.database.address import EmbeddedAddress
from server.database.embedded import EmbeddedPostgres
from server.database.upgrade import migrations, newest_revision, upgrade
from server.errors import DatabaseRefused, DatabaseUnavailable
from tests.api.test_events import append, new_conversation
from tests.conftest import databases_of


@pytest.fixture
def empty(cluster: EmbeddedPostgres) -> Iterator[Callable[[str], EmbeddedAddress]]:
    """Makes databases that nothing has touched, dropped when the test ends."""
    with databases_of(cluster, "template0") as make:
        yield make


def admin(address: EmbeddedAddress) -> psycopg.Connection[Any]:
    return psycopg.connect(address.conninfo("admin"), autocommit=True)


def privileges(address: EmbeddedAddress) -> list[tuple[Any, ...]]:
    """Return grants (of columns too) and policies, as the catalog has them."""
    with admin(address) as connection:
        found: list[tuple[Any, ...]] = []
        for query in (
            "SELECT relname::text, relacl::text, relrowsecurity FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1",
            "SELECT attrelid::regclass::text, attname::text, attacl::text, attstattarget FROM pg_attribute "
            "JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' "
            "AND attnum > 0 ORDER BY 1, 2",
            "SELECT tablename::text, policyname::text, qual, with_check FROM pg_policies ORDER BY 1, 2",
        ):
            found += connection.execute(query).fetchall()
        return found


def test_migrations_make_what_the_models_say(address: EmbeddedAddress) -> None:
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(address.conninfo("admin"))
    )
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True, "include_object": _of_migrations}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        assert differences == []
        # Alembic compares neither checks, partial indexes nor storage parameters: PostgreSQL's own words do.
        migrated = described(connection)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE SCHEMA fresh"))
        connection.execute(sqlalchemy.text("SET search_path = fresh"))
        metadata.create_all(connection)
        assert described(connection, "fresh") == migrated
    engine.dispose()


def _of_migrations(_object: object, name: str | None, kind: str, _reflected: bool, _compare_to: object) -> bool:
    """Leave out the relations of vectors, which are made at run time."""
    return not (kind == "table" and name is not None and is_relation(name))


def described(connection: sqlalchemy.Connection, place: str = "public") -> list[tuple[Any, ...]]:
    """Return constraints, indexes and storage parameters as PostgreSQL words them."""
    queries = (
        "SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = CAST(:place AS regnamespace) AND contype <> 'n'",
        "SELECT tablename::text, indexname::text, indexdef FROM pg_indexes WHERE schemaname = :place",
        "SELECT relname::text, relname::text, reloptions::text FROM pg_class "
        "WHERE relnamespace = CAST(:place AS regnamespace) AND relkind = 'r'",
    )
    found = {
        tuple(str(part).replace(f"{place}.", "") for part in row)
        for query in queries
        for row in connection.execute(sqlalchemy.text(query), {"place": place})
    }
    return sorted(row for row in found if "alembic_version" not in row[0] and not is_relation(row[0]))


def _upgrade(conninfo: str) -> bool:
    class Address:
        def conninfo(self, role: str) -> str:
            assert role == "admin"
            return conninfo

    return upgrade(Address())


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_many_servers_start_at_once(empty: Callable[[], EmbeddedAddress], pool: type[Any]) -> None:
    """One of them upgrades the empty database, the others wait for it and change nothing."""
    address = empty()
    context = {"mp_context": multiprocessing.get_context("spawn")} if pool is ProcessPoolExecutor else {}
    with pool(3, **context) as executor:
        changed = list(executor.map(_upgrade, [address.conninfo("admin")] * 3))
    assert sorted(changed) == [False, False, True]
    with admin(address) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(newest_revision(),)]


def test_grants_and_policies_come_back_to_what_they_should_be(address: EmbeddedAddress) -> None:
    """Privileges are state, not history: whatever somebody changed by hand is put right by the next start."""
    should_be = privileges(address)
    assert upgrade(address) is False
    assert privileges(address) == should_be
    with admin(address) as connection:
        connection.execute("GRANT UPDATE, DELETE ON event TO turnstone_runtime")
        connection.execute("GRANT UPDATE (salt) ON tenant TO turnstone_worker")
        connection.execute("ALTER TABLE event DISABLE ROW LEVEL SECURITY")
        connection.execute("DROP POLICY event_tenant ON event")
        connection.execute("ALTER TABLE event ALTER content SET STATISTICS 100")
    assert privileges(address) != should_be
    assert upgrade(address) is False
    assert privileges(address) == should_be
    assert {table for role in security.GRANTS.values() for table in role} == {*metadata.tables, "alembic_version"}


async def test_a_server_starts_while_another_is_busy(client: httpx.AsyncClient, address: EmbeddedAddress) -> None:
    """The second server's upgrade, which has nothing to do, neither fails nor makes the first one fail."""
    conversation = await new_conversation(client, user="ada")
    working = True

    async def write(number: int) -> int:
        done = 0
        while working:
            answer = await append(client, conversation, "x")
            assert answer.status_code == 201, answer.text
            headers = {"idempotency-key": f"{number} {done}"}
            answer = await client.post("/v1/conversations", json={"user": f"u{done}"}, headers=headers)
            assert answer.status_code == 200, answer.text
            answer = await client.delete(f"/v1/conversations/{answer.json()['id']}")
            assert answer.status_code == 200, answer.text
            done += 1
        return done

    writers = [asyncio.create_task(write(number)) for number in range(6)]
    for _ in range(8):
        assert await asyncio.to_thread(upgrade, address) is False
    working = False
    assert sum(await asyncio.gather(*writers)) > 6


def test_a_newer_database_is_refused(address: EmbeddedAddress) -> None:
    before = privileges(address)
    with admin(address) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("REVOKE SELECT ON event FROM turnstone_worker")
    with pytest.raises(DatabaseRefused, match="revision 9999, made by a newer release"):
        upgrade(address)
    assert privileges(address) != before, "an older release put its own grants on a newer database"


def test_a_lock_that_is_not_given_up_is_told(address: EmbeddedAddress) -> None:
    with admin(address) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (module._LOCK,))
        with pytest.raises(DatabaseUnavailable, match="another server has been upgrading"):
            upgrade(address, timeout=0.2)


def test_a_failed_upgrade_leaves_nothing_and_can_be_repeated(
    empty: Callable[[], EmbeddedAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = empty()
    with monkeypatch.context() as patch:
        patch.setattr(security, "statements", lambda _relations: ["SELECT 1/0"])
        with pytest.raises(sqlalchemy.exc.DataError):
            upgrade(address)
    upgrade(address)
    with admin(address) as connection:
        assert connection.execute("SELECT relrowsecurity FROM pg_class WHERE relname = 'event'").fetchone() == (True,)


def test_another_encoding_is_refused(empty: Callable[[str], EmbeddedAddress]) -> None:
    address = empty("ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(DatabaseRefused, match="encoding is LATIN1"):
        upgrade(address)


def test_an_old_pgvector_is_refused(empty: Callable[[], EmbeddedAddress]) -> None:
    """The catalog says what is installed, so that is where this test writes an older version."""
    address = empty()
    with admin(address) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("UPDATE pg_extension SET extversion = '0.8.3' WHERE extname = 'vector'")
    with pytest.raises(
        DatabaseRefused, match=r"pgvector 0\.8\.3, which can corrupt indexes.*ALTER EXTENSION vector UPDATE"
    ):
        upgrade(address)
    with admin(address) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        assert tables.fetchone() == (0,), "a refused database was touched"
        connection.execute("UPDATE pg_extension SET extversion = '0.10.0' WHERE extname = 'vector'")
    assert upgrade(address) is True, "0.10 is newer than 0.8.4"


def test_an_old_postgresql_is_refused(address: EmbeddedAddress) -> None:
    """No old server ships with the tests and none lies about its version, so the minimum is raised."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MINIMUM_POSTGRES", 990000)
        with pytest.raises(DatabaseRefused, match=r"this is PostgreSQL \d+\.\d+; Turnstone needs"):
            upgrade(address)
    assert module.MINIMUM_POSTGRES == 160000
    assert module.MINIMUM_PGVECTOR == (0, 8, 4)


def test_the_roles_have_no_passwords_of_ours_and_plain_rights(address: EmbeddedAddress) -> None:
    with admin(address) as connection:
        query = sql.SQL("SELECT rolname::text, rolpassword IS NULL, rolsuper, rolbypassrls FROM pg_authid")
        rows = {name: rest for name, *rest in connection.execute(query).fetchall()}
    assert {role: rows[role] for role in DATABASE_ROLES} == {role: [True, False, False] for role in DATABASE_ROLES}


def test_migrations_import_no_code_of_the_server() -> None:
    """A migration of years ago must run for ever, so it leans on nothing that changes."""
    folder = Path(migrations().get_main_option("script_location") or "") / "versions"
    files = list(folder.glob("*.py"))
    assert files
    for file in files:
        assert "server" not in {
            line.split()[1].split(".")[0]
            for line in file.read_text().splitlines()
            if line.startswith(("import ", "from "))
        }
