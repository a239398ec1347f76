"""The statements of an append, in the order in which one pipeline sends them.

Locks come first, in a statement of their own: under READ COMMITTED the next statement takes a new snapshot, and so sees
whatever the transactions that we waited for have committed (their heads, their idempotency keys).
"""

from __future__ import annotations

from typing import Final

from server.database.round_trip import Statement

# In order of id, so that two batches that share conversations cannot wait for each other in a circle.
LOCKING: Final = Statement("""
SELECT c.head FROM conversation c
WHERE (c.user_key, c.id) IN (SELECT * FROM unnest(%(keys)s::bigint[], %(ids)s::uuid[]))
ORDER BY c.user_key, c.id
FOR UPDATE
""")

# A unit is what one conversation gets from one batch. Its events draw their seq here, under the row lock, in the
# statement that inserts them.
WRITE: Final = """
WITH unit AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(units)s::json) AS u(
        ord int, user_key bigint, id uuid, n int, expected bigint, key bytea, body bytea, seqs bigint[])
), prior AS (
    SELECT u.ord, i.body_digest, i.seqs, i.head
    FROM unit u JOIN idempotency i ON i.user_key = u.user_key AND i.key_digest = u.key AND i.tenant_id = %(tenant)s
), bumped AS (
    UPDATE conversation c
    -- A retry that adds nothing is no event, and leaves the time of the last one alone.
    SET head = c.head + u.n,
        recorded_at = CASE WHEN u.n = 0 THEN c.recorded_at ELSE greatest(c.recorded_at, clock_timestamp()) END
    FROM unit u
    WHERE c.user_key = u.user_key AND c.id = u.id AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
      AND (u.expected IS NULL OR u.expected = c.head)
      AND NOT EXISTS (SELECT FROM prior p WHERE p.ord = u.ord)
    RETURNING u.ord, u.user_key, c.id, u.key, u.body, u.seqs, c.head - u.n AS base, c.head, c.recorded_at
), written AS (
    INSERT INTO event (user_key, conversation, seq, recorded_at, occurred_at, tenant_id, type, role, client_key,
                       client_digest, client_id, name, call_id, session, run_id, content, metadata)
    SELECT b.user_key, b.id, b.base + e.pos, b.recorded_at, coalesce(e.occurred_at, b.recorded_at), %(tenant)s, e.type,
           e.role, e.client_key, e.client_digest, e.client_id, e.name, e.call_id, e.session, e.run_id, e.content,
           e.metadata
    FROM bumped b JOIN json_to_recordset(%(events)s::json) AS e(
        ord int, pos int, occurred_at timestamptz, type text, role text, client_key bytea, client_digest bytea,
        client_id text, name text, call_id text, session text, run_id text, content text, metadata text) USING (ord)
), remembered AS (
    INSERT INTO idempotency (user_key, key_digest, tenant_id, body_digest, conversation, seqs, head)
    SELECT b.user_key, b.key, %(tenant)s, b.body, b.id,
           coalesce(b.seqs, ARRAY(SELECT generate_series(b.base + 1, b.head))), b.head
    FROM bumped b WHERE b.key IS NOT NULL
)
SELECT u.ord, b.base, b.head, p.seqs, p.head, p.body_digest, c.head
FROM unit u
LEFT JOIN bumped b USING (ord)
LEFT JOIN prior p USING (ord)
LEFT JOIN conversation c
    ON c.user_key = u.user_key AND c.id = u.id AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
ORDER BY u.ord
"""

WRITING: Final = Statement(WRITE)

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
