"""The settings: one table of name, default and help, read from ``TURNSTONE_*`` or flags of the same name.

This is the only reader of the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from server.errors import InvalidInput


def default_data_dir() -> Path:
    """Return where data lives when nobody says otherwise, by the platform's custom."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "turnstone"
    if os.name == "posix" and os.geteuid() == 0:
        return Path("/var/lib/turnstone")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "turnstone"


class Setting(msgspec.Struct, frozen=True):
    """One row of the table; ``kind`` converts the text of the environment or the flag."""

    name: str
    kind: type
    default: object
    help: str

    @property
    def variable(self) -> str:
        return f"TURNSTONE_{self.name.upper()}"

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"


TABLE: tuple[Setting, ...] = (
    Setting("data_dir", Path, None, "Directory of the embedded database, the admin key and the logs."),
    Setting("database_url", str, None, "An external PostgreSQL 16+ with pgvector 0.8.4+, instead of the embedded one."),
    Setting("host", str, "127.0.0.1", "Address to listen on."),
    Setting("port", int, 8420, "Port to listen on; 0 takes a free one."),
    Setting("workers", int, 1, "Server processes; more use more cores, each with caches of its own."),
    Setting("url", str, None, "The server that client commands talk to; by default the one on this machine."),
    Setting("key", str, None, "The API key of client commands; by default the admin key in the data directory."),
    Setting("max_event_bytes", int, 1024 * 1024, "Largest content plus metadata of one event, in bytes."),
    Setting("max_request_bytes", int, 16 * 1024 * 1024, "Largest request, in bytes."),
    Setting("idempotency_hours", int, 24, "How long an Idempotency-Key is remembered, in hours."),
    Setting("retention_interval", int, 3600, "Seconds between two runs of retention; 0 turns it off."),
    Setting("append_lanes", int, 2, "Append transactions that one process keeps in flight."),
    Setting("pool_size", int, 10, "Database connections that one process uses for reads."),
    Setting("cache_bytes", int, 64 * 1024 * 1024, "Memory for hot conversations, in bytes, of each server process."),
    Setting("embedder", str, "on", "off: this server embeds no new events; another one on its database must."),
    Setting("provider_key", str, None, "The API key that an embedding provider is sent; from the environment only."),
    Setting("shadow_text", str, "off", "on: the shadow of a migration keeps the questions that it compares."),
    Setting("migration_grace_hours", int, 72, "How long a replaced embedding version is kept before `contract`."),
    Setting("search_bytes", int, 256 * 1024 * 1024, "Memory for search indexes, in bytes, of each server process."),
    Setting("log_level", str, "info", "debug, info, warning or error."),
    Setting("log_format", str, "auto", "json, console, or auto: console on a terminal."),
    Setting("log_requests", str, "slow", "Requests to log: all, slow (over a second, or failed with 5xx) or none."),
    Setting("shutdown_seconds", int, 20, "How long a stop waits for requests that are being answered."),
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings in force, one field for each row of the table."""

    data_dir: Path
    database_url: str | None
    host: str
    port: int
    workers: int
    url: str | None
    key: str | None
    max_event_bytes: int
    max_request_bytes: int
    idempotency_hours: int
    retention_interval: int
    append_lanes: int
    pool_size: int
    cache_bytes: int
    search_bytes: int
    embedder: str
    provider_key: str | None
    shadow_text: str
    migration_grace_hours: int
    log_level: str
    log_format: str
    log_requests: str
    shutdown_seconds: int


CHOICES: dict[str, tuple[str, ...]] = {
    "embedder": ("on", "off"),
    "shadow_text": ("on", "off"),
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": ("auto", "json", "console"),
    "log_requests": ("all", "slow", "none"),
}
_MAY_BE_ZERO = {"port", "retention_interval", "migration_grace_hours"}


def load(flags: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings: a flag wins over the environment, and the environment over the default.

    Raises InvalidInput for a value of the wrong kind and for an unknown ``TURNSTONE_*`` variable, since a misspelt
    setting that is silently ignored is found out only in production.
    """
    environment = os.environ if environment is None else environment
    known = {row.variable for row in TABLE}
    unknown = sorted(name for name in environment if name.startswith("TURNSTONE_") and name not in known)
    if unknown:
        raise InvalidInput(
            f"{unknown[0]} is not a setting; the settings are {', '.join(sorted(known))}", param=unknown[0]
        )
    values: dict[str, object] = {}
    for row in TABLE:
        given = (flags or {}).get(row.name)
        if given is None:
            given = environment.get(row.variable) or None
        values[row.name] = row.default if given is None else _convert(row, given)
    values["data_dir"] = Path(str(values["data_dir"] or default_data_dir())).expanduser().absolute()
    return msgspec.convert(values, Settings)


def _convert(row: Setting, given: object) -> object:
    try:
        value: object = row.kind(given)
    except (TypeError, ValueError):
        raise InvalidInput(f"{row.variable}={given!r} is not a whole number", param=row.variable) from None
    choices = CHOICES.get(row.name)
    if choices and value not in choices:
        raise InvalidInput(f"{row.variable}={given!r} is not one of {', '.join(choices)}", param=row.variable)
    if isinstance(value, int) and value < (0 if row.name in _MAY_BE_ZERO else 1):
        raise InvalidInput(f"{row.variable}={given!r} is too small", param=row.variable)
    return value
