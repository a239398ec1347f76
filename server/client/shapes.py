"""What the server answers, as far as a client needs it; what it does not know of an answer it leaves out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class Conversation(msgspec.Struct):
    """A conversation without its events."""

    id: str
    head: int
    created_at: int
    user: str | None = None
    metadata: dict[str, Any] = {}
    origin_id: str | None = None
    forked_from: str | None = None


class Event(msgspec.Struct):
    """One event of the log; ``erased_at`` is set when only its place is left."""

    id: str
    seq: int
    type: str
    occurred_at: datetime
    recorded_at: datetime
    role: str | None = None
    name: str | None = None
    content: Any = None
    call_id: str | None = None
    session: str | None = None
    run_id: str | None = None
    metadata: dict[str, Any] = {}
    erased_at: datetime | None = None


class AppendedEvent(msgspec.Struct):
    """Where an event stands now."""

    id: str
    seq: int


class Appended(msgspec.Struct):
    """What an append stored, in the order sent, and the head that it left."""

    events: list[AppendedEvent]
    head: int


class Page(msgspec.Struct):
    """A range of the log."""

    data: list[Event]
    has_more: bool
    head: int


class Message(msgspec.Struct):
    """One message of a context, and why it is there."""

    seq: int
    tokens: int
    reason: str
    type: str | None = None
    role: str | None = None
    name: str | None = None
    content: Any = None
    call_id: str | None = None
    conversation_id: str | None = None  # of another conversation of the user


class Context(msgspec.Struct):
    """What a model should see."""

    snapshot_id: str
    head: int
    tokens: int
    budget_tokens: int
    messages: list[Message]
    type: str | None = None  # of the question


class Source(msgspec.Struct):
    """An event that a message is made of, and why it is there."""

    seq: int
    tokens: int
    reason: str
    id: str | None = None
    type: str | None = None
    conversation_id: str | None = None  # of another conversation of the user


class Prompt(msgspec.Struct):
    """What a model should see, as its API takes it: hand ``messages`` over, and ``system`` where there is one.

    ``sources``: of each message the events that it is made of; ``left_out``: events that the API has no place for.
    """

    snapshot_id: str
    head: int
    tokens: int
    budget_tokens: int
    messages: list[dict[str, Any]]
    sources: list[list[Source]]
    system: str | None = None  # Anthropic's
    system_sources: list[Source] = []
    left_out: list[Source] = []
    type: str | None = None  # of the question


class Found(msgspec.Struct):
    """An event that may hold the answer."""

    conversation_id: str
    seq: int
    id: str
    score: float | None  # None for what its place in the log brought
    event: Event


class Answers(msgspec.Struct):
    """What was found, best first, and the type that the question was taken for."""

    data: list[Found]
    type: str
