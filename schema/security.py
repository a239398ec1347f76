"""Who may do what: grants per role, and the row-level policies that keep tenants apart.

Append-only is enforced by grants, not triggers (Citus refuses
triggers on distributed tables): the runtime role has INSERT and SELECT on events and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# An unset tenant is NULL, or '' once a transaction-local value has ended in this session: both see nothing.
# The sub-select makes PostgreSQL evaluate the setting once per statement, not once per row.
CURRENT_TENANT: Final = "(SELECT nullif(current_setting('turnstone.tenant', true), '')::integer)"
IS_OPERATOR: Final = "(SELECT current_setting('turnstone.operator', true) = 'on')"
CURRENT_DIGEST: Final = "(SELECT decode(current_setting('turnstone.key_digest', true), 'hex'))"

TENANT_POLICIES: Final[dict[str, str]] = {
    "end_user": f"tenant_id = {CURRENT_TENANT}",
    "conversation": f"tenant_id = {CURRENT_TENANT}",
    "event": f"tenant_id = {CURRENT_TENANT}",
    "idempotency": f"tenant_id = {CURRENT_TENANT}",
    "retry_chain": f"tenant_id = {CURRENT_TENANT}",
    "erasure": f"tenant_id = {CURRENT_TENANT}",
    "touch": f"tenant_id = {CURRENT_TENANT}",
    "checkpoint": f"tenant_id = {CURRENT_TENANT}",
    "snapshot": f"tenant_id = {CURRENT_TENANT}",
    "embedding_progress": f"tenant_id = {CURRENT_TENANT}",
    "embedding_failure": f"tenant_id = {CURRENT_TENANT}",
    "embedding_comparison": f"tenant_id = {CURRENT_TENANT}",
    "golden_set": f"tenant_id = {CURRENT_TENANT}",
    "golden_question": f"tenant_id = {CURRENT_TENANT}",
    "tenant": f"id = {CURRENT_TENANT} OR {IS_OPERATOR}",
    # A request's tenant is found by its key: the caller proves the key by its digest.
    "api_key": f"tenant_id = {CURRENT_TENANT} OR digest = {CURRENT_DIGEST} OR {IS_OPERATOR}",
}

GRANTS: Final[dict[str, dict[str, str]]] = {
    "turnstone_runtime": {
        "event": "SELECT, INSERT",
        "conversation": "SELECT, INSERT, UPDATE (head, touches, recorded_at, metadata, retention_days)",
        "end_user": "SELECT, INSERT, UPDATE (created_at)",  # UPDATE only so that a creation can lock its user's row
        "idempotency": "SELECT, INSERT",
        "retry_chain": "SELECT, INSERT, UPDATE (level)",
        "touch": "SELECT, INSERT",
        "checkpoint": "SELECT, INSERT, UPDATE, DELETE",  # derived from the log: rewritten and thinned at will
        "snapshot": "SELECT, INSERT",
        "embedding_version": "SELECT",
        "embedding_routing": "SELECT",
        "embedding_progress": "SELECT",
        "embedding_failure": "SELECT",
        "embedding_history": "SELECT",
        "embedding_worker": "SELECT",
        "embedding_comparison": "SELECT, INSERT, DELETE",  # the oldest give way
        "golden_set": "SELECT, INSERT, UPDATE, DELETE",
        "golden_question": "SELECT, INSERT, DELETE",
        "erasure": "SELECT",
        "tenant": "SELECT, INSERT, UPDATE (name, retention_days)",
        "api_key": "SELECT, INSERT, UPDATE (revoked_at)",
        "server": "SELECT, INSERT, UPDATE, DELETE",
        "alembic_version": "SELECT",
    },
    "turnstone_worker": {
        "event": "SELECT",
        # UPDATE only so that a vector's writer can lock the conversation against its erasure.
        "conversation": "SELECT, UPDATE (created_at)",
        "embedding_version": "SELECT",
        "embedding_routing": "SELECT",
        "embedding_progress": "SELECT, INSERT, UPDATE (seq)",
        "embedding_failure": "SELECT, INSERT, UPDATE (error, attempts, failed_at), DELETE",
        "embedding_history": "SELECT",
        "embedding_worker": "SELECT, INSERT, UPDATE, DELETE",
        "tenant": "SELECT",
        "server": "SELECT",
        "alembic_version": "SELECT",
    },
    # The import of an export writes as the eraser, being the one other thing that reaches into the past: it inserts
    # rows as they once were, erasure records among them, and gives an empty tenant the salt of the export. A runtime
    # role that could do that could orphan every hash and id of a tenant, or forge the proof of an erasure.
    "turnstone_eraser": {
        "event": "SELECT, INSERT, UPDATE, DELETE",
        "conversation": "SELECT, INSERT, UPDATE, DELETE",
        "end_user": "SELECT, INSERT, UPDATE, DELETE",
        "idempotency": "SELECT, DELETE",
        "retry_chain": "SELECT, DELETE",
        "touch": "SELECT, INSERT, DELETE",
        "checkpoint": "SELECT, DELETE",
        "snapshot": "SELECT, DELETE",
        "embedding_progress": "SELECT, UPDATE (seq), DELETE",
        "embedding_failure": "SELECT, DELETE",
        "embedding_comparison": "SELECT, DELETE",
        "golden_set": "SELECT, DELETE",
        "golden_question": "SELECT, DELETE",
        "erasure": "SELECT, INSERT",
        "tenant": "SELECT, UPDATE (salt), DELETE",
        "api_key": "SELECT, DELETE",
        "alembic_version": "SELECT",
    },
}

# What users wrote. ANALYZE would copy samples of it into the planner's statistics, where erasure does not reach.
UNSAMPLED: Final[dict[str, tuple[str, ...]]] = {
    "event": ("client_id", "name", "call_id", "session", "run_id", "content", "metadata"),
    "conversation": ("user_id", "origin_id", "metadata"),
    "end_user": ("id",),
    "checkpoint": ("fold",),
    "embedding_comparison": ("old_dense", "new_dense", "old_final", "new_final", "segments", "question"),
    "golden_set": ("name", "owner", "approved_by"),
    "golden_question": ("golden_set", "id", "text", "category", "language"),
    "tenant": ("name",),
    "api_key": ("name",),
}


# Of a relation of vectors. A vector tells much of its text, and so does what ANALYZE would sample of it.
RELATION_POLICY: Final = f"tenant_id = {CURRENT_TENANT}"
RELATION_GRANTS: Final[dict[str, str]] = {
    "turnstone_runtime": "SELECT",
    "turnstone_worker": "SELECT, INSERT",
    "turnstone_eraser": "SELECT, DELETE",
}
RELATION_UNSAMPLED: Final = ("text_hash", "embedding")


def statements(relations: Sequence[str] = ()) -> list[str]:
    """Return the statements that bring grants and policies to what stands here, from whatever they were.

    ``relations`` are those of vectors that exist. They run after every upgrade, inside its lock: privileges are state,
    not history.
    """
    result = ["GRANT USAGE ON SCHEMA public TO turnstone_runtime, turnstone_worker, turnstone_eraser"]
    for table, rule in TENANT_POLICIES.items():
        result += _policy(table, rule)
    for table, columns in UNSAMPLED.items():
        result += _unsampled(table, columns)
    for role, tables in GRANTS.items():
        # Table by table: the schema may hold others' tables, on which the owner of ours may revoke nothing.
        result.append(
            "DO $$ DECLARE own record; BEGIN FOR own IN SELECT format('%I.%I', schemaname, tablename) AS name "  # noqa: S608 - our own roles
            "FROM pg_tables WHERE schemaname = 'public' AND tableowner = current_user LOOP "
            f"EXECUTE 'REVOKE ALL ON ' || own.name || ' FROM {role}'; END LOOP; END $$"
        )
        result += [f"GRANT {privileges} ON {table} TO {role}" for table, privileges in tables.items()]
    for relation in relations:
        result += relation_statements(relation)
    return result


def relation_statements(relation: str) -> list[str]:
    """Return the statements that secure one relation of vectors, for the transaction that makes it."""
    return [
        *_policy(relation, RELATION_POLICY),
        *_unsampled(relation, RELATION_UNSAMPLED),
        *(f"GRANT {privileges} ON {relation} TO {role}" for role, privileges in RELATION_GRANTS.items()),
    ]


def _policy(table: str, rule: str) -> list[str]:
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS {table}_tenant ON {table}",
        f"CREATE POLICY {table}_tenant ON {table} USING ({rule}) WITH CHECK ({rule})",
    ]


def _unsampled(table: str, columns: Sequence[str]) -> list[str]:
    return [f"ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS 0" for column in columns]
