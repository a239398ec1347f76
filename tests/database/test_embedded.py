"""The embedded PostgreSQL: starts, survives, lets nobody else in. Runs as root and as an ordinary user alike."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from server.database.embedded import EmbeddedPostgres, attach, binary, processes
from server.database.embedded import account as accounts
from server.database.embedded.account import Account
from server.database.embedded.binaries import copy_installation
from server.database.embedded.log_file import LogFile
from server.database.embedded.sockets import fits
from server.errors import DatabaseRefused, DatabaseUnavailable

FAST = {"fsync": "off"}
ODD = 'it\'s a "data, directory" with spaces, ünïcödé 🪨 $HOME `x` ' + "and a very long name " * 4
IS_ROOT = os.geteuid() == 0
REPOSITORY = Path(__file__).parents[2]

Start = Callable[..., EmbeddedPostgres]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[EmbeddedPostgres] = []

    def start_one(data_dir: Path, **settings: str) -> EmbeddedPostgres:
        postgres = EmbeddedPostgres(data_dir, settings={**FAST, **settings})
        started.append(postgres)
        postgres.start()
        return postgres

    yield start_one
    for postgres in started:
        postgres.stop()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that was used before, stopped; shared, since each new cluster costs a second."""
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("used"), settings=FAST)
    postgres.start()
    postgres.stop()
    return postgres.data_dir


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A short path that every account can reach (pytest's own temporary directories are private)."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def unrelated(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that PostgreSQL's account may signal: a stale pid that is now its own looks alive to PostgreSQL."""
    account = accounts.account_for(tmp_path / "no cluster yet")
    process = accounts.spawn(account, ["sleep", "60"], directory=Path("/"), output=subprocess.DEVNULL)
    yield process
    process.kill()
    process.wait()


def ask(postgres: EmbeddedPostgres, query: str, dbname: str = "turnstone") -> object:
    with psycopg.connect(postgres.conninfo("postgres", dbname), autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def remember(postgres: EmbeddedPostgres, word: str) -> None:
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        connection.execute("INSERT INTO words VALUES (%s)", [word])


def recall(postgres: EmbeddedPostgres) -> str:
    return str(ask(postgres, "SELECT string_agg(word, ' ') FROM words"))


def wait_until(happened: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def kill_postmaster(postgres: EmbeddedPostgres) -> int:
    pid = postgres.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not postgres.running())
    return pid


def start_elsewhere(data_dir: Path) -> subprocess.Popen[str]:
    """Start the database from another process, which prints a line when it serves and then waits."""
    program = (
        "import sys; from pathlib import Path; from server.database.embedded import EmbeddedPostgres\n"
        "p = EmbeddedPostgres(Path(sys.argv[1]), settings={'fsync': 'off'}); p.start(); print(p.pid, flush=True)\n"
        "sys.stdin.read()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(data_dir)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def close(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_starts_keeps_what_was_stored_and_starts_again_in_an_odd_long_path(start: Start, tmp_path: Path) -> None:
    data_dir = tmp_path / ODD / ODD
    assert len(os.fsencode(data_dir)) > 200
    postgres = start(data_dir)
    remember(postgres, "kept")
    ask(postgres, "CREATE EXTENSION vector")
    socket_dir = postgres.socket_dir
    postgres.stop()
    postgres.stop()
    assert not postgres.running()
    assert postgres.pid is None
    assert socket_dir == data_dir / "run" or not socket_dir.exists()

    began = time.monotonic()
    again = start(data_dir)
    assert time.monotonic() - began < 3
    assert "kept" in recall(again)


def test_the_cluster_is_as_designed(start: Start, tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "data")
    postgres.start()
    try:
        for name, value in {
            "server_version_num": "180004",
            "data_checksums": "on",
            "server_encoding": "UTF8",
            "listen_addresses": "",
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "wal_level": "replica",
            "jit": "off",
            "TimeZone": "UTC",
            "idle_in_transaction_session_timeout": "1min",
        }.items():
            assert ask(postgres, f"SHOW {name}") == value, name
        assert ask(postgres, "SELECT datlocale FROM pg_database WHERE datname = 'turnstone'") == "C.UTF-8"
        assert ask(postgres, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'peer'") == 0
        assert ask(postgres, "SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL") == 0
        assert postgres.pid is not None
        # Ctrl-C in the terminal goes to the terminal's process group: the server must not be in it.
        assert os.getpgid(postgres.pid) != os.getpgid(0)
        assert os.getsid(postgres.pid) != os.getsid(0)
    finally:
        postgres.stop()


def test_nothing_is_open_to_others_and_parents_stay_as_they_are(start: Start, tmp_path: Path) -> None:
    parent = tmp_path / "private"
    parent.mkdir(mode=0o700)
    above = {place: place.stat() for place in (parent, *parent.parents)}
    postgres = start(parent / "new" / "data")
    places = [parent / "new", *(parent / "new").rglob("*"), postgres.socket_dir, *postgres.socket_dir.rglob("*")]
    shown = [place for place in places if place.lstat().st_mode & 0o077 and not place.is_symlink()]
    assert len(places) > 500
    assert shown == []
    for place, before in above.items():
        after = place.stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid), place


def test_the_socket_is_in_the_data_directory_where_that_works(
    start: Start, open_dir: Path, unrelated: subprocess.Popen[bytes]
) -> None:
    (open_dir / "data").mkdir(mode=0o755)
    postgres = start(open_dir / "data")
    assert postgres.socket_dir == (open_dir / "data" / "run").resolve()
    assert stat.S_IMODE(postgres.socket_dir.stat().st_mode) == 0o700
    kill_postmaster(postgres)
    (postgres.socket_dir / ".s.PGSQL.5432.lock").write_text(f"{unrelated.pid}\n")
    postgres.start()
    assert ask(postgres, "SELECT 1") == 1


def test_a_socket_path_must_fit_the_kernel_and_the_server() -> None:
    longest = 107 if sys.platform == "linux" else 103
    assert fits(Path("/" + "x" * (longest - len("//.s.PGSQL.5432"))))
    assert not fits(Path("/" + "x" * (longest - len("//.s.PGSQL.5432") + 1)))
    assert not fits(Path("/tmp/with space"))
    assert not fits(Path("/tmp/a,b"))
    assert not fits(Path("/tmp/ü"))


def test_recovers_after_the_postmaster_was_killed(start: Start, data_dir: Path) -> None:
    postgres = start(data_dir)
    remember(postgres, "recovered")
    known = postgres.conninfo("postgres")
    kill_postmaster(postgres)
    postgres.start()
    assert "recovered" in recall(postgres)
    # Worker processes and pools were told once.
    assert postgres.conninfo("postgres") == known


def test_a_restart_that_fails_keeps_the_lock_and_the_socket(start: Start, data_dir: Path) -> None:
    postgres = start(data_dir)
    known = postgres.conninfo("postgres")
    kill_postmaster(postgres)
    own = data_dir / "postgres.conf"
    own.write_text("shared_buffers = plenty")
    try:
        with pytest.raises(DatabaseUnavailable, match="shared_buffers"):
            postgres.start()
    finally:
        own.unlink()
    with pytest.raises(DatabaseRefused, match=f"process {os.getpid()}"):
        start(data_dir)
    postgres.start()
    assert postgres.conninfo("postgres") == known
    assert ask(postgres, "SELECT 1") == 1


@pytest.mark.parametrize("content", ["recycled pid", "empty"])
def test_a_stale_pid_file_does_not_block(
    start: Start, data_dir: Path, unrelated: subprocess.Popen[bytes], content: str
) -> None:
    postgres = start(data_dir)
    remember(postgres, content)
    kill_postmaster(postgres)
    postgres.stop()
    cluster = data_dir / "postgres"
    stale = cluster / "postmaster.pid"
    wait_until(lambda: not processes.servers_in(cluster, accounts.account_for(cluster)))
    lines = stale.read_text().splitlines()
    stale.write_text("" if content == "empty" else "\n".join([str(unrelated.pid), *lines[1:]]) + "\n")
    assert content in recall(start(data_dir))
    assert unrelated.poll() is None


def test_waits_for_backends_that_outlived_their_postmaster(
    start: Start, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_ORPHANS", 0.3)
    postgres = start(data_dir)
    remember(postgres, "safe")
    with psycopg.connect(postgres.conninfo("postgres")) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        try:
            kill_postmaster(postgres)
            before = (data_dir / "postgres" / "postmaster.pid").read_text()
            with pytest.raises(DatabaseUnavailable, match=str(backend)):
                postgres.start()
            assert (data_dir / "postgres" / "postmaster.pid").read_text() == before
        finally:
            os.kill(backend, signal.SIGCONT)
        wait_until(lambda: not psutil.pid_exists(backend))
    postgres.start()
    assert "safe" in recall(postgres)


def test_takes_over_from_a_killed_turnstone(start: Start, data_dir: Path) -> None:
    earlier = start_elsewhere(data_dir)
    assert earlier.stdout is not None
    orphan = int(earlier.stdout.readline())
    close(earlier)
    found = attach(data_dir)
    assert found is not None
    assert found.pid == orphan
    socket_dir = found.socket_dir
    remember(found, "inherited")

    postgres = start(data_dir)
    assert "inherited" in recall(postgres)
    assert postgres.pid != orphan
    assert not found.running()
    assert postgres.socket_dir == socket_dir or not socket_dir.exists()


def test_a_second_turnstone_is_refused_by_the_holders_pid(start: Start, data_dir: Path) -> None:
    first = start_elsewhere(data_dir)
    try:
        assert first.stdout is not None
        assert int(first.stdout.readline())
        with pytest.raises(DatabaseRefused, match=rf"process {first.pid}\b"):
            start(data_dir)
        found = attach(data_dir)
        assert found is not None
        assert ask(found, "SELECT 1") == 1
    finally:
        close(first)
    start(data_dir)


def test_attach_finds_only_what_runs_and_does_not_stop_it(start: Start, data_dir: Path) -> None:
    assert attach(data_dir / "nothing") is None
    postgres = start(data_dir)
    found = attach(data_dir)
    assert found is not None
    assert (found.pid, found.socket_dir, found.port) == (postgres.pid, postgres.socket_dir, postgres.port)
    found.stop()
    assert ask(postgres, "SELECT 1") == 1
    kill_postmaster(postgres)
    assert attach(data_dir) is None
    postgres.stop()
    assert attach(data_dir) is None


def test_a_kill_in_the_middle_of_the_first_start_leaves_nothing_in_the_way(start: Start, tmp_path: Path) -> None:
    first = start_elsewhere(tmp_path)
    wait_until(lambda: any(tmp_path.glob("postgres.initdb-*/global/pg_control")))
    for process in [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]:
        process.kill()
    close(first)
    assert not (tmp_path / "postgres").exists()
    assert ask(start(tmp_path), "SELECT 1") == 1
    assert not list(tmp_path.glob("postgres.initdb-*"))


@pytest.mark.parametrize(
    ("file", "content", "said"), [("PG_VERSION", "17\n", "PostgreSQL 17.*backup.*restore"), ("notes", "", "PG_VERSION")]
)
def test_another_version_or_a_strange_directory_is_refused(
    start: Start, tmp_path: Path, file: str, content: str, said: str
) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / file).write_text(content)
    with pytest.raises(DatabaseRefused, match=said):
        start(tmp_path)
    assert [entry.name for entry in (tmp_path / "postgres").iterdir()] == [file]


def test_a_server_that_ends_at_start_is_quoted(start: Start, data_dir: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="shared_buffers"):
        start(data_dir, shared_buffers="plenty")
    with pytest.raises(DatabaseRefused, match="not a PostgreSQL setting"):
        start(data_dir, **{"work_mem = 1\nfsync": "off"})
    assert ask(start(data_dir), "SELECT 1") == 1


def test_a_data_directory_that_cannot_be_made_is_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseUnavailable, match="file/data"):
        start(tmp_path / "file" / "data")


def test_the_operators_settings_win(start: Start, data_dir: Path) -> None:
    own = data_dir / "postgres.conf"
    own.write_text("work_mem = '7MB'\nlisten_addresses = '*'\n")
    postgres = start(data_dir, work_mem="5MB", maintenance_work_mem="65MB", application_name=r"a'b\c")
    assert ask(postgres, "SHOW work_mem") == "7MB"
    assert ask(postgres, "SHOW maintenance_work_mem") == "65MB"
    assert ask(postgres, "SELECT reset_val FROM pg_settings WHERE name = 'application_name'") == r"a'b\c"
    assert ask(postgres, "SHOW listen_addresses") == ""
    postgres.stop()
    own.unlink()
    assert ask(start(data_dir), "SHOW work_mem") == "4MB"


@contextmanager
def acting_as(account: Account) -> Iterator[None]:
    """Take on another account's effective user id, which is what the kernel tells a socket's peer."""
    own = os.geteuid()
    os.seteuid(account.uid)
    try:
        yield
    finally:
        os.seteuid(own)


def strangers() -> list[tuple[str, Account, str]]:
    """Who must be refused: an unmapped role for ourselves; for any other account (root can act as one) every role."""
    entry = pwd.getpwuid(os.geteuid())
    cases = [("our account, another role", Account(entry.pw_name, entry.pw_uid, entry.pw_gid), "outsider")]
    if IS_ROOT:
        nobody = pwd.getpwnam("nobody")
        cases += [
            (f"nobody as {role}", Account("nobody", nobody.pw_uid, nobody.pw_gid), role)
            for role in ("postgres", "turnstone_owner", "nobody")
        ]
    return cases


def test_only_turnstones_account_gets_in_and_only_as_its_roles(start: Start, data_dir: Path) -> None:
    postgres = start(data_dir)
    for role in ("turnstone_owner", "outsider", "nobody"):
        ask(postgres, f"CREATE ROLE {role} LOGIN SUPERUSER")
    psycopg.connect(postgres.conninfo("turnstone_owner")).close()
    for who, stranger, role in strangers():
        conninfo = postgres.conninfo(role)
        with acting_as(stranger), pytest.raises(psycopg.OperationalError) as refused:
            psycopg.connect(conninfo)
        if not stranger.is_ours:
            assert "Permission denied" in str(refused.value), who
    # The directory alone keeps other accounts out; with its door open, the peer check still does.
    postgres.socket_dir.chmod(0o711)
    for entry in postgres.socket_dir.iterdir():
        entry.chmod(0o777)
    for who, stranger, role in strangers():
        conninfo = postgres.conninfo(role)
        with acting_as(stranger), pytest.raises(psycopg.OperationalError) as refused:
            psycopg.connect(conninfo)
        assert "Peer authentication failed" in str(refused.value), who


def test_a_physical_backup_starts(start: Start, tmp_path: Path, data_dir: Path) -> None:
    postgres = start(data_dir)
    remember(postgres, "backed-up")
    target = tmp_path / "restored" / "postgres"
    # Run as root, it writes files that root owns.
    source = postgres.conninfo("postgres", "postgres")
    command = [str(binary("pg_basebackup")), "--no-sync", "--checkpoint=fast", f"--pgdata={target}", "-d", source]
    subprocess.run(command, check=True)
    restored = start(tmp_path / "restored")
    assert "backed-up" in recall(restored)
    remember(postgres, "later")
    assert "later" not in recall(restored)


def test_binaries_out_of_the_accounts_reach_are_copied_once(tmp_path: Path, open_dir: Path) -> None:
    shelf = open_dir / "shelf"
    site = binary("postgres").parents[3]
    old_mask = os.umask(0o077)
    try:
        copy = copy_installation(site, shelf)
    finally:
        os.umask(old_mask)
    before = copy.stat()
    assert copy_installation(site, shelf) == copy
    assert copy.stat().st_mtime_ns == before.st_mtime_ns
    assert [entry.name for entry in shelf.iterdir()] == [copy.name]
    account = accounts.account_for(tmp_path / "none")
    for program in ("postgres", "initdb"):
        path = copy / binary(program).relative_to(site)
        run = accounts.spawn(account, [path, "--version"], directory=open_dir, output=subprocess.DEVNULL)
        assert run.wait() == 0
    shelf.chmod(0o777)
    with pytest.raises(DatabaseRefused, match="written to by others"):
        copy_installation(site, shelf)


def test_the_log_is_bounded_under_a_writer(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "postgres.log", limit=1000)
    handle = log.open()
    try:
        os.write(handle, b"old line\n" * 200)
        log.bound()
        os.write(handle, b"new line\n")
    finally:
        os.close(handle)
    assert (tmp_path / "postgres.log").read_text() == "new line\n"
    assert len((tmp_path / "postgres.log.1").read_text()) == 1000
    assert log.last_lines() == "new line"
