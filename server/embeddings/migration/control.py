"""The commands of a migration: each is decided by the rules on what is stored, and stored in one transaction.

What takes long (probing a model, measuring vectors or answers) is done before, outside any transaction, and says at
which epoch it began. A step is done once it is committed; live servers follow within a second, and the answer says
whether they have.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import psycopg
import sqlalchemy as sa
from msgspec import Struct, structs, to_builtins
from sqlalchemy.ext.asyncio import AsyncConnection

from server.database.connections import Database
from server.database.upgrade import try_schema_lock
from server.embeddings import relations
from server.embeddings.backfill import backlog
from server.embeddings.backfill.backlog import Backlog
from server.embeddings.embedder import Embedder
from server.embeddings.lifecycle import commands, status
from server.embeddings.lifecycle.commands import Command
from server.embeddings.lifecycle.decision import RUNNING
from server.embeddings.lifecycle.facts import Rules
from server.embeddings.lifecycle.records import Record, Refused, Transition
from server.embeddings.lifecycle.routing import Routing
from server.embeddings.lifecycle.states import decide
from server.embeddings.lifecycle.status import Status
from server.embeddings.migration import comparisons, facts, ledger
from server.embeddings.migration.dropping import OWNER, drop_relations
from server.embeddings.migration.facts import Alive
from server.embeddings.migration.ledger import Stored
from server.embeddings.model import Fingerprint
from server.embeddings.providers import Spec
from server.embeddings.texts import TEXT_BUILDER
from server.embeddings.versions import Version
from server.errors import DatabaseUnavailable, MigrationRefused
from server.retrieval.plan import plan_for

logger = logging.getLogger(__name__)

_FOLLOWING: Final = 3.0  # seconds that an answer waits for the servers to follow
_DROPPING: Final = 5.0  # seconds that an answer waits for a relation to be dropped; else that happens behind it
_UPGRADING: Final = 30.0  # seconds that a command waits for an upgrade
_AGAIN: Final = 0.05  # seconds


class Done(Struct, frozen=True, kw_only=True):
    """What a command has done. ``behind``: live servers that did not follow yet when the answer was given.

    ``dropped``: whether the vectors are off the disk, after `contract`.
    """

    record: Record
    routing: Routing
    behind: tuple[str, ...] = ()
    dropped: bool = False


class Shown(Struct, frozen=True, kw_only=True):
    """Where everything stands."""

    status: Status
    stored: Stored
    servers: tuple[Alive, ...]
    backlog: Backlog | None


class _Order(NamedTuple):
    """One command on its way. ``command``: made under the lock; ``write``: what must be there before it is stored.

    ``waiting``: events without the candidate's vector, counted before; ``makes``: a relation may have to be made.
    """

    who: str
    epoch: int | None
    command: Callable[[AsyncConnection, Stored], Awaitable[Command]]
    write: Callable[[AsyncConnection, Command], Awaitable[None]] | None = None
    waiting: int | None = None
    makes: bool = False


class Migration:
    """One server's way to the migration of its database; any number of them may be used at once.

    Commands raise MigrationRefused and DatabaseUnavailable. ``who`` is kept on record; ``epoch`` is the one that the
    operator saw, if that was said: then nothing is changed that has changed since. ``key``: the provider's secret.
    """

    def __init__(self, database: Database, embedder: Embedder, *, key: str | None, rules: Rules) -> None:
        self._database = database
        self._embedder = embedder
        self._key = key
        self._rules = rules

    async def stored(self) -> Stored:
        """Return what is stored at this moment. Raises DatabaseUnavailable."""
        async with self._database.transaction(None, repeatable_read=True) as connection:
            return await ledger.read(connection, lock=False)

    async def show(self) -> Shown:
        """Say where the migration stands, and what may come next."""
        stored = await self.stored()
        running = self._running(stored)
        waiting = await self._waiting(running)
        async with self._database.transaction(None) as connection:
            found = await facts.read(connection, stored.history, waiting, rules=self._rules)
            alive = tuple(await facts.servers(connection))
        return Shown(
            status=status.status(stored.routing, stored.versions, found, stored.now),
            stored=stored,
            servers=alive,
            backlog=None if running is None else await backlog.read(self._database, running.id),
        )

    async def add(self, name: str, spec: Spec, who: str, *, epoch: int | None = None) -> Done:
        """Register a model as a version, by what it answers. Raises ModelRefused, ProviderUnavailable, InvalidInput."""
        found = await asyncio.to_thread(relations.probe, structs.replace(spec, key=self._key))

        async def command(connection: AsyncConnection, _: Stored) -> Command:
            number = await ledger.next_number(connection)
            return commands.Add(number=number, name=name, space=_space(number, name, spec, found))

        async def write(connection: AsyncConnection, command: Command) -> None:
            assert isinstance(command, commands.Add)
            number = command.number
            await connection.run_sync(lambda plain: relations.register(plain, name, spec, found, number=number))

        return await self._run(_Order(who, epoch, command, write))

    async def start(self, name: str, who: str, *, epoch: int | None = None) -> Done:
        """Begin the migration to a version, whose relation is made."""

        async def command(_: AsyncConnection, stored: Stored) -> Command:
            found = next((one for one in stored.registered.values() if one.name == name), None)
            return commands.Start(name=name, plan=plan_for(found.spec.model if found else ""))

        done = await self._run(_Order(who, epoch, command, makes=True))
        await self._forget_comparisons()
        return done

    async def run(self, given: Command, who: str, *, epoch: int | None = None) -> Done:
        """Run a command that needs nothing made before it."""
        waiting = None
        if isinstance(given, commands.Ramp | commands.Cutover):
            waiting = await self._waiting(self._running(await self.stored()))

        async def command(_connection: AsyncConnection, _stored: Stored) -> Command:
            return given

        done = await self._run(_Order(who, epoch, command, waiting=waiting))
        if isinstance(given, commands.Rollback | commands.Contract):
            await self._forget_comparisons()
        if isinstance(given, commands.Contract):
            return structs.replace(done, dropped=await self._dropped())
        return done

    async def check(self, command: Command, who: str, *, epoch: int | None = None) -> Stored:
        """Return what is stored if a command would be let through as things stand; it changes nothing."""
        stored = await self.stored()
        async with self._database.transaction(None) as connection:
            found = await facts.read(connection, stored.history, rules=self._rules)
        answer = decide(stored.routing, stored.versions, command, found, stored.now, who, epoch=epoch)
        if isinstance(answer, Refused):
            raise _refusal(answer)
        return stored

    async def _run(self, order: _Order) -> Done:
        """Decide and store in one transaction, then wait a moment for the servers."""
        answer = await self._decided(order)
        if isinstance(answer, Refused):
            raise _refusal(answer)
        assert answer.record is not None
        behind = await self._followed(answer.routing.epoch) if answer.flips else ()
        return Done(record=answer.record, routing=answer.routing, behind=behind)

    async def _decided(self, order: _Order) -> Transition | Refused:
        deadline = time.monotonic() + _UPGRADING
        while True:
            async with self._database.transaction(None, role=OWNER) as connection:
                # Before the row's lock, and never awaited: an upgrade may take long, and a rollback must not wait.
                if not order.makes or await connection.run_sync(try_schema_lock):
                    return await self._decide(connection, order)
            if time.monotonic() > deadline:
                raise DatabaseUnavailable("a server is upgrading this database; try again", retry_after=10)
            await asyncio.sleep(_AGAIN)

    async def _decide(self, connection: AsyncConnection, order: _Order) -> Transition | Refused:
        stored = await ledger.read(connection, lock=True)
        found = await facts.read(connection, stored.history, order.waiting, rules=self._rules)
        command = await order.command(connection, stored)
        answer = decide(stored.routing, stored.versions, command, found, stored.now, order.who, epoch=order.epoch)
        if isinstance(answer, Refused):
            if answer.record is not None:
                await ledger.keep(connection, answer.record)
            return answer
        if order.write is not None:
            await order.write(connection, command)
        if answer.creates is not None:
            version = stored.registered[answer.creates]
            await connection.run_sync(relations.create_relation, version.id, version.dimensions)
        refused = await ledger.apply(connection, stored, answer)
        if refused is not None:  # undoes what was made before
            raise _refusal(refused)
        return answer

    async def _dropped(self) -> bool:
        try:
            return await drop_relations(self._database, timeout=_DROPPING)
        except DatabaseUnavailable:  # the embedder goes on with it
            return False

    async def _forget_comparisons(self) -> None:
        try:
            await comparisons.forget(self._database)
        except DatabaseUnavailable as error:  # the next `start` does it again
            logger.warning("the comparisons of the shadow are still there: %s", error.message)

    async def _followed(self, epoch: int) -> tuple[str, ...]:
        """Wait until every live server follows an epoch; returns those that do not in time."""
        deadline = time.monotonic() + _FOLLOWING
        try:
            await self._embedder.look()
            while True:
                async with self._database.transaction(None) as connection:
                    behind = [one.name for one in await facts.servers(connection) if one.epoch < epoch]
                if not behind or time.monotonic() > deadline:
                    return tuple(behind)
                await asyncio.sleep(_AGAIN)
        except DatabaseUnavailable:  # the step is done all the same
            return ()

    async def _waiting(self, running: Version | None) -> int | None:
        """Count what waits for the candidate's vectors, outside the transaction that decides: it may take seconds."""
        if running is None:
            return None
        try:
            async with self._database.transaction(None, role=OWNER) as connection:
                return await facts.waiting(connection, running.id, self._rules.waiting + 1)
        except sa.exc.ProgrammingError as error:
            if isinstance(error.orig, psycopg.errors.UndefinedTable):  # it was dropped at this moment
                return None
            raise

    @staticmethod
    def _running(stored: Stored) -> Version | None:
        return next((stored.registered[one.id] for one in stored.versions if one.state in RUNNING), None)


def _space(number: int, name: str, spec: Spec, found: Fingerprint) -> str:
    version = Version(number, name, spec, found.dimensions, TEXT_BUILDER, found.digest, found.probe, "draft")
    return ledger.space(version)


def _refusal(refused: Refused) -> MigrationRefused:
    gates = refused.record.gates if refused.record is not None else ()
    return MigrationRefused(refused.code, refused.message, [to_builtins(gate) for gate in gates])
