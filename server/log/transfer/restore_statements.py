"""The statements of a restore; many rows come as one JSON array, since row-level security refuses COPY."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from server.log.transfer.lines import EVENT_COLUMNS

ROWS: Final = sa.text(
    """
    SELECT c.user_key, c.id, c.user_id, c.parent, c.fork_seq, c.head, c.epoch, c.deleted_at, c.lineage, c.lineage_end
    FROM conversation c
    WHERE c.tenant_id = :tenant
      AND (c.user_key, c.id) IN (SELECT * FROM unnest(CAST(:keys AS bigint[]), CAST(:ids AS uuid[])))
    ORDER BY c.id FOR UPDATE
    """
)
STORED: Final = sa.text(
    f"""
    SELECT {EVENT_COLUMNS}
    FROM unnest(CAST(:keys AS bigint[]), CAST(:ids AS uuid[]), CAST(:lows AS bigint[]), CAST(:highs AS bigint[]))
        AS w(user_key, id, low, high)
    JOIN event e ON e.user_key = w.user_key AND e.conversation = w.id AND e.seq BETWEEN w.low AND w.high
        AND e.tenant_id = :tenant
    """
)


def _insert(table: str, columns: str, conflict: str = "") -> sa.TextClause:
    """Return the INSERT of rows that come as one JSON array, since row-level security refuses COPY."""
    names = ", ".join(column.split()[0] for column in columns.split(","))
    return sa.text(
        f"INSERT INTO {table} (tenant_id, {names}) SELECT :tenant, {names} "
        f"FROM json_to_recordset(CAST(:rows AS json)) AS r({columns}) {conflict}"
    )


USERS: Final = _insert("end_user", "user_key bigint, id text, created_at timestamptz", "ON CONFLICT DO NOTHING")
CONVERSATIONS: Final = _insert(
    "conversation",
    "user_key bigint, id uuid, user_id text, origin_id text, metadata text, head bigint, floor bigint, epoch bigint, "
    "recorded_at timestamptz, created_at timestamptz, deleted_at timestamptz, retention_days int, parent uuid, "
    "fork_seq bigint, lineage uuid[], lineage_end bigint[]",
    "ON CONFLICT DO NOTHING RETURNING id",
)
EVENTS: Final = _insert(
    "event",
    "user_key bigint, conversation uuid, seq bigint, recorded_at timestamptz, occurred_at timestamptz, "
    "erased_at timestamptz, type text, role text, client_key bytea, client_digest bytea, client_id text, name text, "
    "call_id text, session text, run_id text, content text, metadata text",
)
TOUCHES: Final = _insert(
    "touch",
    "user_key bigint, conversation uuid, ord bigint, at bigint, seqs bigint[], recorded_at timestamptz",
    "ON CONFLICT DO NOTHING",
)
TOUCHED: Final = sa.text(
    """
    UPDATE conversation c SET touches = greatest(c.touches, r.ord)
    FROM (SELECT user_key, conversation, max(ord) AS ord FROM json_to_recordset(CAST(:rows AS json)) AS t(
        user_key bigint, conversation uuid, ord bigint) GROUP BY 1, 2) r
    WHERE c.user_key = r.user_key AND c.id = r.conversation AND c.tenant_id = :tenant
    """
)
ERASURES: Final = _insert(
    "erasure",
    "user_key bigint, id uuid, scope text, conversation uuid, user_digest bytea, first_seq bigint, last_seq bigint, "
    "events bigint, actor text, created_at timestamptz",
    "ON CONFLICT DO NOTHING",
)
RAISE: Final = sa.text(
    """
    UPDATE conversation c SET head = r.head, epoch = r.epoch, recorded_at = greatest(c.recorded_at, r.recorded_at)
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        user_key bigint, id uuid, head bigint, epoch bigint, recorded_at timestamptz)
    WHERE c.user_key = r.user_key AND c.id = r.id AND c.tenant_id = :tenant
    """
)
