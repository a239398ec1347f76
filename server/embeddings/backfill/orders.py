"""What a worker's process is told, as one line on its standard input."""

from __future__ import annotations

from typing import Final

import msgspec

ROLES: Final = ("turnstone_runtime", "turnstone_worker")


class Orders(msgspec.Struct, frozen=True):
    """``conninfo``: connection strings by role. ``key``: the provider's."""

    conninfo: dict[str, str]
    key: str | None
    log_level: str
    log_format: str
