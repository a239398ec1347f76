"""The event log: tenants, keys, users, conversations, events, idempotency keys, erasure records, servers.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "conversation",
        sa.Column("user_key", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7"),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True, comment="NULL: the conversation stands alone"),
        sa.Column("origin_id", sa.Text(), nullable=True, comment="its id where it was imported from"),
        sa.Column("metadata", sa.Text(), server_default=sa.text("'{}'"), nullable=False, comment="JSON text, verbatim"),
        sa.Column("head", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="the last seq"),
        sa.Column(
            "floor",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="seq up to here expired by retention",
        ),
        sa.Column(
            "epoch",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="raised when what it shows shrinks",
        ),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), nullable=False, comment="of its last event; never goes back"
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "deleted_at", sa.DateTime(timezone=True), nullable=True, comment="kept only for what its forks share"
        ),
        sa.Column("retention_days", sa.Integer(), nullable=True, comment="overrides the tenant's"),
        sa.Column("parent", sa.Uuid(), nullable=True, comment="the conversation that this one was forked from"),
        sa.Column("fork_seq", sa.BigInteger(), nullable=True, comment="the last seq shared with the parent"),
        sa.Column("lineage", postgresql.ARRAY(sa.Uuid()), nullable=True),
        sa.Column("lineage_end", postgresql.ARRAY(sa.BigInteger()), nullable=True),
        sa.CheckConstraint("retention_days > 0", name=op.f("conversation_retention_days_check")),
        sa.PrimaryKeyConstraint("user_key", "id", name=op.f("conversation_pkey")),
        sa.UniqueConstraint(
            "user_key", "tenant_id", "origin_id", name=op.f("conversation_user_key_tenant_id_origin_id_key")
        ),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index("conversation_tenant_id_id_idx", "conversation", ["tenant_id", "id"], unique=False)
    op.create_index(
        "conversation_user_key_parent_idx",
        "conversation",
        ["user_key", "parent"],
        unique=False,
        postgresql_where=sa.text("parent IS NOT NULL"),
    )
    op.create_table(
        "end_user",
        sa.Column("user_key", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False, comment="the caller's own string"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("user_key", "tenant_id", "id", name=op.f("end_user_pkey")),
    )
    op.create_index("end_user_tenant_id_id_idx", "end_user", ["tenant_id", "id"], unique=False)
    op.create_table(
        "erasure",
        sa.Column("user_key", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("conversation", sa.Uuid(), nullable=True),
        sa.Column(
            "user_digest",
            sa.LargeBinary(),
            nullable=True,
            comment="keyed hash of the user's name, so that the record names nobody",
        ),
        sa.Column("first_seq", sa.BigInteger(), nullable=True),
        sa.Column("last_seq", sa.BigInteger(), nullable=True),
        sa.Column("events", sa.BigInteger(), nullable=False, comment="how many events were erased"),
        sa.Column("actor", sa.Text(), nullable=False, comment="the id of the key that asked, or 'retention'"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "scope IN ('event', 'conversation', 'user', 'retention', 'tenant')", name=op.f("erasure_scope_check")
        ),
        sa.PrimaryKeyConstraint("user_key", "id", name=op.f("erasure_pkey")),
    )
    op.create_index("erasure_tenant_id_id_idx", "erasure", ["tenant_id", "id"], unique=False)
    op.create_table(
        "event",
        sa.Column("user_key", sa.BigInteger(), nullable=False),
        sa.Column("conversation", sa.Uuid(), nullable=False, comment="the conversation that appended it"),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="1, 2, 3 … without gaps"),
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="ours; max(previous, now) under the row lock",
        ),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False, comment="the caller's, else recorded_at"),
        sa.Column(
            "erased_at", sa.DateTime(timezone=True), nullable=True, comment="set on a tombstone, whose content is gone"
        ),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column(
            "client_key",
            sa.LargeBinary(),
            nullable=True,
            comment="keyed hash of client_id; outlives erasure, so that a retry stays a retry",
        ),
        sa.Column(
            "client_digest", sa.LargeBinary(), nullable=True, comment="keyed hash of the body sent under client_id"
        ),
        sa.Column("client_id", sa.Text(), nullable=True, comment="the caller's id"),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("call_id", sa.Text(), nullable=True),
        sa.Column("session", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("content", sa.Text(), nullable=True, comment="JSON text, verbatim"),
        sa.Column("metadata", sa.Text(), nullable=True, comment="JSON text, verbatim"),
        sa.CheckConstraint(
            "role IN ('user', 'assistant', 'system', 'developer', 'tool')", name=op.f("event_role_check")
        ),
        sa.CheckConstraint(
            "type IN ('message', 'tool_call', 'tool_result', 'reasoning', 'summary', 'pin', 'unpin', 'constraint', 'working_set', 'run', 'erasure', 'item')",
            name=op.f("event_type_check"),
        ),
        sa.CheckConstraint("seq > 0", name=op.f("event_seq_check")),
        sa.PrimaryKeyConstraint("user_key", "conversation", "seq", name=op.f("event_pkey")),
    )
    op.create_index(
        "event_user_key_conversation_client_key_key",
        "event",
        ["user_key", "conversation", "client_key"],
        unique=True,
        postgresql_where=sa.text("client_key IS NOT NULL"),
    )
    op.create_table(
        "idempotency",
        sa.Column("user_key", sa.BigInteger(), nullable=False),
        sa.Column(
            "key_digest", sa.LargeBinary(), nullable=False, comment="keyed hash of conversation and Idempotency-Key"
        ),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("body_digest", sa.LargeBinary(), nullable=False, comment="keyed hash of the request body"),
        sa.Column("conversation", sa.Uuid(), nullable=False),
        sa.Column(
            "seqs",
            postgresql.ARRAY(sa.BigInteger()),
            nullable=False,
            comment="of the events that the first answer named",
        ),
        sa.Column("head", sa.BigInteger(), nullable=False, comment="as the first answer named it"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("user_key", "key_digest", name=op.f("idempotency_pkey")),
    )
    op.create_index("idempotency_created_at_idx", "idempotency", ["created_at"], unique=False, postgresql_using="brin")
    op.create_table(
        "server",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column(
            "routing_epoch",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="the epoch that it follows",
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False, comment="it is taken for dead after this"),
        sa.PrimaryKeyConstraint("id", name=op.f("server_pkey")),
    )
    op.create_table(
        "tenant",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "salt",
            sa.LargeBinary(),
            nullable=False,
            comment="32 random bytes; keys every hash of this tenant's content",
        ),
        sa.Column(
            "operator",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="may manage other tenants",
        ),
        sa.Column(
            "retention_days",
            sa.Integer(),
            nullable=True,
            comment="events older than this are erased; NULL keeps them for good",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("octet_length(salt) = 32", name=op.f("tenant_salt_check")),
        sa.CheckConstraint("retention_days > 0", name=op.f("tenant_retention_days_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("tenant_pkey")),
        sa.UniqueConstraint("name", name=op.f("tenant_name_key")),
    )
    op.create_table(
        "api_key",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the key; the key itself is not kept"),
        sa.Column("prefix", sa.Text(), nullable=False, comment="the first characters of the key, to tell keys apart"),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("rate_limit", sa.Integer(), nullable=True, comment="requests per second; NULL has no limit"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("scopes <@ ARRAY['read','append','erase','admin']", name=op.f("api_key_scopes_check")),
        sa.CheckConstraint("rate_limit > 0", name=op.f("api_key_rate_limit_check")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("api_key_tenant_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("api_key_pkey")),
        sa.UniqueConstraint("digest", name=op.f("api_key_digest_key")),
    )
    op.create_index("api_key_tenant_id_idx", "api_key", ["tenant_id"], unique=False)
