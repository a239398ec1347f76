"""Appends: durable when they return, in order, all or nothing.

Requests that arrive while a transaction is in flight share the next one, so that under load many appends share one
commit. Requests of different conversations never wait for each other's row locks longer than that one statement.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import psycopg

from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId, EventId, keyed_hash
from server.database.round_trip import SETTING_TENANT, HotConnection, array, round_trip
from server.database.tenant import Tenant
from server.errors import DatabaseUnavailable, IdConflict, IdempotencyMismatch, NotFound, StaleHead
from server.log import statements
from server.log.events import NewEvent, digest
from server.log.lineage import Lineage
from server.operations import metrics

MAX_BATCH_REQUESTS = 256
MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_WAITING_BYTES = 64 * 1024 * 1024  # beyond this a process answers 503 rather than grow


class Appended(NamedTuple):
    """What an append answers: each event's owner and seq in the order sent, and the head that it left."""

    events: list[EventId]
    head: int
    replayed: bool = False


class Idempotency(NamedTuple):
    """Keyed hashes of an Idempotency-Key (within its conversation) and of the body that came with it."""

    key: bytes
    body: bytes

    @classmethod
    def of(cls, tenant: Tenant, conversation: ConversationId, key: str, body: bytes) -> Idempotency:
        return cls(
            keyed_hash(tenant.salt, "idempotency", conversation.uuid.bytes, key), keyed_hash(tenant.salt, "body", body)
        )


@dataclass(eq=False, slots=True)
class _Request:
    tenant: Tenant
    conversation: ConversationId
    events: list[NewEvent]
    expected_head: int | None
    idempotency: Idempotency | None
    size: int
    answer: asyncio.Future[Appended]

    @property
    def stands_alone(self) -> bool:
        """Whether its conversation may get nothing else from the same batch, since it may be refused or replayed."""
        return self.expected_head is not None or self.idempotency is not None


@dataclass(eq=False, slots=True)
class _Unit:
    """What one conversation gets from one batch."""

    requests: list[_Request] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(len(request.events) for request in self.requests)


class _Row(msgspec.Struct, omit_defaults=True):
    ord: int
    pos: int
    type: str
    role: str | None = None
    content: str | None = None
    metadata: str | None = None
    occurred_at: Any = None
    client_key: str | None = None
    client_digest: str | None = None
    client_id: str | None = None
    name: str | None = None
    call_id: str | None = None
    session: str | None = None
    run_id: str | None = None


_encode = msgspec.json.Encoder().encode


def _bytea(data: bytes) -> str:
    return "\\x" + data.hex()


class Appender:
    """Appends for one process; ``lanes`` is how many shared transactions may be in flight at once."""

    def __init__(self, database: Database, *, lanes: int = 2) -> None:
        self._database = database
        self._lanes = lanes
        self._waiting: deque[_Request] = deque()
        self._waiting_bytes = 0
        self._busy: set[ConversationId] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def append(
        self,
        tenant: Tenant,
        conversation: ConversationId,
        events: list[NewEvent],
        *,
        expected_head: int | None = None,
        idempotency: Idempotency | None = None,
    ) -> Appended:
        """Append events (already validated) atomically, and return when they are durable.

        Raises NotFound, StaleHead (with the true head), IdConflict, IdempotencyMismatch, or DatabaseUnavailable: then
        the events are stored or not, never half, and the same request with the same Idempotency-Key settles it.
        """
        if any(event.id is not None for event in events):
            named = await self._append_named(tenant, conversation, events, expected_head, idempotency)
            metrics.observe_append(len(events), replayed=named.replayed)
            return named
        size = sum(event.size for event in events)
        if self._waiting_bytes + size > MAX_WAITING_BYTES:
            raise DatabaseUnavailable("too many appends are waiting for the database; try again", retry_after=1)
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(tenant, conversation, events, expected_head, idempotency, size, future))
        self._waiting_bytes += size
        self._start_lane()
        appended = await future
        metrics.observe_append(len(events), replayed=appended.replayed)
        return appended

    async def drain(self) -> None:
        """Wait until everything that was accepted is answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start_lane(self) -> None:
        if len(self._tasks) < self._lanes:
            task = asyncio.create_task(self._run_lane())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run_lane(self) -> None:
        # Requests that are already readable on other sockets join this batch instead of paying for one of their own.
        await asyncio.sleep(0)
        while batch := self._take():
            try:
                await self._commit_each(batch)
            finally:
                self._busy.difference_update(unit.requests[0].conversation for unit in batch)

    async def _commit_each(self, batch: list[_Unit]) -> None:
        """Commit a batch as one; when that fails though the database is there, let no unit suffer for another."""
        try:
            await self._commit(batch)
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, DatabaseUnavailable):
                for unit in batch:
                    await self._commit_each([unit])
                return
            for request in (request for unit in batch for request in unit.requests):
                if not request.answer.done():
                    request.answer.set_exception(error)

    def _take(self) -> list[_Unit]:
        """Take the next batch: one tenant's oldest requests, of conversations that no other lane is writing to."""
        units: dict[ConversationId, _Unit] = {}
        left: deque[_Request] = deque()
        closed: set[ConversationId] = set()
        tenant: Tenant | None = None
        taken = size = 0
        while self._waiting and taken < MAX_BATCH_REQUESTS and size < MAX_BATCH_BYTES:
            request = self._waiting.popleft()
            if request.answer.done():  # its client has gone
                self._waiting_bytes -= request.size
                continue
            at = request.conversation
            alone = request.stands_alone
            if (
                (tenant is not None and request.tenant.id != tenant.id)
                or at in self._busy
                or at in closed
                or (alone and at in units)
            ):
                closed.add(at)  # what comes later for this conversation must not overtake
                left.append(request)
                continue
            tenant = request.tenant
            units.setdefault(at, _Unit()).requests.append(request)
            if alone:
                closed.add(at)
            taken += 1
            size += request.size
            self._waiting_bytes -= request.size
        left.extend(self._waiting)
        self._waiting = left
        self._busy.update(units)
        return list(units.values())

    async def _commit(self, units: list[_Unit]) -> None:
        tenant = units[0].requests[0].tenant
        rows, unit_rows = [], []
        for number, unit in enumerate(units):
            first = unit.requests[0]
            unit_rows.append(_unit_row(number, first, unit.count))
            events = [event for request in unit.requests for event in request.events]
            rows += [_row(number, position, event) for position, event in enumerate(events, 1)]
        # A single plain unit is locked by its own UPDATE. What is looked up or compared (a key, a head) needs a
        # snapshot that is younger than the lock, and several units need one order of locking.
        lock = len(units) > 1 or units[0].requests[0].stands_alone
        async with hot_connection(self._database) as connection:
            outcome = await _transact(
                connection, tenant, [u.requests[0].conversation for u in units] if lock else [], unit_rows, rows
            )
        for unit, result in zip(units, outcome, strict=True):
            _answer(unit, result)

    async def _append_named(
        self,
        tenant: Tenant,
        conversation: ConversationId,
        events: list[NewEvent],
        expected_head: int | None,
        idempotency: Idempotency | None,
    ) -> Appended:
        """Append events of which some carry the caller's ids: those that are stored already are not stored again."""
        hashes = [_hashes(tenant, event) if event.id is not None else None for event in events]
        async with hot_connection(self._database) as connection, connection.transaction():
            at = {"user_key": conversation.user_key, "id": conversation.uuid, "tenant": tenant.id}
            locking = statements.LOCKING({"keys": array([conversation.user_key]), "ids": array([conversation.uuid])})
            state = await round_trip(connection, [SETTING_TENANT(at), locking, statements.LINEAGE(at)])
            if not state:
                raise NotFound("no such conversation")
            head, _, owners, ends = state[0]
            lineage = Lineage(owners or [], ends or [])
            taken = await self._taken(connection, tenant, conversation, lineage, [pair[0] for pair in hashes if pair])
            answer: list[EventId] = []
            fresh: list[_Row] = []
            for index, (event, pair) in enumerate(zip(events, hashes, strict=True)):
                original = taken.get(pair[0]) if pair else None
                if pair and original is not None:
                    if original[0] != pair[1]:
                        raise IdConflict(
                            f"the id {event.id!r} is taken by an event with another body", param=f"events[{index}].id"
                        )
                    answer.append(original[1])
                    continue
                row = _row(0, len(fresh) + 1, event)
                if pair and event.id is not None:
                    _name(row, event.id, *pair)
                fresh.append(row)
                answer.append(EventId(conversation.uuid, head + len(fresh)))
            expected = expected_head if fresh else None  # a retry of what is stored cannot be stale
            unit = _Request(tenant, conversation, [], expected, idempotency, 0, asyncio.Future())
            unit_row = _unit_row(0, unit, len(fresh)) | {"seqs": [event.seq for event in answer]}
            writing = statements.WRITING(_parameters(tenant, [unit_row], fresh))
            (result,) = await round_trip(connection, [writing])
            written = _outcome(unit, result)
        if written.replayed:
            answer = [EventId(lineage.owner(conversation.uuid, seq), seq) for _, seq in written.events]
        return Appended(answer, written.head, replayed=written.replayed or not fresh)

    async def _taken(
        self,
        connection: HotConnection,
        tenant: Tenant,
        conversation: ConversationId,
        lineage: Lineage,
        keys: list[bytes],
    ) -> dict[bytes, tuple[bytes, EventId]]:
        values = {
            "user_key": conversation.user_key,
            "owners": array([conversation.uuid, *lineage.owners]),
            "keys": array('"\\\\x' + key.hex() + '"' for key in keys),
            "tenant": tenant.id,
        }
        return {
            bytes(key): (bytes(hashed), EventId(owner, seq))
            for key, hashed, owner, seq in await round_trip(connection, [statements.TAKEN(values)])
            if lineage.owner(conversation.uuid, seq) == owner
        }


async def append_first(
    connection: psycopg.AsyncConnection[Any], tenant: Tenant, conversation: ConversationId, events: Sequence[NewEvent]
) -> None:
    """Append a conversation's first events in the transaction that creates it."""
    request = _Request(tenant, conversation, [], None, None, 0, asyncio.Future())
    rows = []
    for position, event in enumerate(events, 1):
        row = _row(0, position, event)
        if event.id is not None:
            _name(row, event.id, *_hashes(tenant, event))
        rows.append(row)
    await connection.execute(statements.WRITE, _parameters(tenant, [_unit_row(0, request, len(rows))], rows))


def _hashes(tenant: Tenant, event: NewEvent) -> tuple[bytes, bytes]:
    """Return the keyed hashes of the caller's id and of the body sent under it."""
    assert event.id is not None
    return keyed_hash(tenant.salt, "client_id", event.id), digest(tenant.salt, event)


def _name(row: _Row, client_id: str, key: bytes, hashed: bytes) -> None:
    row.client_id, row.client_key, row.client_digest = client_id, _bytea(key), _bytea(hashed)


def _unit_row(number: int, request: _Request, count: int) -> dict[str, Any]:
    idempotency = request.idempotency
    return {
        "ord": number,
        "user_key": request.conversation.user_key,
        "id": request.conversation.uuid,
        "n": count,
        "expected": request.expected_head,
        "key": _bytea(idempotency.key) if idempotency else None,
        "body": _bytea(idempotency.body) if idempotency else None,
    }


def _row(unit: int, position: int, event: NewEvent) -> _Row:
    return _Row(
        unit,
        position,
        event.type,
        event.role,
        _text(event.content),
        _text(event.metadata),
        event.occurred_at,
        name=event.name,
        call_id=event.call_id,
        session=event.session,
        run_id=event.run_id,
    )


def _text(json: msgspec.Raw | msgspec.UnsetType) -> str | None:
    return None if isinstance(json, msgspec.UnsetType) else str(bytes(json), "utf-8")


def _parameters(tenant: Tenant, units: list[dict[str, Any]], rows: list[_Row]) -> dict[str, Any]:
    return {"tenant": tenant.id, "units": _encode(units).decode(), "events": _encode(rows).decode()}


async def _transact(
    connection: HotConnection,
    tenant: Tenant,
    lock: list[ConversationId],
    units: list[dict[str, Any]],
    rows: list[_Row],
) -> list[tuple[Any, ...]]:
    calls = [SETTING_TENANT({"tenant": tenant.id})]
    if lock:
        keys, ids = zip(*lock, strict=True)
        calls.append(statements.LOCKING({"keys": array(keys), "ids": array(ids)}))
    calls.append(statements.WRITING({"tenant": tenant.id, "units": _encode(units), "events": _encode(rows)}))
    return await round_trip(connection, calls)


def _outcome(request: _Request, result: tuple[Any, ...]) -> Appended:
    _, base, head, prior_seqs, prior_head, prior_body, found = result
    conversation = request.conversation.uuid
    if prior_seqs is not None:
        assert request.idempotency is not None
        if bytes(prior_body) != request.idempotency.body:
            raise IdempotencyMismatch(
                "this Idempotency-Key was used with another body in this conversation; use a new key for a new request",
                param="Idempotency-Key",
            )
        return Appended([EventId(conversation, seq) for seq in prior_seqs], prior_head, replayed=True)
    if found is None:
        raise NotFound("no such conversation")
    if head is None and request.expected_head is None:  # deleted between this statement's snapshot and its UPDATE
        raise NotFound("no such conversation")
    if head is None:
        raise StaleHead(
            f"expected_head is {request.expected_head}, but the head is {found}; read what came between and try again",
            param="expected_head",
            details={"head": found},
        )
    return Appended([EventId(conversation, seq) for seq in range(base + 1, head + 1)], head)


def _answer(unit: _Unit, result: tuple[Any, ...]) -> None:
    """Give each request of a unit its own share of the unit's seqs."""
    try:
        outcome = _outcome(unit.requests[0], result)
    except Exception as error:
        for request in unit.requests:
            if not request.answer.done():
                request.answer.set_exception(error)
        return
    if len(unit.requests) == 1:
        if not unit.requests[0].answer.done():
            unit.requests[0].answer.set_result(outcome)
        return
    start = 0
    for request in unit.requests:
        events = outcome.events[start : start + len(request.events)]
        start += len(request.events)
        if not request.answer.done():
            request.answer.set_result(Appended(events, events[-1].seq))
