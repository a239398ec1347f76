"""Random stories of a tenant's conversations, and the plain fold that says what each should come to."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import psycopg
from msgspec import Raw

from schema.vocabulary import EventType
from server.context import touches
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.errors import InvalidInput
from server.log import erase, retention
from server.log.append import Appender
from server.log.conversations import create, describe, fork
from server.log.events import NewEvent
from server.log.read import read_range, read_state
from server.log.stored import StoredEvent
from server.working_set.fold import Fold
from server.working_set.items import Item, Touch, measure

POLICIES = ("importance", "recoverable", "sieve", "lru", "tool_first", "fifo")
WORDS = ["always", "lisbon", "kettle", "invoice", "1999", "never", "it", "tomorrow", "actually", "moved", "the", "of"]
ORDERS = [
    "Always answer in French.",
    "From now on, answer in German.",
    "I'm vegetarian.",
    "Never call me before nine.",
    "I hate kettles.",
]
KINDS: list[EventType] = ["message", "message", "message", "message", "message", "message", "message"]
KINDS += ["tool_call", "tool_call", "tool_result", "tool_result", "tool_result"]
KINDS += ["constraint", "summary", "pin", "unpin", "working_set", "reasoning"]
CALL_EVENTS = 64


@dataclass(eq=False)
class Told:
    """A conversation of the story, with the touches that count for it: position and seqs, in order."""

    id: ConversationId
    touches: list[tuple[int, list[int]]] = field(default_factory=list)


class Story:
    """Does random things to a tenant's conversations, through the doors that a server uses."""

    def __init__(
        self, seed: int, address: EmbeddedAddress, database: Database, tenant: Tenant, appenders: list[Appender]
    ) -> None:
        self.random = random.Random(seed)
        self.told: list[Told] = []
        self._address = address
        self._database = database
        self._tenant = tenant
        self._appenders = appenders

    async def begin(self) -> None:
        conversation = await create(self._database, self._tenant)
        self.told.append(Told(conversation.id))

    async def go_on(self) -> Told:
        """Do one thing, and return the conversation that it was done to."""
        one = self.random.choice(self.told)
        state = await read_state(self._database, self._tenant, one.id)
        kinds = ["append"] * 9 + ["touch"] * 4 + ["erase"] + ["fork"] * (len(self.told) < 6) + ["expire", "delete"]
        match self.random.choice(kinds):
            case "touch" if state.head:
                seqs = [self.random.randint(1, state.head) for _ in range(self.random.randint(1, 4))]
                await touches.record(self._database, self._tenant, one.id, seqs)
                one.touches.append((state.head, list(dict.fromkeys(seqs))))
            case "erase" if state.head > state.floor:
                seq = self.random.randint(state.floor + 1, state.head)
                with suppress(InvalidInput):  # an erasure event cannot be erased
                    await erase.erase_event(self._database, self._tenant, one.id, seq, actor="story")
            case "fork":
                at = self.random.randint(0, state.head)
                made = await fork(self._database, self._tenant, one.id, at)
                self.told.append(Told(made.id, [touch for touch in one.touches if touch[0] < at]))
            case "delete" if len(self.told) > 3:
                await erase.erase_conversation(self._database, self._tenant, one.id, actor="story")
                self.told.remove(one)
                one = self.random.choice(self.told)
            case "expire" if state.head > 30 and self.random.random() < 0.3:
                await self._expire(one.id, state.head // 4)
            case _:
                events = [self._event(state.head + place) for place in range(self.random.randint(1, 9))]
                await self.random.choice(self._appenders).append(self._tenant, one.id, events)
        return one

    async def _expire(self, conversation: ConversationId, seq: int) -> None:
        with psycopg.connect(self._address.conninfo("admin"), autocommit=True) as connection:
            connection.execute(
                "UPDATE event SET recorded_at = recorded_at - interval '40 days' WHERE conversation = %s AND seq <= %s",
                (conversation.uuid, seq),
            )
        await describe(self._database, self._tenant, conversation, retention_days=30)
        await retention.run(self._database, self._tenant)

    def _event(self, head: int) -> NewEvent:
        chance = self.random
        kind: EventType = chance.choice(KINDS)
        text = " ".join(chance.choice(WORDS) for _ in range(chance.randint(1, 30)))
        event = NewEvent(type=kind, content=_json(text))
        match kind:
            case "message":
                event.role = chance.choice(["user", "assistant"])
                if chance.random() < 0.2:
                    event.content = _json(chance.choice(ORDERS))
                event.call_id = chance.choice([None, None, None, "c1"])
            case "tool_call" | "tool_result":
                event.name, event.call_id = "tool", f"c{chance.randint(1, 12)}"
            case "summary":
                first = chance.randint(1, head + 1)
                covers = {"first_seq": first, "last_seq": first + chance.randint(0, 12)}
                event.content = _json({"text": text, "covers": covers})
            case "pin" | "unpin":
                event.content = _json({"seq": chance.randint(1, head + 3)})
            case "working_set":
                event.content = _json(
                    {"policy": chance.choice(POLICIES), "budget_tokens": chance.choice([60, 200, 500])}
                )
            case "constraint" if chance.random() < 0.5:
                state = chance.choice(["confirmed", "confirmed", "dismissed"])
                event.content = _json({"seq": chance.randint(1, head + 3), "state": state})
            case "constraint":
                event.role = "user"
        return event


def _json(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))


async def plainly(
    database: Database, tenant: Tenant, one: Told, until: int | None = None
) -> tuple[Fold, dict[int, StoredEvent]]:
    """Fold what a conversation shows from its floor on, one step after the other; returns its events too."""
    state = await read_state(database, tenant, one.id)
    head = state.head if until is None else until
    page = await read_range(database, tenant, one.id, limit=100_000)
    events = {event.seq: event for event in page.events if event.seq <= head}
    items = {item.seq: item for item in measure(list(events.values()))}
    erased = {event.seq for event in events.values() if event.erased_at is not None}

    def told(item: Item, before: int) -> Item:
        covered = item.covers and set(range(item.covers.first_seq, item.covers.last_seq + 1))
        stale = bool(covered and any(seq in covered and seq < min(item.seq, before + 1) for seq in erased))
        return msgspec.structs.replace(item, stale=stale and not item.erased)

    def named(seq: int, before: int) -> tuple[Item, ...]:
        event = events.get(seq)
        if event is None or seq > before or seq in erased:
            return ()
        found = [seq]
        if event.type.startswith("tool_"):
            same = [one.seq for one in events.values() if one.call_id == event.call_id and one.type.startswith("tool_")]
            found = sorted(seq for seq in same if seq <= before)[:CALL_EVENTS]
        return tuple(told(items[seq], before) for seq in found)

    fold = Fold(start=min(state.floor, head))
    for seq in range(fold.head, head + 1):
        if seq > fold.head:
            item = told(items[seq], seq - 1)
            if item.type == "pin":
                item = msgspec.structs.replace(item, named=named(item.seq_named or 0, seq - 1))
            if item.decision is not None:
                item = msgspec.structs.replace(item, named=named(item.decision.seq, seq - 1))
            fold.apply(item)
        for at, seqs in one.touches:
            if at == seq > state.floor:
                for touched in seqs:
                    fold.touch(Touch(seq=touched, at=at, named=named(touched, at)))
    return fold, events
