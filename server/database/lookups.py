"""Look-ups that many ask for at once, in one round trip.

A request that arrives while a look-up is in flight joins the next one, never that one: its answer is then at least as
new as the request itself, and so shows every append that was acknowledged, and no text whose erasure was, before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from server.errors import NotFound

Kind = TypeVar("Kind", bound=Hashable)
Key = TypeVar("Key")
Answer = TypeVar("Answer")


@dataclass(eq=False, slots=True)
class _Request(Generic[Kind, Key, Answer]):
    kind: Kind
    key: Key
    answer: asyncio.Future[Answer]


class Lookups(Generic[Kind, Key, Answer]):
    """For one process. ``look_up`` answers keys of one kind, in their order, None for what there is not.

    ``at_once``: the most keys of one round trip; ``lanes``: how many may be in flight at once.
    """

    def __init__(
        self,
        look_up: Callable[[Kind, Sequence[Key]], Awaitable[Sequence[Answer | None]]],
        *,
        at_once: int,
        lanes: int = 2,
    ) -> None:
        self._look_up = look_up
        self._at_once = at_once
        self._lanes = lanes
        self._waiting: deque[_Request[Kind, Key, Answer]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, kind: Kind, key: Key) -> Answer:
        """Return an answer as of some moment after this call.

        Raises NotFound, as for a conversation, where there is none, and what ``look_up`` raises.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(kind, key, answer))
        if len(self._tasks) < self._lanes:
            task = asyncio.create_task(self._run_lane())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await answer

    async def _run_lane(self) -> None:
        while batch := self._take():
            try:
                answers = await self._look_up(batch[0].kind, [request.key for request in batch])
            except Exception as error:
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(error)
                continue
            for request, answer in zip(batch, answers, strict=True):
                if request.answer.done():
                    continue
                if answer is None:
                    request.answer.set_exception(NotFound("no such conversation"))
                else:
                    request.answer.set_result(answer)

    def _take(self) -> list[_Request[Kind, Key, Answer]]:
        """Take the next batch: requests of the oldest one's kind."""
        batch: list[_Request[Kind, Key, Answer]] = []
        left: deque[_Request[Kind, Key, Answer]] = deque()
        while self._waiting and len(batch) < self._at_once:
            request = self._waiting.popleft()
            if request.answer.done():  # its client has gone
                continue
            if batch and request.kind != batch[0].kind:
                left.append(request)
            else:
                batch.append(request)
        left.extend(self._waiting)
        self._waiting = left
        return batch
