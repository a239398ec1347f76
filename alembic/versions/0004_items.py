"""Items: deletions in the log, and the chains of retries that an append without a key is recognised by.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

_TYPES = (
    "type IN ('message', 'tool_call', 'tool_result', 'reasoning', 'summary', 'pin', 'unpin', 'constraint', "
    "'working_set', 'run', 'erasure', 'deletion', 'item')"
)


def upgrade() -> None:
    op.drop_constraint(op.f("event_type_check"), "event", type_="check")
    op.create_check_constraint(op.f("event_type_check"), "event", _TYPES)
    op.create_index(
        "event_user_key_conversation_deletion_idx",
        "event",
        ["user_key", "conversation", "seq"],
        postgresql_where=sa.text("type = 'deletion'"),
    )
    op.create_table(
        "retry_chain",
        sa.Column("user_key", sa.BigInteger(), nullable=False),
        sa.Column("conversation", sa.Uuid(), nullable=False),
        sa.Column(
            "digest", sa.LargeBinary(), nullable=False, comment="keyed hash of API key, conversation and request body"
        ),
        sa.Column("head", sa.BigInteger(), nullable=False, comment="of the last event that the request appended"),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column(
            "seqs", postgresql.ARRAY(sa.BigInteger()), nullable=False, comment="of the events that the answer named"
        ),
        sa.Column(
            "level", sa.Integer(), nullable=False, comment="the retry that this commit has answered last; 0: none"
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("user_key", "conversation", "digest", "head", name=op.f("retry_chain_pkey")),
    )
    op.create_index("retry_chain_created_at_idx", "retry_chain", ["created_at"], postgresql_using="brin")
