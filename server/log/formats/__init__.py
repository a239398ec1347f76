"""Import and export formats: pure, streaming readers from a file to conversations and their events.

Each module reads one format through `read_<format>(path, ...)`, an iterator of `ImportedConversation`. Nothing here
touches the database; memory holds one conversation of a file at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

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


class FormatError(ValueError):
    """A file that is not what its format says: `path`, `where` in it (record and field) and the `problem`."""

    def __init__(self, path: Path, where: str, problem: str) -> None:
        super().__init__(f"{path}: {where}: {problem}")
        self.path = path
        self.where = where
        self.problem = problem


class ImportedEvent(msgspec.Struct, kw_only=True):
    """One event in the wire shape of `POST /v1/conversations/{id}/events`.

    `id` is the source's own id, unique in the conversation, so that importing twice stores once. `content` is a string,
    a list of parts, or any JSON value, verbatim. `occurred_at` is aware, in UTC.
    """

    type: EventType = "message"
    role: Role | None = None
    content: Any
    id: str | None = None
    name: str | None = None
    call_id: str | None = None
    session: str | None = None
    run_id: str | None = None
    occurred_at: datetime | None = None
    metadata: dict[str, Any] | None = None


class ImportedConversation(msgspec.Struct, kw_only=True):
    """One conversation, or a branch of one, with only the events it does not share with its parent.

    `origin_id` finds the same conversation when the file is imported again. A branch names its parent's `origin_id` in
    `fork_of` (a parent comes before its forks in the file) and the last event it shares in `fork_at`, which the parent
    holds itself or has from its own parent; `fork_at` None with `fork_of` set: the branch shares no event.
    A `deleted` one is there only for what its forks share of it.
    `events` can be walked once, before the next conversation is asked for.
    """

    origin_id: str
    user: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    fork_of: str | None = None
    fork_at: str | None = None
    deleted: bool = False
    events: Iterable[ImportedEvent]
