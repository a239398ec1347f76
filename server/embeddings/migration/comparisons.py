"""Comparisons as they are kept: one row for each search of the shadow, gone with any event that it ranks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from msgspec import Struct

from schema.tables import embedding_comparison as table
from server.database.connections import Database
from server.database.ids import parse_conversation_id
from server.database.tenant import Tenant
from server.embeddings.lifecycle.figures.shadowed import Shadowed
from server.embeddings.lifecycle.gates.comparison import Shadowing
from server.embeddings.migration.dropping import OWNER
from server.log.retention import tenants

logger = logging.getLogger(__name__)

MOST: Final = 100_000  # of a tenant
_THIN_EVERY: Final = 200  # rows that one process adds
_added = count(1)

# Under these locks no erasure of what a row names commits between the look at it and the row's own commit: it would not
# see the row, and leave it. Appends pass.
_LOCKED: Final = sa.text(
    "SELECT id, deleted_at IS NULL AS live FROM conversation "
    "WHERE user_key = :user_key AND tenant_id = :tenant AND id = ANY(:owners) ORDER BY id FOR KEY SHARE"
)
_THERE: Final = sa.text(
    """
    SELECT count(*) FROM unnest(CAST(:owners AS uuid[]), CAST(:seqs AS bigint[])) AS named(owner, seq)
    JOIN event e ON e.user_key = :user_key AND e.tenant_id = :tenant AND e.conversation = named.owner
        AND e.seq = named.seq AND e.erased_at IS NULL
    """
)
_THIN: Final = sa.text(
    """
    DELETE FROM embedding_comparison WHERE tenant_id = :tenant AND id < (
        SELECT id FROM embedding_comparison WHERE tenant_id = :tenant ORDER BY id DESC OFFSET :most LIMIT 1)
    """
)


class Comparison(Struct, frozen=True, kw_only=True):
    """One search that both versions answered; ``conversation`` None: over all of a user's.

    Rankings are of ``conv_…:seq``, best first. ``error``: the class of what kept the new version from answering.
    ``dropped``: samples that were left out in the same process since the row before.
    """

    id: UUID
    user_key: int
    conversation: UUID | None
    old_version: int
    new_version: int
    epoch: int
    query_type: str
    segments: tuple[str, ...]
    old_dense: tuple[str, ...]
    new_dense: tuple[str, ...]
    old_final: tuple[str, ...]
    new_final: tuple[str, ...]
    old_ms: float
    new_ms: float
    error: str | None = None
    dropped: int = 0
    question: str | None = None

    @property
    def shadowed(self) -> Shadowed:
        """What the figures are made of."""
        return Shadowed(
            id=str(self.id),
            segments=self.segments,
            old_dense=self.old_dense,
            new_dense=self.new_dense,
            old_final=self.old_final,
            new_final=self.new_final,
            old_milliseconds=self.old_ms,
            new_milliseconds=self.new_ms,
        )


_FIELDS: Final = Comparison.__struct_fields__
_LISTS: Final = ("segments", "old_dense", "new_dense", "old_final", "new_final")


async def store(database: Database, tenant: Tenant, one: Comparison) -> bool:
    """Keep a comparison, unless an event that it ranks was erased meanwhile; returns whether it is kept.

    Raises DatabaseUnavailable.
    """
    places = list(dict.fromkeys(_places((*one.old_dense, *one.new_dense, *one.old_final, *one.new_final))))
    owners = [owner for owner, _ in places]
    values = {"tenant": tenant.id, "user_key": one.user_key, "owners": owners, "seqs": [seq for _, seq in places]}
    row = {name: getattr(one, name) for name in _FIELDS}
    row |= {name: list(row[name]) for name in _LISTS}
    async with database.transaction(tenant) as connection:
        asked_in = [] if one.conversation is None else [one.conversation]
        lock = {"tenant": tenant.id, "user_key": one.user_key, "owners": sorted({*owners, *asked_in})}
        live = {row.id for row in await connection.execute(_LOCKED, lock) if row.live}
        there = (await connection.execute(_THERE, values)).scalar_one() if places else 0
        if not places or there < len(places) or not live.issuperset(asked_in):
            return False
        await connection.execute(sa.insert(table).values(tenant_id=tenant.id, **row))
        if next(_added) % _THIN_EVERY == 0:
            await connection.execute(_THIN, {"tenant": tenant.id, "most": MOST})
    return True


async def read(database: Database, old: int, new: int, *, newest: int = MOST) -> dict[str, list[Comparison]]:
    """Return what is kept of two versions, by the tenant's name, oldest first. Raises DatabaseUnavailable."""
    found: dict[str, list[Comparison]] = {}
    query = (
        sa.select(*(table.c[name] for name in _FIELDS))
        .where(table.c.old_version == old, table.c.new_version == new)
        .order_by(table.c.id.desc())
        .limit(newest)
    )
    for tenant in await tenants(database):
        async with database.transaction(tenant) as connection:
            rows = (await connection.execute(query.where(table.c.tenant_id == tenant.id))).all()
        if rows:
            found[tenant.name] = [_comparison(row) for row in reversed(rows)]
    return found


async def forget(database: Database) -> None:
    """Remove all comparisons, of every tenant: their migration is over. Raises DatabaseUnavailable."""
    async with database.transaction(None, role=OWNER) as connection:
        await connection.execute(sa.delete(table))


def shadowing(rows: Iterable[Comparison]) -> Shadowing | None:
    """Return how the shadow went; None when it answered nothing and failed at nothing."""
    answered = errors = dropped = 0
    for row in rows:
        answered += row.error is None
        errors += row.error is not None
        dropped += row.dropped
    return Shadowing(answered=answered, errors=errors, dropped=dropped) if answered or errors else None


def _comparison(row: Sequence[object]) -> Comparison:
    values = dict(zip(_FIELDS, row, strict=True))
    values |= {name: tuple(values[name]) for name in _LISTS}  # type: ignore[arg-type]
    return Comparison(**values)  # type: ignore[arg-type]


def _places(names: Iterable[str]) -> Iterable[tuple[UUID, int]]:
    for name in names:
        text, _, seq = name.rpartition(":")
        at = parse_conversation_id(text)
        if at is None:
            raise ValueError(f"{name!r} names no event")
        yield at.uuid, int(seq)
