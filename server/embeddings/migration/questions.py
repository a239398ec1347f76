"""The golden questions that a comparison asks: of all tenants, each with what tells its segments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables import golden_question as questions
from schema.tables import golden_set as sets
from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.embeddings.texts import build
from server.log.retention import tenants
from server.log.stored import COLUMNS, from_row
from server.retrieval import analysis

_AT_ONCE: Final = 500  # events
_EVENTS: Final = sa.text(
    f"""
    SELECT {COLUMNS} FROM unnest(CAST(:keys AS bigint[]), CAST(:owners AS uuid[]), CAST(:seqs AS bigint[]))
        AS named(user_key, owner, seq)
    JOIN event e ON e.user_key = named.user_key AND e.conversation = named.owner AND e.seq = named.seq
        AND e.tenant_id = :tenant AND e.erased_at IS NULL
    """  # noqa: S608 - our own columns
)


class Golden(NamedTuple):
    """One question: asked by its own tenant, in its conversation.

    ``evidence``: ``conv_…:seq``, by the conversation that appended each. ``lengths``: of their texts, in characters.
    """

    id: str
    tenant: Tenant
    at: ConversationId
    text: str
    evidence: tuple[str, ...]
    lengths: tuple[int, ...]
    language: str


class Sets(NamedTuple):
    """What gates rest on: ``name`` and ``version`` of the set, or of all of them.

    ``approved``: only approved sets are among them, of which there is one at least.
    """

    name: str
    version: int
    approved: bool
    questions: list[Golden]


class _Set(NamedTuple):
    name: str
    version: int
    approved_by: str | None


async def read(database: Database) -> Sets | None:
    """Return the approved sets of all tenants, or where nobody approved one, the others; None without any.

    Raises DatabaseUnavailable.
    """
    found: list[tuple[Tenant, _Set]] = []
    for tenant in await tenants(database):
        query = sa.select(sets.c.name, sets.c.version, sets.c.approved_by).where(sets.c.tenant_id == tenant.id)
        async with database.transaction(tenant) as connection:
            found += [(tenant, _Set(*row)) for row in await connection.execute(query.order_by(sets.c.name))]
    approved = [(tenant, row) for tenant, row in found if row.approved_by is not None]
    chosen = approved or found
    if not chosen:
        return None
    asked: list[Golden] = []
    for tenant, row in chosen:
        async with database.transaction(tenant) as connection:
            asked += await _questions(connection, tenant, row.name)
    names = [f"{row.name} {row.version}" for _, row in chosen]
    name = chosen[0][1].name if len(chosen) == 1 else ", ".join(names)
    return Sets(name, max(row.version for _, row in chosen), bool(approved), asked)


async def _questions(connection: AsyncConnection, tenant: Tenant, name: str) -> list[Golden]:
    where = questions.c.tenant_id == tenant.id, questions.c.golden_set == name
    rows = (await connection.execute(sa.select(questions).where(*where).order_by(questions.c.place))).all()
    places = {(row.user_key, owner, seq) for row in rows for owner, seq in zip(row.owners, row.evidence, strict=True)}
    lengths = await _lengths(connection, tenant, sorted(places))
    found = []
    for row in rows:
        named = list(zip(row.owners, row.evidence, strict=True))
        known = tuple(
            lengths[row.user_key, owner, seq] for owner, seq in named if (row.user_key, owner, seq) in lengths
        )
        found.append(
            Golden(
                id=f"{tenant.name}/{name}/{row.id}",
                tenant=tenant,
                at=ConversationId(row.user_key, row.conversation),
                text=row.text,
                evidence=tuple(f"{ConversationId(row.user_key, owner)}:{seq}" for owner, seq in named),
                lengths=known,
                language=row.language or analysis.language_of(row.text),
            )
        )
    return found


async def _lengths(
    connection: AsyncConnection, tenant: Tenant, places: Sequence[tuple[int, UUID, int]]
) -> dict[tuple[int, UUID, int], int]:
    found: dict[tuple[int, UUID, int], int] = {}
    for part in _parts(places):
        keys = {(owner, seq): key for key, owner, seq in part}
        values = {
            "tenant": tenant.id,
            "keys": [key for key, _, _ in part],
            "owners": [owner for _, owner, _ in part],
            "seqs": [seq for _, _, seq in part],
        }
        for row in await connection.execute(_EVENTS, values):
            text = build(from_row(tuple(row)))
            if text is not None:
                found[keys[row.conversation, row.seq], row.conversation, row.seq] = len(text.text)
    return found


def _parts(places: Sequence[tuple[int, UUID, int]]) -> Iterable[Sequence[tuple[int, UUID, int]]]:
    return (places[start : start + _AT_ONCE] for start in range(0, len(places), _AT_ONCE))
