"""What the log promises, as plainly as it can be said: lists in memory, no clock, no database.

A conversation shows a list of events. A fork copies its parent's list (the events themselves are shared, so that what
is erased in one is erased in all), and each list grows on its own from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Event:
    """One event, shared by every conversation that shows it; ``body`` is None once it is erased."""

    owner: str
    seq: int
    id: str
    body: dict[str, Any] | None
    sent: dict[str, Any] | None  # what came under the caller's id; outlives erasure
    recorded_at: str | None = None


@dataclass(eq=False)
class Conversation:
    """What one conversation shows."""

    id: str
    user: str | None
    events: list[Event] = field(default_factory=list)
    keys: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # Idempotency-Key: body, first answer

    @property
    def head(self) -> int:
        return len(self.events)


class Refused(Exception):
    """The log says no; ``code`` is the error's stable code."""

    def __init__(self, code: str, **details: Any) -> None:
        super().__init__(code)
        self.code = code
        self.details = details


class Log:
    """Every conversation of one tenant."""

    def __init__(self) -> None:
        self.conversations: dict[str, Conversation] = {}

    def create(self, id_: str, user: str | None) -> None:
        self.conversations[id_] = Conversation(id_, user)

    def append(self, at: str, events: list[dict[str, Any]], expected_head: int | None, key: str | None) -> Any:
        """Return the answer's ids (None: the server chooses), seqs and head."""
        conversation = self.conversations[at]
        request = (events, expected_head)
        if key in conversation.keys:
            assert key is not None
            body, answer = conversation.keys[key]
            if body != request:
                raise Refused("idempotency_mismatch")
            return answer
        known = {event.id: event for event in conversation.events if event.sent is not None}
        fresh: list[Event] = []
        answer_events: list[Event] = []
        for body in events:
            original = known.get(body.get("id", ""))
            if original is not None:
                if original.sent != body:
                    raise Refused("id_conflict")
                answer_events.append(original)
                continue
            seq = conversation.head + len(fresh) + 1
            event = Event(at, seq, body.get("id") or server_id(at, seq), body, body if "id" in body else None)
            fresh.append(event)
            answer_events.append(event)
        if fresh and expected_head is not None and expected_head != conversation.head:
            raise Refused("stale_head", head=conversation.head)
        conversation.events += fresh
        answer = ([(event.id, event.seq) for event in answer_events], conversation.head)
        if key is not None:
            conversation.keys[key] = (request, answer)
        return answer

    def fork(self, at: str, at_seq: int, id_: str) -> None:
        parent = self.conversations[at]
        if at_seq > parent.head:
            raise Refused("invalid_input")
        self.conversations[id_] = Conversation(id_, parent.user, parent.events[:at_seq])

    def erase(self, at: str, seq: int) -> None:
        event = self.conversations[at].events[seq - 1]
        if event.body is not None and event.body["type"] == "erasure":
            raise Refused("invalid_input")
        if event.body is None:
            return
        event.body = None
        owner = self.conversations.get(event.owner)
        if owner is not None:
            body = {"type": "erasure", "content": {"seq": event.seq}}
            seq = owner.head + 1
            owner.events.append(Event(owner.id, seq, server_id(owner.id, seq), body, None))

    def delete(self, at: str) -> None:
        del self.conversations[at]

    def erase_user(self, user: str) -> None:
        self.conversations = {id_: one for id_, one in self.conversations.items() if one.user != user}

    def read(
        self, at: str, after: int, before: int | None, limit: int, descending: bool, until: int | None
    ) -> tuple[list[Event], bool]:
        """Return the events of a range and whether it goes on; ``until`` is the head that it pretends."""
        shown = self.conversations[at].events[: until if until is not None else None]
        found = [event for event in shown if event.seq > after and (before is None or event.seq < before)]
        if descending:
            found.reverse()
        return found[:limit], len(found) > limit


def server_id(conversation: str, seq: int) -> str:
    """Return the id that the server gives an event without one."""
    return f"evt_{conversation[-32:]}_{seq}"
