"""What is embedded next: conversations as a look through the log finds them, newest first, in batches of one tenant."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.embeddings.sweep import Page

_CONVERSATIONS: Final = 256  # in one batch


class Batch(NamedTuple):
    """Conversations of one tenant that are read at once."""

    tenant: Tenant
    conversations: list[ConversationId]


class Queue:
    """Shared by the tasks of one worker; it ends where ``pages`` do."""

    def __init__(self, pages: AsyncIterator[Page]) -> None:
        self._pages = pages
        self._entries: deque[tuple[Tenant, ConversationId, int]] = deque()
        self._looking = asyncio.Lock()

    async def take(self, texts: int) -> Batch | None:
        """Return conversations with about so many events, or one that has more; None when there are none left."""
        async with self._looking:
            while not self._entries:
                page = await anext(self._pages, None)
                if page is None:
                    return None
                self._entries.extend((page.tenant, at, events) for at, events in page.conversations.items())
        tenant, first, total = self._entries.popleft()
        batch = Batch(tenant, [first])
        while self._entries and len(batch.conversations) < _CONVERSATIONS:
            other, at, events = self._entries[0]
            if other.id != tenant.id or total + events > texts:
                break
            total += events
            batch.conversations.append(at)
            self._entries.popleft()
        return batch

    def put_back(self, tenant: Tenant, conversation: ConversationId, events: int) -> None:
        """Go on with a conversation before any older one."""
        self._entries.appendleft((tenant, conversation, events))
