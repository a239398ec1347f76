"""The admin key of the operator's tenant, kept in the data directory for the command line of this machine."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import structlog
from sqlalchemy import func, or_, select

from schema.access import api_key, tenant
from server.access.keys import digest, insert_key
from server.access.tenants import bootstrap
from server.database.connections import Database
from server.errors import DatabaseRefused

_log = structlog.get_logger()


def path(data_dir: Path) -> Path:
    """Return where the key is kept."""
    return data_dir / "admin-key"


def read(data_dir: Path) -> str | None:
    """Return the key that is kept, or None when there is none or it is not one; raises OSError as ``open`` does."""
    try:
        text = path(data_dir).read_text("ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if digest(text) else None


def write(data_dir: Path, secret: str) -> None:
    """Keep a key, readable by its owner only; after a crash the file is the old one or the new one, whole."""
    temporary = data_dir / f".admin-key.{secrets.token_hex(8)}"
    # Mode 0600 from the first instant: a chmod afterwards would leave a moment to open it.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path(data_dir))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        directory = os.open(data_dir, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


async def ensure_admin_key(database: Database, data_dir: Path, *, embedded: bool) -> Path | None:
    """Return the file in the data directory that holds the admin key, made if need be.

    A new database gets its first tenant and key. In an embedded one that has tenants, a key file that is missing or no
    longer works gets a new key of the operator's tenant, the others staying: whoever may write the data directory owns
    the data, so this gives nothing away. An external database with tenants gets no further keys: None, when this
    machine holds none of it. Raises DatabaseRefused when no tenant is the operator's.
    """
    secret = await bootstrap(database)
    if secret is None:
        kept = read(data_dir)
        if kept is not None and await _works(database, kept):
            return path(data_dir)
        if not embedded:
            return None
        secret = await _new_key(database)
        problem = "was missing or unreadable" if kept is None else "no longer worked"
        _log.warning(
            "made a new admin key; the old ones stay valid until revoked", file=str(path(data_dir)), why=problem
        )
    write(data_dir, secret)
    return path(data_dir)


async def _works(database: Database, secret: str) -> bool:
    statement = (
        select(api_key.c.id)
        .join(tenant, tenant.c.id == api_key.c.tenant_id)
        .where(
            api_key.c.digest == digest(secret),
            api_key.c.revoked_at.is_(None),
            or_(api_key.c.expires_at.is_(None), api_key.c.expires_at > func.now()),
            api_key.c.scopes.contains(["admin"]),
            tenant.c.operator,
        )
    )
    async with database.transaction(None, operator=True) as connection:
        return await connection.scalar(statement) is not None


async def _new_key(database: Database) -> str:
    async with database.transaction(None, operator=True) as connection:
        owner = await connection.scalar(select(tenant.c.id).where(tenant.c.operator).order_by(tenant.c.id).limit(1))
        if owner is None:
            raise DatabaseRefused(
                "no tenant of this database is the operator's, so nobody can manage it; restore a backup"
            )
        _, secret = await insert_key(connection, owner, name="admin", scopes=["admin"])
    return secret
