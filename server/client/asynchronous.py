"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import httpx

from server.client import calls
from server.client.calls import Api, Call, Lines, Refused, conversation, wait
from server.client.shapes import Answers, Appended, Context, Conversation, Event, Page, Prompt

T = TypeVar("T")


class AsyncTurnstone:
    """A server at a URL, with an API key. Every call raises Refused, or httpx.TransportError when retries are spent."""

    def __init__(self, url: str, key: str, *, timeout: float = 30.0) -> None:
        self._http = httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=timeout)

    async def __aenter__(self) -> AsyncTurnstone:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._http.aclose()

    async def create_conversation(
        self,
        *,
        user: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        origin_id: str | None = None,
        key: str | None = None,
    ) -> Conversation:
        """Create a conversation."""
        return await self._send(calls.create_conversation(user, metadata, origin_id, key))

    async def append(
        self,
        name: str,
        events: Sequence[Mapping[str, Any]],
        *,
        expected_head: int | None = None,
        key: str | None = None,
    ) -> Appended:
        """Append events to a conversation, all or none; ``key`` is the Idempotency-Key, by default a new one."""
        return await self._send(calls.append(name, events, expected_head, key))

    async def events(
        self, name: str, *, after_seq: int = 0, before_seq: int | None = None, limit: int = 50, order: str = "asc"
    ) -> Page:
        """Read a range of a conversation's log."""
        return await self._send(calls.events(name, after_seq, before_seq, limit, order))

    async def context(
        self,
        name: str,
        *,
        budget_tokens: int | None = None,
        min_seq: int | None = None,
        used: Sequence[int] = (),
        **more: Any,
    ) -> Context:
        """Ask what a model should see of a conversation."""
        return await self._send(calls.context(name, budget_tokens, min_seq, used, more))

    async def prompt(
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
        return await self._send(calls.prompt(name, api, budget_tokens, min_seq, used, more))

    async def search(
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
        return await self._send(calls.search(query, user, conversation_id, k, type, more))

    async def stream(self, name: str, *, after_seq: int = 0) -> AsyncIterator[Event]:
        """Follow a conversation from a seq on, across lost connections, until it is deleted or you stop."""
        lines, tried = Lines(after_seq), 0
        while not lines.ended:
            status, retry_after = None, None
            try:
                path = conversation(name, "/events/stream")
                async with self._http.stream("GET", path, headers={"last-event-id": str(lines.last)}) as answer:
                    if not answer.is_success:
                        status, retry_after = answer.status_code, answer.headers.get("retry-after")
                        raise Refused(status, await answer.aread())
                    async for line in answer.aiter_lines():
                        event = lines.take(line)
                        if event is not None:
                            tried = 0
                            yield event
            except (httpx.TransportError, Refused):
                seconds = wait(tried, status, retry_after)
                if seconds is None:
                    raise
                await asyncio.sleep(seconds)
                tried += 1

    async def _send(self, call: Call[T]) -> T:
        request, tried = call.request(), 0
        while True:
            try:
                answer = await self._http.request(**request)
            except httpx.TransportError:
                seconds = wait(tried, None)
                if seconds is None:
                    raise
            else:
                seconds = wait(tried, answer.status_code, answer.headers.get("retry-after"))
                if seconds is None:
                    return call.answer(answer.status_code, answer.content)
            await asyncio.sleep(seconds)
            tried += 1
