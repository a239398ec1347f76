"""A backup is one file: PostgreSQL's custom dump of one snapshot, taken while the server serves.

It holds everything: events, tenants with their salts, the digests of keys (no key can be read from them), erasure
records. It does not hold which servers were alive, nor grants and policies, which every upgrade sets anew. An event
that is erased later stays in the backups that were taken before: delete those to be rid of it.

Both ways run as the tables' owner, whom row-level security does not hide rows from; no superuser is needed.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import IO

import psycopg
from alembic.script import ScriptDirectory
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from server.database.address import Address
from server.database.embedded import binary
from server.database.upgrade import migrations, upgrade
from server.errors import Conflict, DatabaseRefused, DatabaseUnavailable, InvalidInput

OWNER = "turnstone_owner"
_TIMEOUT_LINE = b"SET transaction_timeout = 0;\n"  # PostgreSQL 17 brought it; older ones stop at it

_OWN_TABLES = """
SELECT format('%I.%I', 'public', relname) FROM pg_class
WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND pg_get_userbyid(relowner) = current_user
"""
_DROP_ALL = """
DO $$
DECLARE relation record;
BEGIN
    FOR relation IN SELECT oid::regclass AS name FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p')
        AND relnamespace = 'public'::regnamespace AND pg_catalog.pg_get_userbyid(relowner) = current_user LOOP
        EXECUTE format('DROP TABLE IF EXISTS %s CASCADE', relation.name);
    END LOOP;
END $$
"""
# Before the restore commits: a log with a hole in it must not take the place of anything.
_CHECK_GAPLESS = """
DO $$
DECLARE broken bigint;
BEGIN
    SELECT count(*) INTO broken FROM public.conversation c
    WHERE c.deleted_at IS NULL AND c.head > greatest(c.floor, coalesce(c.fork_seq, 0)) AND
        c.head - greatest(c.floor, coalesce(c.fork_seq, 0)) <> (
            SELECT count(*) FROM public.event e WHERE e.user_key = c.user_key AND e.conversation = c.id
            AND e.seq > greatest(c.floor, coalesce(c.fork_seq, 0)) AND e.seq <= c.head);
    IF broken > 0 THEN
        RAISE EXCEPTION '% conversations lack events', broken;
    END IF;
END $$
"""


def backup(address: Address, file: Path) -> int:
    """Write a backup into ``file``, mode 0600, whole or not at all; returns its size in bytes.

    Raises InvalidInput when the file cannot be written, DatabaseUnavailable with pg_dump's words.
    """
    directory = file.absolute().parent
    try:
        handle, part = tempfile.mkstemp(prefix=f".{file.name}.", dir=directory)  # mode 0600
    except OSError as error:
        raise InvalidInput(f"cannot write into {directory}: {error.strerror}", param="FILE") from None
    try:
        _dump(address, part)
        os.fsync(handle)
        size = os.fstat(handle).st_size
        Path(part).replace(file)
    finally:
        os.close(handle)
        Path(part).unlink(missing_ok=True)
    folder = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return size


def restore(address: Address, file: Path, *, replace: bool = False) -> dict[str, int]:
    """Put a backup into a database without tenants, or with ``replace`` in place of what it holds; returns row counts.

    One transaction: until the restored log is found gapless, the database is as it was. Raises InvalidInput for a file
    that is no backup, DatabaseRefused for one of a newer release, Conflict for a database that is in use or not empty.
    """
    revision = _revision(file)
    if revision not in {script.revision for script in ScriptDirectory.from_config(migrations()).walk_revisions()}:
        raise DatabaseRefused(
            f"{file} was written by a newer release (schema {revision}): restore it with that release"
        )
    upgrade(address)
    with psycopg.connect(address.conninfo(OWNER)) as connection:
        version = connection.info.server_version
        live = _count(connection, "server WHERE lease_until >= now()")
        if live:
            raise Conflict(f"{live} server processes use this database; stop them, then restore")
        tenants = _count(connection, "tenant")
        if tenants and not replace:
            raise Conflict(f"the database holds {tenants} tenants; with --replace they and all they hold are lost")
    _load(address, file, version)
    upgrade(address)
    with psycopg.connect(address.conninfo(OWNER)) as connection:
        return {
            table: _count(connection, table) for table in ("tenant", "api_key", "end_user", "conversation", "event")
        }


def _count(connection: psycopg.Connection, what: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {what}").fetchone()  # noqa: S608
    return int(row[0]) if row else 0


def _revision(file: Path) -> str:
    command = [str(binary("pg_restore")), "--data-only", "--table=alembic_version", "--file=-", str(file)]
    done = subprocess.run(command, capture_output=True, check=False)
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith("COPY public.alembic_version")), None)
    if done.returncode != 0 or start is None:
        said = done.stderr.decode("utf-8", "replace").strip() or "it holds no schema revision"
        raise InvalidInput(f"{file} is not a backup of Turnstone: {said}", param="FILE")
    return lines[start + 1]


def _load(address: Address, file: Path, version: int) -> None:
    conninfo, environment = _connection(address)
    script = [
        *("--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--output=/dev/null"),
        *(f"--command={_DROP_ALL}", "--file=-", f"--command={_CHECK_GAPLESS}"),
    ]
    with (
        tempfile.TemporaryFile() as complaints,
        tempfile.TemporaryFile() as words,
        subprocess.Popen(
            [str(binary("pg_restore")), "--no-owner", "--no-privileges", "--file=-", str(file)],
            stdout=subprocess.PIPE,
            stderr=complaints,
        ) as reader,
        subprocess.Popen(
            [str(binary("psql")), *script, f"--dbname={conninfo}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=words,
            env=environment,
        ) as writer,
    ):
        assert reader.stdout is not None
        assert writer.stdin is not None
        try:
            _copy(reader.stdout, writer.stdin, drop=_TIMEOUT_LINE if version < 170000 else None)
            writer.stdin.flush()
            if reader.wait() != 0:
                raise InvalidInput(f"{file} cannot be read to its end: {_text(complaints)}", param="FILE")
            writer.stdin.close()
        except BrokenPipeError:
            pass  # psql stopped, and says why
        except BaseException:
            # Before psql sees the end of its input, which it would take for a whole script and commit.
            writer.kill()
            raise
        finally:
            reader.kill()
            code = writer.wait()
        if code != 0:
            raise DatabaseUnavailable(f"the restore failed, and the database is as it was: {_text(words)}")


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace").strip()


def _copy(source: IO[bytes], target: IO[bytes], *, drop: bytes | None) -> None:
    while drop is not None:
        line = source.readline()
        if line == drop or not line:
            break
        target.write(line)
    while block := source.read(1 << 20):
        target.write(block)


def _dump(address: Address, file: str) -> None:
    try:
        with psycopg.connect(address.conninfo(OWNER)) as connection:
            tables = [name for (name,) in connection.execute(_OWN_TABLES)]
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"the database cannot be reached: {str(error).strip()}") from None
    if not tables:
        raise Conflict("the database holds no tables of Turnstone's")
    conninfo, environment = _connection(address)
    done = subprocess.run(
        [
            str(binary("pg_dump")),
            *("--format=custom", "--compress=gzip:3", "--no-owner", "--no-privileges"),
            # By name: a database may hold others' tables, too, which the owner of ours may not read.
            *(f"--table={name}" for name in tables),
            "--exclude-table-data=public.server",
            f"--dbname={conninfo}",
            f"--file={file}",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        raise DatabaseUnavailable(f"pg_dump failed: {done.stderr.decode('utf-8', 'replace').strip()}")


def _connection(address: Address) -> tuple[str, dict[str, str]]:
    """Return the owner's connection string and environment; the password is in the latter, out of every ``ps``."""
    parts = conninfo_to_dict(address.conninfo(OWNER))
    password = parts.pop("password", None)
    environment = dict(os.environ)
    if password is not None:
        environment["PGPASSWORD"] = str(password)
    return make_conninfo("", **parts), environment
