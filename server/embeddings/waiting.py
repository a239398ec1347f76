"""Which conversations may have events without a vector: hints, in bounded memory. What is pending the log says."""

from __future__ import annotations

import time
from collections import OrderedDict
from enum import IntEnum
from itertools import islice
from typing import Final, NamedTuple

from server.database.ids import ConversationId
from server.database.tenant import Tenant

_LOOKED_AT: Final = 1000  # entries of other tenants that a take passes over


class Urgency(IntEnum):
    """What goes first: a search waits for it; it was just appended; it was found waiting."""

    ASKED = 0
    FRESH = 1
    BACKLOG = 2


class _Entry(NamedTuple):
    tenant: Tenant
    events: int
    since: float
    base: int


class Taken(NamedTuple):
    """What is worked on next; ``bases`` are the conversations', as they were added."""

    tenant: Tenant
    urgency: Urgency
    conversations: list[ConversationId]
    bases: list[int]


class Waiting:
    """Conversations by urgency, each once, first come first served; beyond ``limit`` they are only counted as lost."""

    def __init__(self, limit: int = 50_000) -> None:
        self._limit = limit
        self._entries: dict[Urgency, OrderedDict[ConversationId, _Entry]] = {
            urgency: OrderedDict() for urgency in Urgency
        }
        self.events = 0
        self.lost = False

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    @property
    def fresh(self) -> int:
        """About how many events wait that were just appended, or that a search waits for."""
        return sum(
            max(1, entry.events)
            for urgency in (Urgency.ASKED, Urgency.FRESH)
            for entry in self._entries[urgency].values()
        )

    @property
    def seconds(self) -> float:
        """How long the first of the fresh ones has been waiting."""
        fresh = self._entries[Urgency.FRESH]
        return time.monotonic() - next(iter(fresh.values())).since if fresh else 0.0

    @property
    def urgent(self) -> bool:
        """Whether a search waits."""
        return bool(self._entries[Urgency.ASKED])

    def add(
        self, tenant: Tenant, conversation: ConversationId, urgency: Urgency, events: int = 0, base: int = 0
    ) -> None:
        """Add a conversation, or raise its urgency.

        ``events`` is how many more it is thought to have; ``base``: it matters only if all up to there is embedded. Of
        several bases the lowest counts.
        """
        for level, entries in self._entries.items():
            entry = entries.get(conversation)
            if entry is not None:
                self.events += events
                entry = entry._replace(events=entry.events + events, base=min(entry.base, base))
                if level <= urgency:
                    entries[conversation] = entry
                else:
                    del entries[conversation]
                    self._entries[urgency][conversation] = entry
                return
        if urgency is not Urgency.ASKED and len(self) >= self._limit:
            self.lost = True
            return
        self.events += events
        self._entries[urgency][conversation] = _Entry(tenant, events, time.monotonic(), base)

    def take(self, count: int) -> Taken | None:
        """Take up to ``count`` conversations of one urgency and one tenant, most urgent first; None when empty."""
        for urgency, entries in self._entries.items():
            if not entries:
                continue
            tenant = next(iter(entries.values())).tenant
            looked_at = islice(entries.items(), _LOOKED_AT)
            mine = list(islice((at for at, entry in looked_at if entry.tenant.id == tenant.id), count))
            taken = [entries.pop(conversation) for conversation in mine]
            self.events -= sum(entry.events for entry in taken)
            return Taken(tenant, urgency, mine, [entry.base for entry in taken])
        return None
