"""The embedded PostgreSQL server, from its start to its stop."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from server.database.embedded.account import Account, account_for, by_uid, spawn
from server.database.embedded.binaries import server_program
from server.database.embedded.config import write_configuration
from server.database.embedded.creation import data_argument, ensure_cluster
from server.database.embedded.lock import DirectoryLock
from server.database.embedded.log_file import LogFile
from server.database.embedded.processes import FAST_SHUTDOWN, POLL, clear_the_way, is_alive, read_pid_file, servers_in
from server.database.embedded.sockets import PORT, make_socket_directory, remove_socket_directory
from server.errors import DatabaseRefused, DatabaseUnavailable

logger = logging.getLogger(__name__)

DATABASE = "turnstone"
_RECOVERY = 1800.0  # seconds; replaying max_wal_size takes a minute on a slow disk, a restored archive longer
_SAY_EVERY = 10.0  # seconds


class EmbeddedPostgres:
    """PostgreSQL in `data_dir/postgres`, reached over a private Unix socket by Turnstone's own account only.

    `settings` override Turnstone's configuration (not the operator's). All methods block; call them outside the event
    loop. One instance is for one thread at a time.
    """

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self._settings = dict(settings or {})
        self._account: Account | None = None
        self._socket_dir: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._attached: psutil.Process | None = None
        self._lock: DirectoryLock | None = None
        self._log: LogFile | None = None

    @property
    def port(self) -> int:
        """The number in the socket's name; no network port is open."""
        return PORT

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        if not self.running():
            return None
        return self._process.pid if self._process is not None else self._attached.pid if self._attached else None

    @property
    def socket_dir(self) -> Path:
        """The directory of the server's socket. Raises DatabaseUnavailable before `start`."""
        if self._socket_dir is None:
            raise DatabaseUnavailable(f"the database in {self.data_dir} was not started")
        return self._socket_dir

    def running(self) -> bool:
        """Whether the postmaster lives (it may still be stopping)."""
        if self._process is not None:
            return self._process.poll() is None
        return self._attached is not None and is_alive(self._attached)

    def conninfo(self, role: str, dbname: str = DATABASE) -> str:
        """A libpq connection string for one of the roles `postgres` and `turnstone_…`.

        Raises DatabaseUnavailable before `start`.
        """
        host = str(self.socket_dir)
        assert self._account is not None, "set with the socket directory"
        # requirepeer: the client, too, makes sure of who is at the other end.
        return make_conninfo(host=host, port=PORT, user=role, dbname=dbname, requirepeer=self._account.name)

    def start(self) -> None:
        """Start the server, creating or recovering the cluster as needed; returns when it accepts connections.

        Raises DatabaseRefused (in use by another Turnstone, another major version, wrong owner) and
        DatabaseUnavailable (it could not start; the text quotes its log). A server that ended by itself may be started
        again: it keeps its socket, and a failure then keeps the data directory's lock for another attempt.
        """
        if self.running():
            return
        abandon = self._end_server if self._lock is not None else self.stop
        try:
            self._start()
        except OSError as error:
            _attempt(abandon)
            raise DatabaseUnavailable(
                f"the database in {self.data_dir} cannot start: {error.strerror or error} ({error.filename}); "
                f"make sure that the directory is writable by this account and that the disk is not full"
            ) from error
        except psycopg.Error as error:
            said = self._log.last_lines() if self._log is not None else ""
            _attempt(abandon)
            raise DatabaseUnavailable(f"PostgreSQL does not serve: {error}\nIts log ends:\n{said}") from error
        except BaseException:
            _attempt(abandon)
            raise

    def _start(self) -> None:
        for missing in reversed([place for place in (self.data_dir, *self.data_dir.parents) if not place.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        self._attached = None
        self.data_dir = self.data_dir.resolve()
        cluster = self.data_dir / "postgres"
        if self._lock is None:
            lock = DirectoryLock(self.data_dir / "lock")
            lock.acquire()
            self._lock = lock
        account = self._account = account_for(cluster)
        if cluster.is_dir():
            clear_the_way(cluster, account, keep=self._socket_dir)
        ensure_cluster(cluster, account, durable=self._settings.get("fsync") != "off")
        write_configuration(
            cluster,
            account=account,
            operator=self.data_dir / "postgres.conf",
            settings=self._settings,
            client=by_uid(os.geteuid()).name,
        )
        self._socket_dir = make_socket_directory(self.data_dir, account, self._socket_dir)
        self._log = self._log or LogFile(self.data_dir / "postgres.log")
        output = self._log.open()
        try:
            self._process = spawn(
                account,
                [
                    server_program("postgres", account),
                    "-D",
                    data_argument(cluster, account),
                    # On the command line, so that no configuration file opens a network port or moves the socket.
                    *("-c", "listen_addresses="),
                    *("-c", f"unix_socket_directories={self._socket_dir}"),
                    *("-c", "unix_socket_permissions=0700"),
                    *("-c", f"port={PORT}"),
                ],
                directory=cluster,
                output=output,
            )
        finally:
            os.close(output)
        self._log.watch()
        self._await_ready(cluster, self._process, self._log)
        self._ensure_database()

    def _await_ready(self, cluster: Path, process: subprocess.Popen[bytes], log: LogFile) -> None:
        # The status in postmaster.pid rather than connection attempts: each of those would log a failure.
        began = time.monotonic()
        said = began
        while True:
            record = read_pid_file(cluster)
            if record is not None and record.pid == process.pid and record.status == "ready":
                return
            if process.poll() is not None:
                raise DatabaseUnavailable(
                    f"PostgreSQL ended while starting in {cluster} (status {process.returncode}). Its log, "
                    f"{self.data_dir / 'postgres.log'}, ends:\n{log.last_lines()}"
                )
            now = time.monotonic()
            if now - began > _RECOVERY:
                raise DatabaseUnavailable(
                    f"PostgreSQL is not ready after {_RECOVERY:.0f} s. Its log ends:\n{log.last_lines()}"
                )
            if now - said > _SAY_EVERY:
                said = now
                logger.warning("PostgreSQL is still recovering: %s", log.last_lines(1))
            time.sleep(POLL)

    def _ensure_database(self) -> None:
        with psycopg.connect(self.conninfo("postgres", "postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if known is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def attach(self) -> bool:
        """Use the server that already runs for this data directory, if one does; `stop` leaves it running.

        Raises DatabaseRefused when this account may not look.
        """
        try:
            data_dir = self.data_dir.resolve()
            cluster = data_dir / "postgres"
            record = read_pid_file(cluster)
            if record is None or record.socket_dir is None or record.status != "ready":
                return False
            account = by_uid(cluster.stat().st_uid)
            process = next((found for found in servers_in(cluster, account) if found.pid == record.pid), None)
        except PermissionError as error:
            raise DatabaseRefused(
                f"the database in {self.data_dir} belongs to another account ({error.strerror}: {error.filename}): "
                f"run this as the account that runs Turnstone"
            ) from None
        if process is None:
            return False
        self.data_dir, self._account = data_dir, account
        self._socket_dir, self._attached = record.socket_dir, process
        return True

    def stop(self) -> None:
        """Shut the server down, ending its connections, and wait; harmless when it is not running.

        One that was only attached to is left running. Raises DatabaseUnavailable if it does not end.
        """
        if self._attached is not None:
            self._attached = self._socket_dir = None
            return
        self._end_server()
        if self._socket_dir is not None and self._account is not None:
            remove_socket_directory(self._socket_dir, self._account)
        self._socket_dir = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _end_server(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(FAST_SHUTDOWN)
            except subprocess.TimeoutExpired:
                logger.warning("PostgreSQL is slow to stop; ending it at once, the next start will recover")
                process.send_signal(signal.SIGQUIT)
                try:
                    process.wait(FAST_SHUTDOWN)
                except subprocess.TimeoutExpired:
                    raise DatabaseUnavailable(f"PostgreSQL (process {process.pid}) does not stop") from None
        self._process = None
        if self._log is not None:
            self._log.unwatch()


def _attempt(abandon: Callable[[], None]) -> None:
    try:
        abandon()
    except DatabaseUnavailable:
        logger.exception("while giving up a start")


def attach(data_dir: Path) -> EmbeddedPostgres | None:
    """The server that already runs for this data directory, or None. See `EmbeddedPostgres.attach`."""
    found = EmbeddedPostgres(data_dir)
    return found if found.attach() else None
