"""Following a conversation as it grows, on this server or on any other.

A follower reads by seq, so it misses nothing whatever wakes it: seqs of one conversation are committed in order,
without gaps. Waking is only a hint. Appends of this process wake its own followers at once; other processes learn of
them by one coalesced NOTIFY a tick (one per append takes a global lock at each commit); and a slow poll of the followed
heads covers whatever a hint missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from contextlib import suppress
from typing import Final

import psycopg

from server.database.connections import Database
from server.database.ids import ConversationId, parse_conversation_id

logger = logging.getLogger(__name__)

CHANNEL: Final = "turnstone_appended"
TICK: Final = 0.03  # seconds between two notifications of one process
POLL: Final = 1.0  # seconds: the longest that a follower sleeps on a lost hint
_PAYLOAD: Final = 7900  # bytes; PostgreSQL allows 8000


class Follower:
    """Wakes who follows a conversation; one for each process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: defaultdict[ConversationId, set[asyncio.Event]] = defaultdict(set)
        self._appended: set[ConversationId] = set()
        self._pending = asyncio.Event()

    def appended(self, conversation: ConversationId) -> None:
        """Wake this process's followers, and the other processes soon."""
        self._wake(conversation)
        self._appended.add(conversation)
        self._pending.set()

    def _wake(self, conversation: ConversationId) -> None:
        for event in self._waiting.get(conversation, ()):
            event.set()

    def subscribe(self, conversation: ConversationId) -> asyncio.Event:
        """Return an event that is set whenever the conversation may have grown."""
        event = asyncio.Event()
        self._waiting[conversation].add(event)
        return event

    def unsubscribe(self, conversation: ConversationId, event: asyncio.Event) -> None:
        """Forget a subscription."""
        subscribers = self._waiting[conversation]
        subscribers.discard(event)
        if not subscribers:
            del self._waiting[conversation]

    async def run(self) -> None:
        """Tell and hear other processes until cancelled; a broken connection is opened anew."""
        while True:
            try:
                conninfo = self._database.address.conninfo("turnstone_runtime")
                async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    await self._exchange(connection)
            except psycopg.Error as error:
                logger.info("followers fall back to polling: %s", str(error).strip())
            # Whatever was told while nobody listened here is made up for by a wake of everyone.
            for conversation in list(self._waiting):
                self._wake(conversation)
            await asyncio.sleep(POLL)

    async def _exchange(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK if self._appended else 0.2):
                    await self._pending.wait()
            self._pending.clear()
            if self._appended:
                names = [str(conversation) for conversation in self._appended]
                self._appended.clear()
                each = len(names[0]) + 1
                for start in range(0, len(names), _PAYLOAD // each):
                    payload = " ".join(names[start : start + _PAYLOAD // each])
                    await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))
            async for notice in connection.notifies(timeout=TICK):
                for name in notice.payload.split():
                    if conversation := parse_conversation_id(name):
                        self._wake(conversation)
