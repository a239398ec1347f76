"""Where the database is, and as which of the four roles to speak to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from server.errors import InvalidInput


class Address(Protocol):
    """Gives a libpq connection string for a role; ``admin`` is who may create roles and extensions."""

    def conninfo(self, role: str) -> str: ...


class EmbeddedAddress:
    """The embedded cluster: every role logs in by itself over the private socket, by peer authentication."""

    def __init__(self, conninfo: Callable[[str, str], str], database: str = "turnstone") -> None:
        self._conninfo = conninfo
        self._database = database

    def conninfo(self, role: str) -> str:
        return self._conninfo("postgres" if role == "admin" else role, self._database)


class ExternalAddress:
    """A database named by URL: its user logs in, and then becomes the role that it needs.

    Raises InvalidInput when the URL cannot be read.
    """

    def __init__(self, url: str) -> None:
        try:
            self._parts = conninfo_to_dict(url)
        except Exception as error:
            raise InvalidInput(
                f"TURNSTONE_DATABASE_URL cannot be read: {error}. Write it as postgresql://user:password@host:5432/name",
                param="TURNSTONE_DATABASE_URL",
            ) from None

    def conninfo(self, role: str) -> str:
        parts = {"connect_timeout": 5, "application_name": "turnstone", **self._parts}
        if role != "admin":
            parts["options"] = f"{parts.get('options', '')} -c role={role}".strip()
        return make_conninfo("", **parts)


class HandedAddress:
    """An address for the roles that a process was handed, and no other."""

    def __init__(self, conninfo: dict[str, str]) -> None:
        self._conninfo = conninfo

    def conninfo(self, role: str) -> str:
        return self._conninfo[role]
