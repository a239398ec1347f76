"""Search where memory has no room: a whole tenant, or a user with more events than fit.

The candidates are the nearest by their vectors, which PostgreSQL finds: through an HNSW index with iterative scan once
there is one, else by looking at all. They are then ranked as any are, words and all, among themselves and with the
turns beside them; so what shares words but no meaning with the question may be missed, and the answer says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schema.embeddings import MAX_VECTOR, relation_name
from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId
from server.database.round_trip import SETTING_TENANT, Statement, array, round_trip
from server.database.tenant import Tenant
from server.embeddings.versions import Version
from server.errors import NotFound
from server.log.stored import COLUMNS, StoredEvent, from_row
from server.retrieval.index import Index
from server.retrieval.text import build
from server.retrieval.turns import Entry, Key, Mask
from server.search.asked import Asked
from server.search.family import Family
from server.search.labels import member_label, member_labels
from server.search.near import index_name

Vector = npt.NDArray[np.float32]

CANDIDATES: Final = 100  # at least; as many as are asked for
_FOREVER: Final = 2**62  # a seq that no conversation reaches
_BESIDE: Final = 1  # turns on each side that come along, to be scored with

# As many candidates as pgvector allows; where filters leave too few of them, iterative scan goes on.
SCAN: Final = """
SELECT set_config('hnsw.iterative_scan', 'strict_order', true), set_config('hnsw.ef_search', '1000', true),
    set_config('hnsw.max_scan_tuples', '200000', true)
"""
_SETTING_SCAN: Final = Statement(SCAN)
_NEAR: Final = """
WITH near AS MATERIALIZED (
    SELECT v.user_key, v.conversation, v.seq FROM {relation} v
    WHERE v.tenant_id = %(tenant)s {scope} {filter}
    ORDER BY v.embedding <=> %(vector)s::{type} LIMIT %(candidates)s
)
SELECT n.user_key, n.conversation, n.seq, s.id
FROM near n CROSS JOIN LATERAL (
    (SELECT c.id FROM conversation c
     WHERE c.user_key = n.user_key AND c.id = n.conversation AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
       AND c.floor < n.seq {shown})
    UNION ALL
    (SELECT c.id FROM conversation c
     WHERE c.user_key = n.user_key AND c.parent IS NOT NULL AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
       AND c.floor < n.seq AND c.lineage_end[array_position(c.lineage, n.conversation)] >= n.seq {shown}
     ORDER BY c.id)
    LIMIT 1
) s
WHERE NOT EXISTS (
    SELECT FROM event d WHERE d.user_key = n.user_key AND d.conversation = n.conversation AND d.type = 'deletion'
        AND d.tenant_id = %(tenant)s AND d.content = '{{"seq":' || n.seq || '}}')
"""
_FILTER: Final = """
      AND EXISTS (
        SELECT FROM event e
        WHERE e.user_key = v.user_key AND e.conversation = v.conversation AND e.seq = v.seq
          AND e.tenant_id = %(tenant)s AND e.erased_at IS NULL
          AND (%(roles)s::text[] IS NULL OR e.role = ANY (%(roles)s::text[]))
          AND (%(types)s::text[] IS NULL OR e.type = ANY (%(types)s::text[]))
          AND (%(after)s::timestamptz IS NULL OR e.occurred_at >= %(after)s::timestamptz)
          AND (%(before)s::timestamptz IS NULL OR e.occurred_at < %(before)s::timestamptz)
          AND (%(sessions)s::text[] IS NULL OR e.session = ANY (%(sessions)s::text[]))
          AND (%(within)s::uuid[] IS NULL OR e.conversation = ANY (%(within)s::uuid[])))
"""
_AROUND: Final = """
SELECT DISTINCT ON (e.user_key, e.conversation, e.seq) e.user_key, vector_send(v.embedding::vector), {columns}
FROM unnest(%(keys)s::bigint[], %(owners)s::uuid[], %(seqs)s::bigint[]) AS w(user_key, owner, seq)
JOIN event e ON e.user_key = w.user_key AND e.conversation = w.owner AND e.tenant_id = %(tenant)s
    AND e.seq BETWEEN w.seq - {beside} AND w.seq + {beside} AND e.erased_at IS NULL
LEFT JOIN {relation} v ON v.user_key = e.user_key AND v.conversation = e.conversation AND v.seq = e.seq
    AND v.tenant_id = %(tenant)s
ORDER BY e.user_key, e.conversation, e.seq
"""
_VALID: Final = Statement("""
SELECT coalesce((SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass(%(name)s::text)), false)
""")
_LINEAGE: Final = Statement("""
SELECT c.lineage FROM conversation c
WHERE c.user_key = %(user_key)s AND c.id = %(id)s AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
""")


@dataclass(frozen=True)
class Wide:
    """An index of the candidates and their neighbours; ``only`` are the candidates.

    ``events``: all of them. ``places``: where each candidate is shown. ``approximate``: an HNSW index chose them.
    """

    index: Index
    only: Mask
    events: dict[Key, StoredEvent]
    places: dict[Key, ConversationId]
    approximate: bool


async def candidates(
    database: Database,
    executor: Executor,
    tenant: Tenant,
    version: Version,
    vector: Vector,
    asked: Asked,
    family: Family | None,
) -> Wide:
    """Find what may answer, of a tenant or (``family``) of a user or a conversation of it.

    Raises NotFound and DatabaseUnavailable.
    """
    kind = "vector" if version.dimensions <= MAX_VECTOR else "halfvec"
    filters = asked.filters
    values: dict[str, Any] = {
        "tenant": tenant.id,
        "vector": "[" + ",".join(f"{number:.8g}" for number in vector) + "]",
        "until": _FOREVER if asked.until is None else asked.until,
        "candidates": max(CANDIDATES, asked.k),
        "roles": _texts(filters.roles),
        "types": _texts(filters.types),
        "after": None if filters.occurred_after is None else filters.occurred_after.isoformat(),
        "before": None if filters.occurred_before is None else filters.occurred_before.isoformat(),
        "sessions": _texts(filters.sessions),
        "within": None if asked.within is None else array(at.uuid for at in asked.within),
        "name": index_name(version.id),
    }
    scope = "tenant"
    filtered = any(getattr(filters, name) is not None for name in filters.__struct_fields__)
    async with hot_connection(database) as connection:
        if asked.conversation is not None:
            at = asked.conversation
            values |= {"user_key": at.user_key, "id": at.uuid}
            rows = await round_trip(connection, [SETTING_TENANT(values), _LINEAGE(values)])
            if not rows:
                raise NotFound("no such conversation")
            values["owners"] = array([at.uuid, *(rows[0][0] or [])])
            scope = "conversation"
        elif family is not None:
            values |= {"user_key": family.user_key, "user": family.user}
            scope = "user"
        ((valid,),) = await round_trip(connection, [_VALID(values)])
        setup = [SETTING_TENANT(values), _SETTING_SCAN({})]
        near = await round_trip(connection, [*setup, _nearest(version.id, kind, scope, filtered)(values)])
        values |= {
            "keys": array(row[0] for row in near),
            "owners": array(row[1] for row in near),
            "seqs": array(row[2] for row in near),
        }
        around = await round_trip(connection, [SETTING_TENANT(values), _around(version.id)(values)])
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(executor, _indexed, near, around, asked, bool(valid))


def _indexed(
    near: Sequence[tuple[Any, ...]], around: Iterable[tuple[Any, ...]], asked: Asked, approximate: bool
) -> Wide:
    index = Index()
    entries: list[Entry] = []
    vectors: dict[Key, Vector] = {}
    events: dict[Key, StoredEvent] = {}
    for user_key, vector, *columns in around:
        event = from_row(tuple(columns))
        text = build(event)
        if text is None:
            continue
        entry = Entry(
            conversation=str(ConversationId(user_key, columns[0])),
            seq=event.seq,
            text=text.text,
            at=event.occurred_at.timestamp(),
            type=event.type,
            role=event.role,
            session=event.session,
            speaker=text.speaker,
            asks=text.asks,
        )
        entries.append(entry)
        events[entry.key] = event
        if vector is not None:
            vectors[entry.key] = np.frombuffer(bytes(vector), ">f4", offset=4).astype(np.float32)
    index.add(entries)
    if vectors:
        index.embed(list(vectors), np.stack(list(vectors.values())))
    places: dict[Key, ConversationId] = {}
    for user_key, owner, seq, shown in near:
        at = ConversationId(user_key, owner)
        key = Key(str(at), seq)
        if key in events and _has_members(events[key], asked):
            places[key] = ConversationId(user_key, shown)
    return Wide(index, index.turns.select(keys=places), events, places, approximate)


def _has_members(event: StoredEvent, asked: Asked) -> bool:
    wanted = {member_label(name, value) for name, value in (asked.filters.metadata or {}).items()}
    return wanted <= member_labels(event.metadata)


def _texts(words: Sequence[str] | None) -> str | None:
    if words is None:
        return None
    quoted = ('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' for word in words)
    return "{" + ",".join(quoted) + "}"


@cache
def _nearest(version: int, kind: str, scope: str, filtered: bool) -> Statement:
    of, shown = {
        "tenant": ("", ""),
        "user": ("AND v.user_key = %(user_key)s", "AND c.user_id IS NOT DISTINCT FROM %(user)s::text"),
        "conversation": (
            "AND v.user_key = %(user_key)s AND v.conversation = ANY (%(owners)s::uuid[]) AND v.seq <= %(until)s",
            "AND c.id = %(id)s",
        ),
    }[scope]
    which = _FILTER if filtered else ""  # looking each event up takes as long as comparing the vectors
    return Statement(_NEAR.format(relation=relation_name(version), scope=of, shown=shown, type=kind, filter=which))


@cache
def _around(version: int) -> Statement:
    return Statement(_AROUND.format(relation=relation_name(version), columns=COLUMNS, beside=_BESIDE))
