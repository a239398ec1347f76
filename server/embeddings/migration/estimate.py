"""What a migration to a version would take: texts, time at the measured rate, disk. It changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Final

import sqlalchemy as sa

from schema.embeddings import MAX_VECTOR
from server.database.connections import Database
from server.database.tenant import Tenant
from server.embeddings.model import Model
from server.embeddings.session import ROLE
from server.embeddings.texts import TYPES, build
from server.embeddings.versions import Version
from server.log.retention import tenants
from server.log.stored import COLUMNS, from_row

SECONDS: Final = 5.0  # that the rate is measured for, at most
_SAMPLE: Final = 400  # events
_FIRST, _AT_ONCE = 32, 256  # texts: to begin with, and between two looks at the clock
_PAGE: Final = 8192 - 24  # bytes that rows can have of a page
_ROW: Final = 24 + 8 + 16 + 8 + 8 + 40 + 4 + 4  # bytes of a row beside its vector: header, key, hash, pointer
_KEY_ENTRY: Final = 70  # bytes that a row has in the index of the primary key, whose pages are two thirds full
_GRAPH: Final = 400  # bytes that a row has in an HNSW index beside its vector: its neighbours

_COUNT: Final = sa.text(
    """
    SELECT count(*) FROM event e WHERE e.tenant_id = :tenant AND e.erased_at IS NULL AND e.type = ANY (:types)
    """
)
# A stretch of each of some conversations, chosen by chance.
_SOME: Final = sa.text(
    f"""
    SELECT {COLUMNS} FROM (
        SELECT c.user_key, c.id FROM conversation c WHERE c.tenant_id = :tenant ORDER BY random() LIMIT 40
    ) c CROSS JOIN LATERAL (
        SELECT * FROM event e
        WHERE e.user_key = c.user_key AND e.conversation = c.id AND e.tenant_id = :tenant AND e.erased_at IS NULL
          AND e.type = ANY (:types)
        ORDER BY e.seq LIMIT 20
    ) e
    """  # noqa: S608 - constants
)


async def estimate(
    database: Database, version: Version, *, key: str | None = None, threshold: int = 20_000
) -> dict[str, float]:
    """Return ``texts`` to embed, ``rate`` (texts a second, as measured now), ``seconds`` and ``bytes`` of disk.

    ``index_bytes`` of them are the HNSW index's, which is built beyond ``threshold`` vectors. The rate is of one worker
    on this machine while it is as busy as it is now. Raises ProviderUnavailable, ModelRefused, DatabaseUnavailable.
    """
    events = seen = 0
    texts: list[str] = []
    for tenant in await tenants(database):
        async with database.transaction(tenant, role=ROLE) as connection:
            values = {"tenant": tenant.id, "types": list(TYPES)}
            events += await connection.scalar(_COUNT, values) or 0
        if seen < _SAMPLE:
            found, some = await _some(database, tenant)
            seen += found
            texts += some
    share = len(texts) / seen if seen else 1.0
    count = round(events * share)
    rate = await asyncio.to_thread(_rate, version, key, texts)
    whole, index = disk(count, version.dimensions, threshold)
    return {
        "texts": float(count),
        "rate": rate,
        "seconds": count / rate if rate else 0.0,
        "bytes": float(whole),
        "index_bytes": float(index),
    }


async def _some(database: Database, tenant: Tenant) -> tuple[int, list[str]]:
    async with database.transaction(tenant, role=ROLE) as connection:
        rows = (await connection.execute(_SOME, {"tenant": tenant.id, "types": list(TYPES)})).all()
    return len(rows), [built.text for row in rows if (built := build(from_row(tuple(row))))]


def _rate(version: Version, key: str | None, texts: Sequence[str]) -> float:
    model = version.open(key)
    try:
        return bare_rate(model, texts)
    finally:
        model.close()


def bare_rate(model: Model, texts: Sequence[str], *, seconds: float = SECONDS) -> float:
    """Return how many of these texts a model embeds in a second, alone; 0 without texts. Blocking."""
    if not texts:
        return 0.0
    size = min(len(texts), _AT_ONCE)
    model.embed_documents(texts[:_FIRST])  # what is slow only once
    source = cycle(texts)
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds and (done < len(texts) or spent < seconds / 5):
        model.embed_documents(list(islice(source, size)))
        done += size
    return done / (time.perf_counter() - began)


def disk(texts: int, dimensions: int, threshold: int) -> tuple[int, int]:
    """Return the bytes that so many vectors take with their indexes, and those of the HNSW index alone.

    Rows of more than half a page leave the rest of it empty.
    """
    vector = 8 + dimensions * (4 if dimensions <= MAX_VECTOR else 2)
    heap = -(-texts // max(1, _PAGE // (_ROW + vector))) * 8192
    graph = -(-texts // max(1, _PAGE // (vector + _GRAPH))) * 8192 if texts >= threshold else 0
    return heap + texts * _KEY_ENTRY + graph, graph
