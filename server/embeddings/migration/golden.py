"""Golden sets as they are stored: each belongs to a tenant, and its questions to the conversations they are asked in.

What a file names by ids of its own is looked up once, when it is loaded: a conversation by its id or its origin id, an
event by its id, the caller's or the server's. Stored are seqs, so that erasure finds every question about what goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables import conversation, event
from schema.tables import golden_question as questions
from schema.tables import golden_set as sets
from server.database.connections import Database
from server.database.ids import ConversationId, EventId, keyed_hash, parse_conversation_id, parse_event_id
from server.database.tenant import Tenant
from server.embeddings.lifecycle.golden import GoldenSet, Question, Unusable, revise
from server.errors import Conflict, NotFound
from server.log.lineage import Lineage

# An import keeps the origin ids of two formats apart by such a prefix; a golden set's file may leave it out.
_PREFIXES: Final = ("", "locomo:", "longmemeval:", "chatgpt:", "jsonl:")
_AT_ONCE: Final = 1_000  # rows of one statement


class Stored(NamedTuple):
    """A golden set without its questions; ``unusable``: how many its file had that were left out."""

    name: str
    version: int
    owner: str
    questions: int
    unusable: int
    approved_by: str | None
    approved_at: datetime | None
    created_at: datetime


class _Shown(NamedTuple):
    """A conversation as far as evidence is looked up in it."""

    id: ConversationId
    head: int
    floor: int
    lineage: Lineage

    def shows(self, owner: UUID, seq: int) -> bool:
        return self.floor < seq <= self.head and self.lineage.owner(self.id.uuid, seq) == owner


async def add(database: Database, tenant: Tenant, golden: GoldenSet) -> tuple[Stored, tuple[Unusable, ...]]:
    """Store a set, or its next version where its questions differ from those that are stored.

    Returns it, with the questions that were left out and why. The same questions again change nothing, and stay
    approved. Raises DatabaseUnavailable.
    """
    async with database.transaction(tenant) as connection:
        found, unusable = await _resolved(connection, tenant, golden.questions)
        left_out = (*golden.unusable, *unusable)
        key = {"tenant_id": tenant.id, "name": golden.name}
        mine = sa.and_(sets.c.tenant_id == tenant.id, sets.c.name == golden.name)
        # Two operators who load it at once come one after the other.
        await connection.execute(
            sa.text("SELECT pg_advisory_xact_lock(hashtextextended('golden ' || :tenant_id || ' ' || :name, 0))"), key
        )
        row = (await connection.execute(sa.select(sets).where(mine))).one_or_none()
        new = GoldenSet(name=golden.name, version=1, owner=golden.owner, questions=found, unusable=left_out)
        if row is None:
            await connection.execute(
                sa.insert(sets).values(**key, version=1, owner=golden.owner, unusable=len(left_out))
            )
            await _insert(connection, tenant, golden.name, found)
        else:
            old = GoldenSet(
                name=row.name,
                version=row.version,
                owner=row.owner,
                questions=await _questions(connection, tenant, golden.name),
                approved_by=row.approved_by,
                approved_at=row.approved_at,
            )
            revised = revise(old, new)
            if revised.version != old.version:
                await connection.execute(sa.delete(questions).where(_of(tenant, golden.name)))
                await _insert(connection, tenant, golden.name, found)
            await connection.execute(
                sa.update(sets)
                .where(mine)
                .values(
                    version=revised.version,
                    owner=revised.owner,
                    unusable=len(left_out),
                    approved_by=revised.approved_by,
                    approved_at=revised.approved_at,
                )
            )
        return await _get(connection, tenant, golden.name), left_out


async def listing(database: Database, tenant: Tenant) -> list[Stored]:
    """Return a tenant's sets by name. Raises DatabaseUnavailable."""
    async with database.transaction(tenant) as connection:
        rows = await connection.execute(_stored(tenant).order_by(sets.c.name))
        return [Stored(*row) for row in rows]


async def get(database: Database, tenant: Tenant, name: str) -> tuple[Stored, tuple[Question, ...]]:
    """Return a set with its questions, in order; raises NotFound and DatabaseUnavailable."""
    async with database.transaction(tenant) as connection:
        return await _get(connection, tenant, name), await _questions(connection, tenant, name)


async def approve(database: Database, tenant: Tenant, name: str, version: int, *, who: str) -> Stored:
    """Approve one version of a set, so that gates rest on it.

    Raises NotFound, Conflict for another version than is stored or a set without questions, and DatabaseUnavailable.
    """
    async with database.transaction(tenant) as connection:
        row = (await connection.execute(_stored(tenant).where(sets.c.name == name).with_for_update(of=sets))).first()
        if row is None:
            raise _missing(name)
        found = Stored(*row)
        if found.version != version:
            raise Conflict(
                f"version {version} of the golden set {name!r} is to be approved, and version {found.version} is "
                "stored: look at what has changed",
                param="version",
            )
        if not found.questions:
            raise Conflict(f"the golden set {name!r} has no question left: there is nothing to approve")
        await connection.execute(
            sa.update(sets)
            .where(sets.c.tenant_id == tenant.id, sets.c.name == name)
            .values(approved_by=who, approved_at=sa.func.now())
        )
        return await _get(connection, tenant, name)


async def remove(database: Database, tenant: Tenant, name: str) -> None:
    """Remove a set with its questions; raises NotFound and DatabaseUnavailable."""
    async with database.transaction(tenant) as connection:
        await connection.execute(sa.delete(questions).where(_of(tenant, name)))
        gone = await connection.execute(sa.delete(sets).where(sets.c.tenant_id == tenant.id, sets.c.name == name))
        if not gone.rowcount:
            raise _missing(name)


def _stored(tenant: Tenant) -> sa.Select[Any]:
    count = (
        sa.select(sa.func.count())
        .select_from(questions)
        .where(questions.c.tenant_id == sets.c.tenant_id, questions.c.golden_set == sets.c.name)
        .scalar_subquery()
    )
    columns = (sets.c.name, sets.c.version, sets.c.owner, count, sets.c.unusable, sets.c.approved_by)
    return sa.select(*columns, sets.c.approved_at, sets.c.created_at).where(sets.c.tenant_id == tenant.id)


async def _get(connection: AsyncConnection, tenant: Tenant, name: str) -> Stored:
    row = (await connection.execute(_stored(tenant).where(sets.c.name == name))).first()
    if row is None:
        raise _missing(name)
    return Stored(*row)


def _of(tenant: Tenant, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(questions.c.tenant_id == tenant.id, questions.c.golden_set == name)


def _missing(name: str) -> NotFound:
    return NotFound(f"there is no golden set {name!r}")


async def _questions(connection: AsyncConnection, tenant: Tenant, name: str) -> tuple[Question, ...]:
    """Return questions with the ids that the server itself gives: equal questions are equal here."""
    rows = await connection.execute(sa.select(questions).where(_of(tenant, name)).order_by(questions.c.place))
    return tuple(
        Question(
            id=row.id,
            conversation=str(ConversationId(row.user_key, row.conversation)),
            text=row.text,
            evidence=tuple(str(EventId(owner, seq)) for owner, seq in zip(row.owners, row.evidence, strict=True)),
            category=row.category,
            language=row.language,
        )
        for row in rows
    )


async def _insert(connection: AsyncConnection, tenant: Tenant, name: str, found: Sequence[Question]) -> None:
    rows = []
    for place, one in enumerate(found, 1):
        at = parse_conversation_id(one.conversation)
        named = [parse_event_id(text) for text in one.evidence]
        assert at is not None, "it was looked up"
        rows.append(
            {
                "user_key": at.user_key,
                "tenant_id": tenant.id,
                "golden_set": name,
                "id": one.id,
                "place": place,
                "conversation": at.uuid,
                "text": one.text,
                "evidence": [event_id.seq for event_id in named if event_id is not None],
                "owners": [event_id.conversation for event_id in named if event_id is not None],
                "category": one.category,
                "language": one.language,
            }
        )
    for start in range(0, len(rows), _AT_ONCE):
        await connection.execute(sa.insert(questions), rows[start : start + _AT_ONCE])


async def _resolved(
    connection: AsyncConnection, tenant: Tenant, asked: Sequence[Question]
) -> tuple[tuple[Question, ...], list[Unusable]]:
    """Return the questions with the server's own ids, and those that cannot be asked; locks their conversations.

    The locks keep erasures out until this is stored, and let appends pass.
    """
    shown, doubtful = await _conversations(connection, tenant, {one.conversation for one in asked})
    wanted: dict[str, set[str]] = {}
    for one in asked:
        if one.conversation in shown:
            wanted.setdefault(one.conversation, set()).update(one.evidence)
    known = {name: await _events(connection, tenant, shown[name], ids) for name, ids in wanted.items()}
    found: list[Question] = []
    unusable: list[Unusable] = []
    for one in asked:
        at = shown.get(one.conversation)
        if at is None:
            why = "several conversations have this origin id" if one.conversation in doubtful else "is not here"
            unusable.append(Unusable(id=one.id, why=f"its conversation {one.conversation!r}: {why}"))
            continue
        ids = known[one.conversation]
        evidence = tuple(dict.fromkeys(ids[name] for name in one.evidence if name in ids))
        if not evidence:
            unusable.append(Unusable(id=one.id, why="none of its evidence is in its conversation"))
            continue
        found.append(
            Question(
                id=one.id,
                conversation=str(at.id),
                text=one.text,
                evidence=evidence,
                category=one.category,
                language=one.language,
            )
        )
    return tuple(found), unusable


async def _conversations(
    connection: AsyncConnection, tenant: Tenant, names: Iterable[str]
) -> tuple[dict[str, _Shown], set[str]]:
    """Return conversations by the name that was given, and the names that several answer to."""
    by_id: dict[UUID, str] = {}
    by_origin: dict[str, list[str]] = {}
    for name in sorted(names):
        at = parse_conversation_id(name)
        if at is not None:
            by_id[at.uuid] = name
        else:
            for prefix in _PREFIXES:
                by_origin.setdefault(prefix + name, []).append(name)
    table = conversation.c
    query = (
        sa.select(table.user_key, table.id, table.head, table.floor, table.lineage, table.lineage_end, table.origin_id)
        .where(
            table.tenant_id == tenant.id,
            table.deleted_at.is_(None),
            sa.or_(table.id.in_(list(by_id)), table.origin_id.in_(list(by_origin))),
        )
        .order_by(table.id)
        .with_for_update(read=True, key_share=True)
    )
    found: dict[str, list[tuple[str, _Shown]]] = {}
    for row in await connection.execute(query):
        at = ConversationId(row.user_key, row.id)
        shown = _Shown(at, row.head, row.floor, Lineage(row.lineage or [], row.lineage_end or []))
        if by_id.get(row.id) == str(at):
            found.setdefault(str(at), []).append(("", shown))
        for name in by_origin.get(row.origin_id, ()):
            found.setdefault(name, []).append((row.origin_id.removesuffix(name), shown))
    chosen: dict[str, _Shown] = {}
    doubtful: set[str] = set()
    for name, candidates in found.items():
        # The very id is meant before one with a prefix.
        usable = [shown for prefix, shown in candidates if not prefix] or [shown for _, shown in candidates]
        if len(usable) == 1:
            chosen[name] = usable[0]
        else:
            doubtful.add(name)
    return chosen, doubtful


async def _events(connection: AsyncConnection, tenant: Tenant, at: _Shown, names: Iterable[str]) -> dict[str, str]:
    """Return the server's ids of events that a conversation shows, by the ids that were given."""
    by_place: dict[tuple[UUID, int], str] = {}
    by_key: dict[bytes, str] = {}
    for name in sorted(names):
        named = parse_event_id(name)
        if named is not None:
            by_place[named.conversation, named.seq] = name
        else:
            by_key[keyed_hash(tenant.salt, "client_id", name)] = name
    owners = [*at.lineage.owners, at.id.uuid]
    of_it = (event.c.user_key == at.id.user_key, event.c.tenant_id == tenant.id, event.c.erased_at.is_(None))
    columns = sa.select(event.c.conversation, event.c.seq, event.c.client_key).where(*of_it)
    columns = columns.where(event.c.conversation.in_(owners))
    found: dict[str, str] = {}
    if by_key:
        for owner, seq, key in await connection.execute(columns.where(event.c.client_key.in_(list(by_key)))):
            if at.shows(owner, seq):
                found.setdefault(by_key[bytes(key)], str(EventId(owner, seq)))
    if by_place:
        seqs = sorted({seq for _, seq in by_place})
        for owner, seq, _ in await connection.execute(columns.where(event.c.seq.in_(seqs))):
            if (owner, seq) in by_place and at.shows(owner, seq):
                found[by_place[owner, seq]] = str(EventId(owner, seq))
    return found
