"""The client that waits for its answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import httpx

from server.client import calls
from server.client.calls import Api, Call, Lines, Refused, conversation, wait
from server.client.shapes import Answers, Appended, Context, Conversation, Event, Page, Prompt

T = TypeVar("T")


class Turnstone:
    """A server at a URL, with an API key. Every call raises Refused, or httpx.TransportError when retries are spent."""

    def __init__(self, url: str, key: str, *, timeout: float = 30.0) -> None:
        self._http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=timeout)

    def __enter__(self) -> Turnstone:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._http.close()

    def create_conversation(
        self,
        *,
        user: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        origin_id: str | None = None,
        key: str | None = None,
    ) -> Conversation:
        """Create a conversation."""
        return self._send(calls.create_conversation(user, metadata, origin_id, key))

    def append(
        self,
        name: str,
        events: Sequence[Mapping[str, Any]],
        *,
        expected_head: int | None = None,
        key: str | None = None,
    ) -> Appended:
        """Append events to a conversation, all or none; ``key`` is the Idempotency-Key, by default a new one."""
        return self._send(calls.append(name, events, expected_head, key))

    def events(
        self, name: str, *, after_seq: int = 0, before_seq: int | None = None, limit: int = 50, order: str = "asc"
    ) -> Page:
        """Read a range of a conversation's log."""
        return self._send(calls.events(name, after_seq, before_seq, limit, order))

    def context(
        self,
        name: str,
        *,
        budget_tokens: int | None = None,
        min_seq: int | None = None,
        used: Sequence[int] = (),
        **more: Any,
    ) -> Context:
        """Ask what a model should see of a conversation."""
        return self._send(calls.context(name, budget_tokens, min_seq, used, more))

    def prompt(
        self,
        name: str,
        api: Api,
        *,
        budget_tokens: int | None = None,
        min_seq: int | None = None,
        used: Sequence[int] = (),
        **more: Any,
    ) -> Prompt:
        """Ask what a model should see of a conversation, in the messages of its API."""
        return self._send(calls.prompt(name, api, budget_tokens, min_seq, used, more))

    def search(
        self,
        query: str,
        *,
        user: str | None = None,
        conversation_id: str | None = None,
        k: int = 10,
        type: str | None = None,  # noqa: A002 - the API's word
        **more: Any,
    ) -> Answers:
        """Find the events that may hold a question's answer."""
        return self._send(calls.search(query, user, conversation_id, k, type, more))

    def stream(self, name: str, *, after_seq: int = 0) -> Iterator[Event]:
        """Follow a conversation from a seq on, across lost connections, until it is deleted or you stop."""
        lines, tried = Lines(after_seq), 0
        while not lines.ended:
            status, retry_after = None, None
            try:
                path = conversation(name, "/events/stream")
                with self._http.stream("GET", path, headers={"last-event-id": str(lines.last)}) as answer:
                    if not answer.is_success:
                        status, retry_after = answer.status_code, answer.headers.get("retry-after")
                        raise Refused(status, answer.read())
                    for line in answer.iter_lines():
                        event = lines.take(line)
                        if event is not None:
                            tried = 0
                            yield event
            except (httpx.TransportError, Refused):
                seconds = wait(tried, status, retry_after)
                if seconds is None:
                    raise
                time.sleep(seconds)
                tried += 1

    def _send(self, call: Call[T]) -> T:
        request, tried = call.request(), 0
        while True:
            try:
                answer = self._http.request(**request)
            except httpx.TransportError:
                seconds = wait(tried, None)
                if seconds is None:
                    raise
            else:
                seconds = wait(tried, answer.status_code, answer.headers.get("retry-after"))
                if seconds is None:
                    return call.answer(answer.status_code, answer.content)
            time.sleep(seconds)
            tried += 1
