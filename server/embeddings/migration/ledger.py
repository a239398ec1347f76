"""What is stored of a migration: read under the routing's lock, changed in the same transaction, and kept on record.

Two operators wait for each other at the row's lock, and the second decides on what the first has made of it. The update
names the epoch all the same: no change is ever built on another state than the one that it was decided on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from schema.tables import embedding_history, embedding_routing, embedding_version
from server.embeddings import versions
from server.embeddings.lifecycle import facts, records
from server.embeddings.lifecycle.gates.gate import Gate
from server.embeddings.lifecycle.records import Record, Refused, Transition
from server.embeddings.lifecycle.routing import Routing
from server.embeddings.versions import Version
from server.errors import DatabaseRefused


class Detail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a line of the history rested on."""

    gates: tuple[Gate, ...] = ()
    figures: dict[str, float] = {}
    thresholds: dict[str, float] = {}


class Stored(NamedTuple):
    """All that a decision is taken on beside the facts, at one moment; ``now`` is the database's clock."""

    now: datetime
    routing: Routing
    registered: dict[int, Version]
    versions: tuple[facts.Version, ...]
    history: tuple[Record, ...]


_detail = msgspec.json.Decoder(Detail)


async def read(connection: AsyncConnection, *, lock: bool) -> Stored:
    """Read versions, routing and history; ``lock``: keep all other commands out until the transaction ends.

    Raises DatabaseRefused before there is a version.
    """
    query = sa.select(embedding_routing)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise DatabaseRefused("this database has no embedding version yet: start a server on it first")
    rows = (await connection.execute(sa.select(embedding_version).order_by(embedding_version.c.id))).all()
    registered = {one.id: versions.version_of(one) for one in rows}
    known = tuple(
        facts.Version(one.id, one.name, space(registered[one.id]), one.state, one.state_since) for one in rows
    )
    now = await connection.scalar(sa.select(sa.func.clock_timestamp()))
    assert now is not None
    return Stored(now, versions.routing_of(row, registered), registered, known, await history(connection))


def space(version: Version) -> str:
    """Return the digest of all that fixes where a text comes to lie; two versions that agree in it are the same."""
    parts = (version.fingerprint, version.spec.query_prefix, version.spec.document_prefix, version.text_builder)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


async def next_number(connection: AsyncConnection) -> int:
    """Return the id that the next version gets; one that is not used is lost."""
    number = await connection.scalar(sa.text("SELECT nextval(pg_get_serial_sequence('embedding_version', 'id'))"))
    assert number is not None
    return int(number)


async def apply(connection: AsyncConnection, stored: Stored, transition: Transition) -> Refused | None:
    """Store what was decided, history included; refused when the routing is not the one that it was decided on.

    Only states that are in ``stored`` can change: a version that is added is written before this.
    """
    routing = transition.routing
    changed = await connection.execute(
        sa.update(embedding_routing)
        .where(embedding_routing.c.epoch == transition.from_epoch)
        .values(
            epoch=routing.epoch,
            active=routing.active,
            candidate=routing.candidate,
            ramp=routing.ramp,
            shadow=routing.shadow,
            paused=routing.paused,
            written=list(routing.written),
            tuning=msgspec.json.encode(routing.units).decode(),
            changed_at=stored.now if transition.flips else embedding_routing.c.changed_at,
        )
    )
    if not changed.rowcount:
        found = await connection.scalar(sa.select(embedding_routing.c.epoch))
        return records.stale(transition.from_epoch, found or 0)
    for number, state in transition.states.items():
        if number in stored.registered:
            await connection.execute(
                sa.update(embedding_version)
                .where(embedding_version.c.id == number)
                .values(state=state, state_since=stored.now)
            )
    if transition.record is not None:
        await keep(connection, transition.record)
    return None


async def keep(connection: AsyncConnection, record: Record) -> None:
    """Add a line to the history."""
    detail = Detail(gates=record.gates, figures=_finite(record.figures), thresholds=_finite(record.thresholds))
    await connection.execute(
        sa.insert(embedding_history).values(
            epoch=record.epoch,
            action=record.action,
            version=record.version,
            at=record.at,
            who=record.who,
            note=record.note,
            done=record.done,
            forced=record.forced,
            detail=msgspec.json.encode(detail).decode(),
        )
    )


def _finite(figures: dict[str, float]) -> dict[str, float]:
    """Leave out what JSON has no word for."""
    return {name: value for name, value in figures.items() if math.isfinite(value)}


async def history(connection: AsyncConnection) -> tuple[Record, ...]:
    """Return every line of the history, oldest first."""
    rows = await connection.execute(sa.select(embedding_history).order_by(embedding_history.c.id))
    return tuple(_records(rows.all()))


def _records(rows: Sequence[sa.Row[tuple[object, ...]]]) -> list[Record]:
    found = []
    for row in rows:
        detail = _detail.decode(row.detail)
        found.append(
            Record(
                action=row.action,
                version=row.version,
                epoch=row.epoch,
                at=row.at,
                who=row.who,
                note=row.note,
                done=row.done,
                gates=detail.gates,
                forced=row.forced,
                figures=detail.figures,
                thresholds=detail.thresholds,
            )
        )
    return found
