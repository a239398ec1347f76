"""The first start: a new cluster."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from server.database.embedded.account import Account, can_reach, give_tree, make_private, spawn
from server.database.embedded.binaries import MAJOR_VERSION, server_program
from server.database.embedded.config import synchronize
from server.errors import DatabaseRefused, DatabaseUnavailable

_UNFINISHED = "postgres.initdb-"


def data_argument(cluster: Path, account: Account) -> str:
    """The -D for a program started in the cluster's directory.

    Where the account may not search the directories above (a home of root's, say), the working directory still leads
    in: it was entered before privileges were dropped, and PostgreSQL works relative to it.
    """
    if can_reach(account, cluster):
        return str(cluster)
    if sys.platform != "linux":
        raise DatabaseRefused(
            f"the account {account.name!r}, which runs PostgreSQL for root, cannot reach {cluster}: choose another "
            f"data directory, or start Turnstone as an ordinary user"
        )
    return "/proc/self/cwd"


def ensure_cluster(cluster: Path, account: Account, *, durable: bool = True) -> None:
    """Create the cluster unless it exists; refuse one of another major version.

    It is made beside its place and renamed when complete and on disk, so a crash leaves nothing half-made in the way.
    `durable=False` skips flushing, for tests. Raises DatabaseRefused, DatabaseUnavailable, OSError.
    """
    for leftover in cluster.parent.glob(_UNFINISHED + "*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if cluster.is_dir() and any(cluster.iterdir()):
        _check_version(cluster)
        if cluster.stat().st_uid != account.uid:  # root's own, as a restored backup is
            give_tree(cluster, account)
        return
    place = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=cluster.parent))
    try:
        make_private(place, account)
        _initdb(place, account, durable)
        place.rename(cluster)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    synchronize(cluster.parent)


def _check_version(cluster: Path) -> None:
    try:
        found = (cluster / "PG_VERSION").read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        raise DatabaseRefused(
            f"{cluster} is neither empty nor a PostgreSQL cluster (it has no PG_VERSION): move it away, or choose "
            f"another data directory"
        ) from None
    if found != MAJOR_VERSION:
        raise DatabaseRefused(
            f"the database in {cluster} was made by PostgreSQL {found}, and this Turnstone carries PostgreSQL "
            f"{MAJOR_VERSION}, which cannot read it: with the Turnstone release that made it, write a logical backup "
            f"(turnstone backup), then restore that into an empty data directory with this release"
        )


def _initdb(place: Path, account: Account, durable: bool) -> None:
    command = [
        str(server_program("initdb", account)),
        f"--pgdata={data_argument(place, account)}",
        "--username=postgres",
        "--encoding=UTF8",
        # The built-in provider's order never changes under an operating-system upgrade, so indexes on text stay valid.
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--data-checksums",
        "--auth-local=peer",
        "--auth-host=reject",
        "--no-instructions",
    ]
    if not durable:
        command.append("--no-sync")
    with tempfile.TemporaryFile() as output:
        process = spawn(account, command, directory=place, output=output)
        try:
            code = process.wait()
        except BaseException:  # Ctrl-C does not reach its session
            process.kill()
            process.wait()
            raise
        output.seek(0)
        said = output.read().decode("utf-8", "replace").strip().splitlines()
    if code != 0:
        raise DatabaseUnavailable(
            f"PostgreSQL's initdb failed in {place.parent} with status {code}:\n" + "\n".join(said[-12:])
        )
