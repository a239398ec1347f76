"""An external database, entered by a user who is no superuser, beside tables of somebody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from schema.vocabulary import DATABASE_ROLES
from server.database.address import EmbeddedAddress, ExternalAddress
from server.database.embedded import EmbeddedPostgres
from server.database.upgrade import upgrade
from server.embeddings.relations import ensure_first
from server.operations.backup import OWNER, backup, restore
from server.operations.checks import examine

_USER = "turnstone_visitor"  # a name that the tests' cluster lets in


@pytest.fixture
def external(cluster: EmbeddedPostgres, address: EmbeddedAddress) -> Iterator[Callable[[], ExternalAddress]]:
    """Makes empty databases that the user owns, as an administrator hands them out."""
    del address  # only so that the template has made the roles
    names: list[str] = []
    with psycopg.connect(cluster.conninfo("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {_USER} LOGIN CREATEROLE".encode())
        connection.execute(f"GRANT {', '.join(DATABASE_ROLES)} TO {_USER} WITH ADMIN TRUE, INHERIT FALSE".encode())

        def make() -> ExternalAddress:
            names.append(f"visited_{len(names)}")
            connection.execute(f"CREATE DATABASE {names[-1]} OWNER {_USER}".encode())
            with psycopg.connect(cluster.conninfo("postgres", names[-1]), autocommit=True) as inside:
                inside.execute("CREATE EXTENSION vector")
                inside.execute("CREATE TABLE somebody_elses (x integer)")
            return ExternalAddress(cluster.conninfo(_USER, names[-1]))

        yield make
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        connection.execute(f"DROP ROLE {_USER}".encode())


def test_it_is_upgraded_twice_examined_backed_up_and_restored(
    external: Callable[[], ExternalAddress], tmp_path: Path
) -> None:
    first, second = external(), external()
    assert upgrade(first)
    assert not upgrade(first)
    ensure_first(first)
    with psycopg.connect(first.conninfo("admin"), autocommit=True) as connection:
        findings = examine(connection)
    assert {one.check for one in findings if one.status == "fail"} == {"durability"}, findings
    with psycopg.connect(first.conninfo(OWNER)) as connection:
        connection.execute("INSERT INTO tenant (name, salt) VALUES ('kept', decode(repeat('00', 32), 'hex'))")
        connection.execute("INSERT INTO embedding_v1 SELECT 1, gen_random_uuid(), 1, 1, 'hash', array_fill(1, '{256}')")
    backup(first, tmp_path / "b")
    assert restore(second, tmp_path / "b")["tenant"] == 1
    with psycopg.connect(second.conninfo(OWNER)) as connection:
        assert connection.execute("SELECT count(*) FROM embedding_v1").fetchone() == (1,)
    with psycopg.connect(second.conninfo("admin")) as connection:
        assert connection.execute("SELECT to_regclass('somebody_elses')").fetchone() == ("somebody_elses",)
