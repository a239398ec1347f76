"""Appends: durable when they return, in order, all or nothing.

Requests that arrive while a transaction is in flight share the next one, so that under load many appends share one
commit. Requests of different conversations never wait for each other's row locks longer than that one statement.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from operator import attrgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
import psycopg

from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId, EventId, keyed_hash
from server.database.round_trip import (
    SETTING_TENANT,
    Call,
    HotConnection,
    array,
    bytea_array,
    execute,
    round_trip,
    text_array,
    uuid_array,
)
from server.database.tenant import Tenant
from server.errors import DatabaseUnavailable, IdConflict, IdempotencyMismatch, NotFound, StaleHead
from server.log import statements
from server.log.events import NewEvent, deletion_of, digest
from server.log.lineage import Lineage
from server.log.retries import ABSORBING, Attempt
from server.operations import metrics

logger = logging.getLogger(__name__)

MAX_BATCH_REQUESTS = 256
MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_WAITING_BYTES = 64 * 1024 * 1024  # beyond this a process answers 503 rather than grow


class Appended(NamedTuple):
    """What an append answers: each event's owner and seq in the order sent, and the head that it left."""

    events: list[EventId]
    head: int
    replayed: bool = False


class Committed(NamedTuple):
    """Events that have just become durable: ``events[i]`` has the seq ``base + 1 + i``, and the last one ``head``.

    ``epoch``, ``floor`` and ``touches`` are the conversation's as of this commit. Events of several requests may come
    as one. The content and metadata of an event are views of the whole body that it came in, which whoever keeps them
    keeps alive: copy them (``msgspec.Raw.copy``).
    """

    tenant: Tenant
    conversation: ConversationId
    base: int
    head: int
    epoch: int
    floor: int
    touches: int
    recorded_at: datetime
    events: list[NewEvent]


Listener = Callable[[Committed], None]


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
    attempt: Attempt | None = None

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

    @property
    def events(self) -> list[NewEvent]:
        if len(self.requests) == 1:
            return self.requests[0].events
        return [event for request in self.requests for event in request.events]


class _Named(NamedTuple):
    """The keyed hashes of a caller's id and of the body sent under it."""

    key: bytes
    body: bytes


_LABELS: Final = ("client_id", "name", "call_id", "session", "run_id")
_labels: Final = attrgetter("id", "name", "call_id", "session", "run_id")
# Parameters that most appends leave NULL.
_OPTIONAL: Final = (
    *("expected", "idempotency_keys", "bodies", "seqs", "type", "metadata", "occurred_at", "client_key"),
    *("client_digest", *_LABELS),
)
_FREED = (b"", EventId(UUID(int=0), 0))  # stands for an event whose id may be used again


class Appender:
    """Appends for one process; ``lanes`` is how many shared transactions may be in flight at once.

    Each of ``on_append`` is called with what was stored right after the commit, before the answer; it must be quick,
    and what it raises is only logged. Calls for one conversation may come out of order, and one whose outcome is
    unknown (the connection broke) does not come at all: compare ``base`` with what you hold.
    """

    def __init__(self, database: Database, *, lanes: int = 2, on_append: Sequence[Listener] = ()) -> None:
        self._database = database
        self._lanes = lanes
        self._listeners = on_append
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
        attempt: Attempt | None = None,
        reuse_deleted_ids: bool = False,
    ) -> Appended:
        """Append events (already validated) atomically, and return when they are durable.

        ``attempt`` tells a retry from a new request where there is no Idempotency-Key. With ``reuse_deleted_ids`` an
        event may be sent with the id of one that was deleted: it gets one of the server's, and its ``id`` becomes None.

        Raises NotFound, StaleHead (with the true head), IdConflict, IdempotencyMismatch, or DatabaseUnavailable: then
        the events are stored or not, never half, and the same request with the same Idempotency-Key settles it.
        """
        retried = attempt is not None and attempt.number > 0
        if retried or any(event.id is not None for event in events):
            named = await self._append_named(
                _Request(tenant, conversation, events, expected_head, idempotency, 0, asyncio.Future(), attempt),
                reuse_deleted_ids=reuse_deleted_ids,
            )
            metrics.observe_append(len(events), replayed=named.replayed)
            return named
        size = sum(event.size for event in events)
        if self._waiting_bytes + size > MAX_WAITING_BYTES:
            raise DatabaseUnavailable("too many appends are waiting for the database; try again", retry_after=1)
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(tenant, conversation, events, expected_head, idempotency, size, future, attempt))
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
        firsts = [unit.requests[0] for unit in units]
        events = [unit.events for unit in units]
        values = _unit_columns(tenant, firsts, events) | _event_columns(events)
        calls = [SETTING_TENANT(values), _writing(values, [unit.requests for unit in units])]
        # A single plain unit is locked by its own UPDATE. What is looked up or compared (a key, a head) needs a
        # snapshot that is younger than the lock, and several units need one order of locking.
        if len(units) > 1 or firsts[0].stands_alone:
            calls.insert(1, statements.LOCKING(values))
        async with hot_connection(self._database) as connection:
            outcome = await round_trip(connection, calls)
        for unit, stored, result in zip(units, events, outcome, strict=True):
            self._tell(unit.requests[0], stored, result)
            _answer(unit, result)

    def _tell(self, request: _Request, events: list[NewEvent], result: tuple[Any, ...]) -> None:
        """Tell the listeners of what was stored, unless nothing was."""
        base, head, *_, epoch, floor, touches, recorded_at = result
        if not self._listeners or head is None or not events:
            return
        committed = Committed(
            request.tenant, request.conversation, base, head, epoch, floor, touches, recorded_at, events
        )
        for listener in self._listeners:
            try:
                listener(committed)
            except Exception:
                logger.exception("a listener to appends failed")

    async def _append_named(self, request: _Request, *, reuse_deleted_ids: bool) -> Appended:
        """Append what has to be looked up first: events with the caller's ids, and retries without a key.

        Those that are stored already are not stored again.
        """
        tenant, conversation, events = request.tenant, request.conversation, request.events
        hashes = [_hashes(tenant, event) if event.id is not None else None for event in events]
        async with hot_connection(self._database) as connection, connection.transaction():
            at = {"user_key": conversation.user_key, "id": conversation.uuid, "tenant": tenant.id}
            locking = statements.LOCKING({"keys": array([conversation.user_key]), "ids": array([conversation.uuid])})
            state = await round_trip(connection, [SETTING_TENANT(at), locking, statements.LINEAGE(at)])
            if not state:
                raise NotFound("no such conversation")
            head, _, owners, ends = state[0]
            lineage = Lineage(owners or [], ends or [])
            attempt = request.attempt
            if attempt is not None and attempt.number > 0:
                tried = ABSORBING(at | {"digest": b"\\x%b" % attempt.digest.hex().encode(), "number": attempt.number})
                if absorbed := await round_trip(connection, [tried]):
                    [(seqs, absorbed_head)] = absorbed
                    places = [EventId(lineage.owner(conversation.uuid, seq), seq) for seq in seqs]
                    return Appended(places, absorbed_head, replayed=True)
            keys = [pair.key for pair in hashes if pair]
            taken = await self._taken(connection, tenant, conversation, lineage, keys) if keys else {}
            if taken and reuse_deleted_ids:
                await self._free_deleted(connection, tenant, conversation, lineage, taken)
            answer: list[EventId] = []
            fresh: list[NewEvent] = []
            names: list[_Named | None] = []
            for index, (event, pair) in enumerate(zip(events, hashes, strict=True)):
                original = taken.get(pair[0]) if pair else None
                if original is _FREED:
                    event.id = pair = None
                elif pair and original is not None:
                    if original[0] != pair[1]:
                        raise IdConflict(
                            f"the id {event.id!r} is taken by an event with another body", param=f"events[{index}].id"
                        )
                    answer.append(original[1])
                    continue
                fresh.append(event)
                names.append(pair)
                answer.append(EventId(conversation.uuid, head + len(fresh)))
            if not fresh:
                request.expected_head = None  # a retry of what is stored cannot be stale
            values = _unit_columns(tenant, [request], [fresh]) | _event_columns([fresh], names)
            values["seqs"] = array(event.seq for event in answer)
            (result,) = await round_trip(connection, [_writing(values, [[request]] if fresh else [], len(fresh))])
            written = _outcome(request, result)
        self._tell(request, fresh, result)
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

    async def _free_deleted(
        self,
        connection: HotConnection,
        tenant: Tenant,
        conversation: ConversationId,
        lineage: Lineage,
        taken: dict[bytes, tuple[bytes, EventId]],
    ) -> None:
        """Mark those of the ids that are taken whose events have been deleted."""
        deletions = {_hashes(tenant, deletion_of(place.seq))[0]: key for key, (_, place) in taken.items()}
        for deletion in await self._taken(connection, tenant, conversation, lineage, list(deletions)):
            taken[deletions[deletion]] = _FREED


async def append_first(
    connection: psycopg.AsyncConnection[Any], tenant: Tenant, conversation: ConversationId, events: Sequence[NewEvent]
) -> None:
    """Append a conversation's first events in the transaction that creates it."""
    request = _Request(tenant, conversation, [], None, None, 0, asyncio.Future())
    names = [_hashes(tenant, event) if event.id is not None else None for event in events]
    values = _unit_columns(tenant, [request], [events]) | _event_columns([events], names)
    await execute(connection, statements.WRITING(values))


def _hashes(tenant: Tenant, event: NewEvent) -> _Named:
    assert event.id is not None
    return _Named(keyed_hash(tenant.salt, "client_id", event.id), digest(tenant.salt, event))


def _unit_columns(
    tenant: Tenant, requests: Sequence[_Request], events: Sequence[Sequence[NewEvent]]
) -> dict[str, object]:
    """Return what each unit says of its conversation, by parameter; a request stands for its unit."""
    keys, ids = zip(*[request.conversation for request in requests], strict=True)
    counts = [len(several) for several in events]
    values = dict.fromkeys(_OPTIONAL) | {
        "tenant": tenant.id,
        "keys": array(keys),
        "ids": uuid_array(ids),
        "starts": array(accumulate(counts[:-1], initial=0)),
        "counts": array(counts),
    }
    if any(request.stands_alone for request in requests):
        marks = [request.idempotency for request in requests]
        expected = [request.expected_head for request in requests]
        values["expected"] = array("NULL" if head is None else head for head in expected)
        values["idempotency_keys"] = bytea_array([mark and mark.key for mark in marks])
        values["bodies"] = bytea_array([mark and mark.body for mark in marks])
    return values


def _writing(values: dict[str, object], units: Sequence[Sequence[_Request]], fresh: int | None = None) -> Call:
    """Return the statement that writes what these columns say, and which attempts it answers.

    ``fresh`` is how many of a request's events are written, where that is not all.
    """
    attempts = []
    for number, requests in enumerate(units, 1):
        last = 0
        for request in requests:
            first, last = last + 1, last + (len(request.events) if fresh is None else fresh)
            if request.attempt is not None:
                attempts.append((number, request.attempt.digest, first, last, request.attempt.number))
    if not attempts:
        return statements.WRITING(values)
    numbers, digests, firsts, lasts, levels = zip(*attempts, strict=True)
    columns = {
        "attempt_units": array(numbers),
        "attempt_digests": bytea_array(digests),
        "attempt_firsts": array(firsts),
        "attempt_lasts": array(lasts),
        "attempt_levels": array(levels),
    }
    return statements.WRITING_ATTEMPTS(values | columns)


def _event_columns(units: Sequence[Sequence[NewEvent]], names: Sequence[_Named | None] = ()) -> dict[str, object]:
    """Return the events by parameter; ``names`` are the hashes of those that carry the caller's ids, in order."""
    events = units[0] if len(units) == 1 else [event for unit in units for event in unit]
    values: dict[str, object] = {
        "role": _texts([event.role for event in events]),
        "content": text_array([_given(event.content) for event in events]),
    }
    types = [event.type for event in events]
    if types.count("message") != len(types):
        values["type"] = _texts(types)
    # Most events have none of these, and to look is cheaper than to write NULLs.
    for name, several in zip(_LABELS, zip(*map(_labels, events), strict=True), strict=False):
        if any(several):
            values[name] = _texts(several)
    if any(event.metadata is not msgspec.UNSET for event in events):
        values["metadata"] = text_array([_given(event.metadata) for event in events])
    if any(event.occurred_at is not None for event in events):
        times = [event.occurred_at.isoformat() if event.occurred_at else None for event in events]
        values["occurred_at"] = _texts(times)
    if any(names):
        values["client_key"] = bytea_array([name and name.key for name in names])
        values["client_digest"] = bytea_array([name and name.body for name in names])
    return values


def _texts(values: Sequence[str | None]) -> bytes | None:
    return text_array([None if value is None else value.encode() for value in values])


def _given(text: msgspec.Raw | msgspec.UnsetType) -> msgspec.Raw | None:
    return None if text is msgspec.UNSET else text


def _outcome(request: _Request, result: tuple[Any, ...]) -> Appended:
    base, head, prior_seqs, prior_head, prior_body, found, *_ = result
    conversation = request.conversation.uuid
    if prior_seqs is not None:
        assert request.idempotency is not None
        if bytes(prior_body) != request.idempotency.body:
            raise IdempotencyMismatch(
                "this Idempotency-Key was used with another body in this conversation; use a new key for a new request",
                param="Idempotency-Key",
            )
        return Appended([EventId(conversation, seq) for seq in prior_seqs], prior_head, replayed=True)
    if head is None:
        # With no head expected, it was deleted between this statement's snapshot and its UPDATE.
        if found is None or request.expected_head is None:
            raise NotFound("no such conversation")
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
