"""The statements of an append, in the order in which one pipeline sends them.

Locks come first, in a statement of their own: under READ COMMITTED the next statement takes a new snapshot, and so sees
whatever the transactions that we waited for have committed (their heads, their idempotency keys).
"""

from __future__ import annotations

from typing import Final

from server.database.round_trip import Statement

# Tables are small when a connection plans these, and the plan then lasts: a join with few conversations may be planned
# as a walk through all of a tenant's. So what is looked up is bounded by an array of ids, or a look-up each (LIMIT).

# In order of id, so that two batches that share conversations cannot wait for each other in a circle.
LOCKING: Final = Statement("""
SELECT c.head FROM conversation c
WHERE c.id = ANY(%(ids)s::uuid[]) AND (c.user_key, c.id) IN (SELECT * FROM unnest(%(keys)s::bigint[], %(ids)s::uuid[]))
ORDER BY c.user_key, c.id
FOR UPDATE
""")

# A unit is what one conversation gets from one batch. Its events draw their seq here, under the row lock, in the
# statement that inserts them: those of a unit are the ``n`` after the first ``start``. A column that nobody fills is a
# NULL array, and so is the type where all are messages (which have a role and content, so that all are counted).
WRITE: Final = """
WITH unit AS MATERIALIZED (
    SELECT * FROM unnest(
        %(keys)s::bigint[], %(ids)s::uuid[], %(starts)s::int[], %(counts)s::int[], %(expected)s::bigint[],
        %(idempotency_keys)s::bytea[], %(bodies)s::bytea[]
    ) WITH ORDINALITY AS u(user_key, id, start, n, expected, key, body, ord)
), prior AS MATERIALIZED (
    SELECT u.ord, i.body_digest, i.seqs, i.head
    FROM unit u CROSS JOIN LATERAL (
        SELECT i.body_digest, i.seqs, i.head FROM idempotency i
        WHERE i.user_key = u.user_key AND i.key_digest = u.key AND i.tenant_id = %(tenant)s LIMIT 1
    ) i
    WHERE u.key IS NOT NULL
), bumped AS (
    UPDATE conversation c
    -- A retry that adds nothing is no event, and leaves the time of the last one alone.
    SET head = c.head + u.n,
        recorded_at = CASE WHEN u.n = 0 THEN c.recorded_at ELSE greatest(c.recorded_at, clock_timestamp()) END
    FROM unit u
    WHERE c.user_key = u.user_key AND c.id = u.id AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
      AND c.id = ANY(%(ids)s::uuid[])
      AND (u.expected IS NULL OR u.expected = c.head)
      AND NOT EXISTS (SELECT FROM prior p WHERE p.ord = u.ord)
    RETURNING u.ord, u.start, u.n, u.user_key, c.id, u.key, u.body, c.head - u.n AS base, c.head, c.recorded_at,
              c.epoch, c.floor, c.touches
), written AS (
    INSERT INTO event (user_key, conversation, seq, recorded_at, occurred_at, tenant_id, type, role, client_key,
                       client_digest, client_id, name, call_id, session, run_id, content, metadata)
    SELECT b.user_key, b.id, b.base + e.place - b.start, b.recorded_at,
           coalesce(e.occurred_at::timestamptz, b.recorded_at), %(tenant)s, coalesce(e.type, 'message'), e.role,
           e.client_key, e.client_digest, e.client_id, e.name, e.call_id, e.session, e.run_id, e.content, e.metadata
    FROM bumped b JOIN unnest(
        %(type)s::text[], %(role)s::text[], %(content)s::text[], %(metadata)s::text[], %(occurred_at)s::text[],
        %(client_key)s::bytea[], %(client_digest)s::bytea[], %(client_id)s::text[], %(name)s::text[],
        %(call_id)s::text[], %(session)s::text[], %(run_id)s::text[]
    ) WITH ORDINALITY AS e(
        type, role, content, metadata, occurred_at, client_key, client_digest, client_id, name, call_id, session,
        run_id, place
    ) ON e.place > b.start AND e.place <= b.start + b.n
), remembered AS (
    INSERT INTO idempotency (user_key, key_digest, tenant_id, body_digest, conversation, seqs, head)
    SELECT b.user_key, b.key, %(tenant)s, b.body, b.id,
           coalesce(%(seqs)s::bigint[], ARRAY(SELECT generate_series(b.base + 1, b.head))), b.head
    FROM bumped b WHERE b.key IS NOT NULL
)
SELECT b.base, b.head, p.seqs, p.head, p.body_digest, c.head, b.epoch, b.floor, b.touches, b.recorded_at
FROM unit u
LEFT JOIN bumped b USING (ord)
LEFT JOIN prior p USING (ord)
LEFT JOIN LATERAL (
    SELECT c.head FROM conversation c
    WHERE b.head IS NULL AND c.user_key = u.user_key AND c.id = u.id AND c.tenant_id = %(tenant)s
      AND c.deleted_at IS NULL LIMIT 1
) c ON true
ORDER BY u.ord
"""

# As texts these would be quoted by one side and unquoted by the other.
_BINARY: Final = (
    *("idempotency_keys", "bodies", "type", "role", "content", "metadata", "occurred_at", "client_key"),
    *("client_digest", "client_id", "name", "call_id", "session", "run_id", "attempt_digests"),
)
WRITING: Final = Statement(WRITE, binary=_BINARY)

# The same, for requests that say how often they have been tried; a unit may hold several of them.
WRITING_ATTEMPTS: Final = Statement(
    WRITE.replace(
        ")\nSELECT b.base",
        """), tried AS (
    INSERT INTO retry_chain (user_key, conversation, digest, head, tenant_id, seqs, level)
    SELECT b.user_key, b.id, a.digest, b.base + a.last, %(tenant)s,
           coalesce(%(seqs)s::bigint[], ARRAY(SELECT generate_series(b.base + a.first, b.base + a.last))), a.level
    FROM bumped b JOIN unnest(
        %(attempt_units)s::int[], %(attempt_digests)s::bytea[], %(attempt_firsts)s::bigint[],
        %(attempt_lasts)s::bigint[], %(attempt_levels)s::int[]
    ) AS a(unit, digest, first, last, level) ON a.unit = b.ord
)
SELECT b.base""",
    ),
    binary=_BINARY,
)

LINEAGE: Final = Statement("""
SELECT c.head, c.fork_seq, c.lineage, c.lineage_end FROM conversation c
WHERE c.user_key = %(user_key)s AND c.id = %(id)s AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
""")

# Which of the caller's ids are taken, in the conversation itself or in what it shares with its ancestors.
TAKEN: Final = Statement("""
SELECT e.client_key, e.client_digest, e.conversation, e.seq FROM event e
WHERE e.user_key = %(user_key)s AND e.conversation = ANY(%(owners)s::uuid[])
  AND e.client_key = ANY(%(keys)s::bytea[]) AND e.tenant_id = %(tenant)s
""")
