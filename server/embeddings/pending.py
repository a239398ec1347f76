"""What of a conversation has no vector yet, read and written; the vectors in between are made outside any transaction.

What is written is held against the log once more, under a lock that keeps erasures out and lets appends pass: an event
that was erased meanwhile gets no vector. Of the others the text cannot have changed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

import numpy as np

from schema.embeddings import MAX_VECTOR, relation_name
from server.database.ids import ConversationId
from server.database.round_trip import SETTING_TENANT, HotConnection, Statement, array, round_trip
from server.database.tenant import Tenant
from server.embeddings.providers import Vectors
from server.embeddings.texts import TYPES
from server.log.stored import COLUMNS, StoredEvent, from_row

_PAGE_BYTES: Final = 4 * 1024 * 1024  # of content that one read takes

# Who embeds a conversation holds an advisory lock on it, in its session: two who did would be right, but wasteful.
_READ: Final = """
WITH asked AS MATERIALIZED (
    SELECT a.ord, a.user_key, a.id, a.base, pg_try_advisory_lock(a.lock) AS mine
    FROM unnest(%(keys)s::bigint[], %(ids)s::uuid[], %(bases)s::bigint[], %(locks)s::bigint[])
        WITH ORDINALITY AS a(user_key, id, base, lock, ord)
), c AS MATERIALIZED (
    SELECT a.ord, a.mine, a.base, c.user_key, c.id, c.head, coalesce(p.seq, 0) AS done
    FROM asked a
    JOIN conversation c ON c.user_key = a.user_key AND c.id = a.id AND c.tenant_id = %(tenant)s
    LEFT JOIN embedding_progress p ON p.user_key = c.user_key AND p.conversation = c.id AND p.version = %(version)s
        AND p.tenant_id = %(tenant)s
), stretch AS MATERIALIZED (
    SELECT c.*, f.seq AS low, least(f.seq + %(page)s - 1, c.head) AS high
    FROM c CROSS JOIN LATERAL (
        SELECT e.seq FROM event e
        WHERE e.user_key = c.user_key AND e.conversation = c.id AND e.tenant_id = %(tenant)s AND e.seq > c.done
          AND {missing}
        ORDER BY e.seq LIMIT 1
    ) f
    WHERE c.mine AND c.head > c.done
)
SELECT c.ord, c.mine, c.head, c.done, s.high, s.low <= c.base, x.*
FROM c LEFT JOIN stretch s USING (ord) LEFT JOIN (
    SELECT s.ord, max(e.seq) OVER (PARTITION BY s.ord) AS last, {columns},
        sum(octet_length(e.content)) OVER (ORDER BY s.ord, e.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
            AS before
    FROM stretch s JOIN event e ON e.user_key = s.user_key AND e.conversation = s.id AND e.tenant_id = %(tenant)s
        AND e.seq BETWEEN s.low AND s.high AND s.low > s.base AND {missing}
) x ON x.ord = c.ord AND coalesce(x.before, 0) < %(bytes)s
ORDER BY c.ord, x.seq
"""
_MISSING: Final = """
    e.erased_at IS NULL AND e.type = ANY (%(types)s::text[]) AND NOT EXISTS (
        SELECT FROM {relation} v WHERE v.user_key = e.user_key AND v.conversation = e.conversation AND v.seq = e.seq
            AND v.tenant_id = %(tenant)s)
"""

_LOCK: Final = Statement("""
SELECT c.head FROM conversation c
WHERE (c.user_key, c.id) IN (SELECT * FROM unnest(%(keys)s::bigint[], %(ids)s::uuid[])) AND c.tenant_id = %(tenant)s
ORDER BY c.user_key, c.id
FOR KEY SHARE
""")

UNLOCK: Final = Statement("SELECT pg_advisory_unlock_all()")

_WRITE: Final = """
WITH batch AS MATERIALIZED (
    SELECT b.ord, c.user_key, c.id, least(b.upto, c.head) AS upto
    FROM unnest(%(keys)s::bigint[], %(ids)s::uuid[], %(uptos)s::bigint[]) WITH ORDINALITY AS b(user_key, id, upto, ord)
    JOIN conversation c ON c.user_key = b.user_key AND c.id = b.id AND c.tenant_id = %(tenant)s
), due AS MATERIALIZED (
    SELECT b.ord, b.user_key, b.id, r.seq, r.text_hash, r.embedding
    FROM unnest(%(ords)s::bigint[], %(seqs)s::bigint[], %(hashes)s::bytea[], %(vectors)s::{type}[])
        AS r(ord, seq, text_hash, embedding)
    JOIN batch b USING (ord)
), written AS (
    INSERT INTO {relation} (user_key, conversation, seq, tenant_id, text_hash, embedding)
    SELECT d.user_key, d.id, d.seq, %(tenant)s, d.text_hash, d.embedding
    FROM due d CROSS JOIN LATERAL (
        SELECT FROM event e
        WHERE e.user_key = d.user_key AND e.conversation = d.id AND e.seq = d.seq AND e.tenant_id = %(tenant)s
          AND e.erased_at IS NULL
        OFFSET 0  -- each event looked up by its key: a plan that joins otherwise reads the conversation for each
    ) e
    ORDER BY d.ord, d.seq
    ON CONFLICT DO NOTHING
    RETURNING user_key, conversation, seq
), recovered AS (
    DELETE FROM embedding_failure f USING written w
    WHERE f.user_key = w.user_key AND f.conversation = w.conversation AND f.version = %(version)s AND f.seq = w.seq
      AND f.tenant_id = %(tenant)s
), failed AS (
    INSERT INTO embedding_failure (user_key, conversation, version, seq, tenant_id, error, attempts)
    SELECT r.user_key, r.id, %(version)s, r.seq, %(tenant)s, r.error, 1
    FROM (
        SELECT b.user_key, b.id, r.seq, r.error
        FROM unnest(%(failed_ords)s::bigint[], %(failed_seqs)s::bigint[], %(errors)s::text[]) AS r(ord, seq, error)
        JOIN batch b USING (ord)
    ) r CROSS JOIN LATERAL (
        SELECT FROM event e
        WHERE e.user_key = r.user_key AND e.conversation = r.id AND e.seq = r.seq AND e.tenant_id = %(tenant)s
          AND e.erased_at IS NULL
        OFFSET 0
    ) e
    ON CONFLICT (user_key, conversation, version, seq) DO UPDATE
        SET attempts = embedding_failure.attempts + 1, error = excluded.error, failed_at = now()
), progressed AS (
    INSERT INTO embedding_progress (user_key, conversation, version, tenant_id, seq)
    SELECT b.user_key, b.id, %(version)s, %(tenant)s, b.upto FROM batch b ORDER BY b.ord
    ON CONFLICT (user_key, conversation, version) DO UPDATE SET seq = greatest(embedding_progress.seq, excluded.seq)
)
SELECT b.ord, b.upto FROM batch b
"""


class Stretch(NamedTuple):
    """What one conversation has without a vector: the events, in order.

    ``upto`` is where the conversation's progress may go when those are written.
    """

    conversation: ConversationId
    head: int
    upto: int
    events: list[StoredEvent]


class Read(NamedTuple):
    """What a read found; what it left for the next one is in none of the lists.

    ``busy`` are those that another embedder works on, ``finished`` those with nothing to do, ``behind`` those that lack
    a vector of an event up to their base.
    """

    stretches: list[Stretch]
    busy: list[ConversationId]
    finished: list[ConversationId]
    behind: list[ConversationId]


class Written(NamedTuple):
    """One stretch with its vectors: rows of ``vectors`` belong to ``seqs``; ``errors`` are classes by seq."""

    stretch: Stretch
    seqs: list[int]
    hashes: list[bytes]
    vectors: Vectors
    errors: dict[int, str]


@cache
def _reading(version: int) -> Statement:
    missing = _MISSING.format(relation=relation_name(version))
    return Statement(_READ.format(missing=missing, columns=COLUMNS))


@cache
def _writing(version: int, kind: str) -> Statement:
    return Statement(_WRITE.format(relation=relation_name(version), type=kind), binary=("vectors",))


async def read(
    connection: HotConnection,
    tenant: Tenant,
    version: int,
    conversations: Sequence[ConversationId],
    *,
    page: int,
    bases: Sequence[int] | None = None,
) -> Read:
    """Read what the conversations have without a vector, up to ``page`` events each and about 4 MiB in all.

    With ``bases``, one a conversation, only of those that lack nothing up to there. Takes the session's advisory lock
    of each, until UNLOCK. Raises psycopg.Error.
    """
    values = {
        "tenant": tenant.id,
        "version": version,
        "keys": array(at.user_key for at in conversations),
        "ids": array(at.uuid for at in conversations),
        "bases": array([0] * len(conversations) if bases is None else bases),
        "locks": array(_lock_number(version, at) for at in conversations),
        "types": array(TYPES),
        "page": page,
        "bytes": _PAGE_BYTES,
    }
    rows = await round_trip(connection, [SETTING_TENANT(values), _reading(version)(values)])
    found = Read([], [], [], [])
    gone = set(conversations)
    for number, group in groupby(rows, key=itemgetter(0)):
        at = conversations[number - 1]
        gone.discard(at)
        own = list(group)
        _, mine, head, done, high, is_behind, _, last = own[0][:8]
        if not mine:
            found.busy.append(at)
        elif head <= done:
            found.finished.append(at)
        elif high is None:  # nothing that has a text
            found.stretches.append(Stretch(at, head, head, []))
        elif is_behind:
            found.behind.append(at)
        elif last is not None:
            events = [from_row(row[8:22]) for row in own]
            whole = events[-1].seq == last
            found.stretches.append(Stretch(at, head, high if whole else events[-1].seq, events))
    found.finished.extend(gone)
    return found


async def write(
    connection: HotConnection, tenant: Tenant, version: int, vector_type: VectorType, batch: Sequence[Written]
) -> dict[ConversationId, int]:
    """Store vectors, dead letters and progress in one transaction, and let go of the advisory locks.

    Returns how far each conversation has come; one that is no more is missing. Raises psycopg.Error.
    """
    batch = sorted(batch, key=lambda one: one.stretch.conversation)
    numbered = list(enumerate(batch, 1))
    vectors = [one.vectors for one in batch if one.seqs]
    values = {
        "tenant": tenant.id,
        "version": version,
        "keys": array(one.stretch.conversation.user_key for one in batch),
        "ids": array(one.stretch.conversation.uuid for one in batch),
        "uptos": array(one.stretch.upto for one in batch),
        "ords": array(number for number, one in numbered for _ in one.seqs),
        "seqs": array(seq for one in batch for seq in one.seqs),
        "hashes": array('"\\\\x' + hashed.hex() + '"' for one in batch for hashed in one.hashes),
        "vectors": vector_type.encode(np.concatenate(vectors) if vectors else np.empty((0, 0), np.float32)),
        "failed_ords": array(number for number, one in numbered for _ in one.errors),
        "failed_seqs": array(seq for one in batch for seq in one.errors),
        "errors": array(error for one in batch for error in one.errors.values()),
    }
    calls = [SETTING_TENANT(values), _LOCK(values), UNLOCK(values), _writing(version, vector_type.name)(values)]
    return {batch[ord_ - 1].stretch.conversation: upto for ord_, upto in await round_trip(connection, calls)}


class VectorType(NamedTuple):
    """The type of a relation's vectors, ``vector`` or ``halfvec``, with its number in this database."""

    name: str
    oid: int

    @property
    def number(self) -> str:
        """The type of one component as it is sent."""
        return ">f4" if self.name == "vector" else ">f2"

    def encode(self, vectors: Vectors) -> bytes:
        """Return vectors (n, d) as an array of this type in PostgreSQL's binary form."""
        count, dimensions = vectors.shape
        if count == 0:
            return struct.pack(">iiI", 0, 0, self.oid)
        parts = [("size", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("v", self.number, dimensions)]
        rows = np.empty(count, parts)
        rows["size"], rows["dimensions"], rows["unused"], rows["v"] = rows.itemsize - 4, dimensions, 0, vectors
        return struct.pack(">iiIii", 1, 0, self.oid, count, 1) + rows.tobytes()


async def vector_type(connection: HotConnection, dimensions: int) -> VectorType:
    """Look up the type that vectors of so many dimensions have."""
    name = "vector" if dimensions <= MAX_VECTOR else "halfvec"
    ((oid,),) = await round_trip(connection, [_TYPE({"name": name})])
    return VectorType(name, oid)


_TYPE: Final = Statement("SELECT to_regtype(%(name)s::text)::oid::bigint")


def _lock_number(version: int, at: ConversationId) -> int:
    data = struct.pack(">qi", at.user_key, version) + at.uuid.bytes
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=b"embedding").digest(), signed=True)
