"""Whether stored vectors are vectors, and whether the index finds them: counted by PostgreSQL, over all of them.

As the tables' owner, above the policies that keep tenants apart: no text is read for it.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import psycopg

from schema.embeddings import MAX_VECTOR, relation_name
from server.embeddings.lifecycle.figures.vectors import Vectors
from server.embeddings.lifecycle.gates.verification import Index
from server.embeddings.versions import Version

_QUERIES: Final = 40  # searches that are compared with exact ones
_BEST: Final = 10
_TIE: Final = 1e-6  # of distances

# The limits are those of lifecycle/figures/vectors.py. NaN sorts above infinity.
_VECTORS: Final = """
SELECT count(*), count(*) FILTER (WHERE n.norm >= 'Infinity'), count(*) FILTER (WHERE n.norm < 1e-6),
    count(*) FILTER (WHERE n.norm >= 1e-6 AND n.norm < 'Infinity' AND abs(n.norm - 1) > 1e-2),
    coalesce({norm}(avg(v.embedding) FILTER (WHERE n.norm >= 1e-6 AND n.norm < 'Infinity')), 0),
    (SELECT coalesce(sum(alike.rows), 0)::bigint FROM (
        SELECT count(*) AS rows FROM {relation} GROUP BY tenant_id, md5({send}(embedding))
        HAVING min(encode(text_hash, 'hex')) <> max(encode(text_hash, 'hex'))
    ) alike)
FROM {relation} v CROSS JOIN LATERAL (SELECT {norm}(v.embedding)) n(norm)
"""
_INDEX: Final = """
SELECT i.indexrelid::regclass::text, i.indisvalid, pg_get_expr(i.indpred, i.indrelid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam AND a.amname = 'hnsw'
WHERE i.indrelid = to_regclass(%s) ORDER BY i.indisvalid LIMIT 1
"""
# pgvector leaves what has no length out of an index for cosines, and does not say so.
_VISIBLE: Final = "SELECT count(*), count(*) FILTER (WHERE {norm}(embedding) > 0 AND ({predicate})) FROM {relation}"
_SAMPLE: Final = """
SELECT tenant_id, user_key, conversation, seq FROM {relation}
ORDER BY hashtextextended(user_key || ' ' || conversation || ' ' || seq, %s) LIMIT %s
"""
_NEAREST: Final = """
SELECT array(
    SELECT v.embedding <=> q.embedding FROM {relation} v ORDER BY v.embedding <=> q.embedding LIMIT {best}
)
FROM {relation} q WHERE q.user_key = %s AND q.conversation = %s AND q.seq = %s
"""

Place = tuple[int, int, UUID, int]  # tenant, user_key, conversation, seq
Owner = psycopg.AsyncConnection[Any]


def _names(version: Version) -> dict[str, str]:
    whole = version.dimensions <= MAX_VECTOR
    return {
        "relation": relation_name(version.id),
        "norm": "vector_norm" if whole else "l2_norm",
        "send": "vector_send" if whole else "halfvec_send",
    }


async def vectors(owner: Owner, version: Version) -> Vectors:
    """Count unsound and equal vectors; equal ones within a tenant, where equal texts have equal hashes."""
    cursor = await owner.execute(_VECTORS.format(**_names(version)).encode())
    row = await cursor.fetchone()
    assert row is not None
    rows, not_finite, zero, off_norm, concentration, alike = row
    return Vectors(
        rows=rows,
        not_finite=not_finite,
        zero=zero,
        off_norm=off_norm,
        alike=alike,
        concentration=concentration if rows > 1 else 0.0,
    )


async def some(owner: Owner, version: Version, count: int, seed: int) -> list[Place]:
    """Choose vectors by chance, the same for the same seed."""
    cursor = await owner.execute(_SAMPLE.format(**_names(version)).encode(), (seed, count))
    return await cursor.fetchall()


async def index(owner: Owner, version: Version, sample: list[Place]) -> Index | None:
    """Compare the HNSW index with exact search for some stored vectors; None where there is no index."""
    names = _names(version)
    found = await (await owner.execute(_INDEX, (names["relation"],))).fetchone()
    if found is None:
        return None
    _, valid, predicate = found
    counting = _VISIBLE.format(**names, predicate=predicate or "true").encode()
    row = await (await owner.execute(counting)).fetchone()
    assert row is not None
    rows, visible = row
    if not valid:
        return Index(valid=False, rows=rows, visible=0, queries=0, recall=0.0)
    chosen = sample[:_QUERIES]
    recalls = []
    for place in chosen:
        exact = await _nearest(owner, names, place, "SET LOCAL enable_indexscan = off")
        # As a search of a whole tenant looks; without the index there would be a sort.
        by_index = await _nearest(
            owner,
            names,
            place,
            "SET LOCAL enable_seqscan = off",
            "SET LOCAL enable_sort = off",
            "SET LOCAL hnsw.ef_search = 800",
            "SET LOCAL hnsw.iterative_scan = 'strict_order'",
        )
        if exact:
            recalls.append(sum(distance <= exact[-1] + _TIE for distance in by_index) / len(exact))
    recall = sum(recalls) / len(recalls) if recalls else 0.0
    return Index(valid=True, rows=rows, visible=visible, queries=len(recalls), recall=recall)


async def _nearest(owner: Owner, names: dict[str, str], place: Place, *settings: str) -> list[float]:
    async with owner.transaction():
        for setting in settings:
            await owner.execute(setting.encode())
        cursor = await owner.execute(_NEAREST.format(**names, best=_BEST).encode(), place[1:])
        row = await cursor.fetchone()
    # An erased one has no nearest.
    return [] if row is None else [float(distance) for distance in row[0]]
