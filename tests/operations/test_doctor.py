"""The checks find what is broken, and say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from server.cli import main
from server.database.address import EmbeddedAddress
from server.operations import checks, machine


def _status(address: EmbeddedAddress, check: str) -> str:
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        found = {finding.check: finding for finding in checks.examine(connection)}
    assert all(finding.advice for finding in found.values() if finding.status != "ok")
    return found[check].status


def test_a_sound_database_has_no_failures(address: EmbeddedAddress) -> None:
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        findings = checks.examine(connection)
    # The tests' cluster does not flush, which is the one thing wrong with it.
    assert {finding.check for finding in findings if finding.status == "fail"} == {"durability"}


@pytest.mark.parametrize(
    ("check", "status", "break_it"),
    [
        ("schema", "fail", "UPDATE alembic_version SET version_num = 'other'"),
        ("schema", "fail", "DROP TABLE alembic_version"),
        ("append-only", "fail", "GRANT DELETE ON event TO turnstone_runtime"),
        ("append-only", "fail", "GRANT UPDATE (content) ON event TO turnstone_runtime"),
        ("row-level security", "fail", "ALTER TABLE event DISABLE ROW LEVEL SECURITY"),
        ("row-level security", "fail", "CREATE TABLE forgotten (tenant_id integer)"),
        ("pgvector", "fail", "DROP EXTENSION vector CASCADE"),
        ("embeddings", "fail", "DELETE FROM embedding_routing"),
        (
            "embeddings",
            "warn",
            "INSERT INTO conversation (user_key, id, tenant_id, head, recorded_at, created_at) "
            "VALUES (1, gen_random_uuid(), 1, 3, now() - interval '1 hour', now())",
        ),
        (
            "servers",
            "warn",
            "INSERT INTO server (id, hostname, pid, release, lease_until) "
            "VALUES (gen_random_uuid(), 'h', 1, '0', now() - interval '1 minute')",
        ),
    ],
)
def test_each_check_sees_what_it_is_for(address: EmbeddedAddress, check: str, status: str, break_it: str) -> None:
    assert _status(address, check) == "ok"
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        connection.execute(break_it.encode())
    assert _status(address, check) == status


def test_a_key_that_others_can_read_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "admin-key"
    assert machine.key_file(file).status == "warn"
    file.write_text("x")
    file.chmod(0o600)
    assert machine.key_file(file).status == "ok"
    file.chmod(0o640)
    assert machine.key_file(file).status == "fail"


def test_the_command_says_so_when_nothing_runs(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["doctor", f"--data-dir={tmp_path}"])
    assert result.exit_code == 1
    assert "turnstone serve" in result.output


def test_the_command_examines_an_external_database(new_database: Callable[[], EmbeddedAddress], tmp_path: Path) -> None:
    url = new_database().conninfo("admin")
    result = CliRunner().invoke(main, ["doctor", f"--data-dir={tmp_path}", f"--database-url={url}", "--json"])
    found = {finding["check"]: finding["status"] for finding in json.loads(result.output)}
    assert (found["database"], found["roles"], found["durability"]) == ("ok", "ok", "fail")
    assert result.exit_code == 1
