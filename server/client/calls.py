"""The calls, as values: what to send, what comes back, when to send it again. Both clients are made of these."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import quote
from uuid import uuid4

import msgspec

from server.client.shapes import Answers, Appended, Context, Conversation, Event, Page, Prompt

T = TypeVar("T")
Api = Literal["openai", "openai-responses", "anthropic"]

RETRIES: Final = 4
_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})  # a 409 says that somebody has to look first
_LONGEST_WAIT: Final = 8.0  # seconds, unless the server asks for more


class Refused(Exception):
    """The server answered with an error: its ``status`` and ``code``, and the ``param`` that was wrong."""

    def __init__(self, status: int, body: bytes) -> None:
        try:
            self.error: dict[str, Any] = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError):
            self.error = {"message": f"the server answered {status}, not in Turnstone's words"}
        super().__init__(self.error["message"])
        self.status = status
        self.code: str | None = self.error.get("code")
        self.param: str | None = self.error.get("param")


class Call(NamedTuple, Generic[T]):
    """One request, and the shape of its answer."""

    method: str
    path: str
    shape: type[T]
    body: Mapping[str, Any] | None = None
    query: Mapping[str, Any] | None = None
    key: str | None = None

    def request(self) -> dict[str, Any]:
        """Return the arguments of httpx's ``request``, the same for every try."""
        found: dict[str, Any] = {"method": self.method, "url": self.path}
        if self.query is not None:
            found["params"] = {name: value for name, value in self.query.items() if value is not None}
        if self.body is not None:
            found["content"] = msgspec.json.encode({k: v for k, v in self.body.items() if v is not None})
            found["headers"] = {"content-type": "application/json"}
            if self.key is not None:
                found["headers"]["idempotency-key"] = self.key
        return found

    def answer(self, status: int, body: bytes) -> T:
        """Return what came back; raises Refused."""
        if not 200 <= status < 300:
            raise Refused(status, body)
        return msgspec.json.decode(body, type=self.shape)


def wait(tried: int, status: int | None, retry_after: str | None = None) -> float | None:
    """Return how many seconds to wait before the next try, None when there is none.

    ``status`` None: no answer came. Every call may be sent again: reads change nothing, and writes carry a key.
    """
    if tried >= RETRIES or (status is not None and status not in _AGAIN):
        return None
    if retry_after is not None and retry_after.isdecimal():
        return float(retry_after)
    spread: float = random.uniform(0.5, 1.0)  # noqa: S311 - so that not all come back at once
    return min(_LONGEST_WAIT, 0.25 * 2.0**tried) * spread


def conversation(name: str, rest: str = "") -> str:
    """Return a path below a conversation."""
    return f"/v1/conversations/{quote(name, safe='')}{rest}"


def create_conversation(
    user: str | None, metadata: Mapping[str, Any] | None, origin_id: str | None, key: str | None
) -> Call[Conversation]:
    body = {"user": user, "metadata": metadata, "origin_id": origin_id}
    return Call("POST", "/v1/conversations", Conversation, body, key=key or str(uuid4()))


def append(
    name: str, events: Sequence[Mapping[str, Any]], expected_head: int | None, key: str | None
) -> Call[Appended]:
    body = {"events": list(events), "expected_head": expected_head}
    return Call("POST", conversation(name, "/events"), Appended, body, key=key or str(uuid4()))


def events(name: str, after_seq: int, before_seq: int | None, limit: int, order: str) -> Call[Page]:
    query = {"after_seq": after_seq, "before_seq": before_seq, "limit": limit, "order": order}
    return Call("GET", conversation(name, "/events"), Page, query=query)


def context(
    name: str, budget_tokens: int | None, min_seq: int | None, used: Sequence[int], more: Mapping[str, Any]
) -> Call[Context]:
    if "format" in more:
        raise TypeError("a context is of events; ask for the messages of an API with prompt()")
    return Call("POST", conversation(name, "/context"), Context, _asked(budget_tokens, min_seq, used, more))


def prompt(
    name: str, api: Api, budget_tokens: int | None, min_seq: int | None, used: Sequence[int], more: Mapping[str, Any]
) -> Call[Prompt]:
    body = _asked(budget_tokens, min_seq, used, more) | {"format": api}
    return Call("POST", conversation(name, "/context"), Prompt, body)


def _asked(
    budget_tokens: int | None, min_seq: int | None, used: Sequence[int], more: Mapping[str, Any]
) -> dict[str, Any]:
    return {"budget_tokens": budget_tokens, "min_seq": min_seq, "used": list(used) or None, **more}


def search(
    query: str, user: str | None, conversation_id: str | None, k: int, type_: str | None, more: Mapping[str, Any]
) -> Call[Answers]:
    body = {"query": query, "user": user, "conversation_id": conversation_id, "k": k, "type": type_, **more}
    return Call("POST", "/v1/search", Answers, body)


class Lines:
    """Server-sent events, line by line; ``last`` is the seq to resume after."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.ended = False
        self._data = ""
        self._kind = ""

    def take(self, line: str) -> Event | None:
        """Take a line, and return the event that it completes."""
        name, _, value = line.partition(": ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data = value
        elif not line and self._data:
            data, kind, self._data, self._kind = self._data, self._kind, "", ""
            if kind == "deleted":
                self.ended = True
                return None
            event = msgspec.json.decode(data, type=Event)
            self.last = event.seq
            return event
        return None
