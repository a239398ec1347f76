"""The closed sets of words that are stored: event types, roles, scopes; and the states of an embedding version."""

from __future__ import annotations

from typing import Final, Literal, get_args

EventType = Literal[
    "message",
    "tool_call",
    "tool_result",
    "reasoning",
    "summary",
    "pin",
    "unpin",
    "constraint",
    "working_set",
    "run",
    "erasure",
    "deletion",
    "item",
]
Role = Literal["user", "assistant", "system", "developer", "tool"]
Scope = Literal["read", "append", "erase", "admin"]
VersionState = Literal[
    "draft",
    "writing",
    "backfilling",
    "verified",
    "shadowing",
    "ramping",
    "holding",
    "active",
    "retired",
    "dropped",
]
ErasureScope = Literal["event", "conversation", "user", "retention", "tenant"]

EVENT_TYPES: Final[tuple[str, ...]] = get_args(EventType)
ROLES: Final[tuple[str, ...]] = get_args(Role)
SCOPES: Final[tuple[str, ...]] = get_args(Scope)
ERASURE_SCOPES: Final[tuple[str, ...]] = get_args(ErasureScope)
VERSION_STATES: Final[tuple[str, ...]] = get_args(VersionState)

DATABASE_ROLES: Final = ("turnstone_owner", "turnstone_runtime", "turnstone_worker", "turnstone_eraser")
