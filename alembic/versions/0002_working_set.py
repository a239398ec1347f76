"""The working set: touches, checkpoints of the fold, snapshots of contexts.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column(
        "conversation",
        sa.Column(
            "touches",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="how many touches were recorded",
        ),
    )
    op.create_index(
        "event_user_key_conversation_call_id_idx",
        "event",
        ["user_key", "conversation", "call_id"],
        postgresql_where=sa.text("call_id IS NOT NULL"),
    )
    op.create_index(
        "event_user_key_conversation_erased_idx",
        "event",
        ["user_key", "conversation", "seq"],
        postgresql_where=sa.text("erased_at IS NOT NULL"),
    )
    op.create_table(
        "touch",
        sa.Column("user_key", sa.BigInteger(), nullable=False),
        sa.Column(
            "conversation",
            sa.Uuid(),
            nullable=False,
            comment="where the events were touched; forks share it as the log",
        ),
        sa.Column("ord", sa.BigInteger(), nullable=False, comment="1, 2, 3 … without gaps, from conversation.touches"),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False, comment="the head when it happened"),
        sa.Column(
            "seqs",
            postgresql.ARRAY(sa.BigInteger()),
            nullable=False,
            comment="the events that were faulted in or used, in order",
        ),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("user_key", "conversation", "at", "ord", name=op.f("touch_pkey")),
    )
    op.create_table(
        "checkpoint",
        sa.Column("user_key", sa.BigInteger(), nullable=False),
        sa.Column("conversation", sa.Uuid(), nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False, comment="the last seq that is folded; no touch at it is"),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("floor", sa.BigInteger(), nullable=False, comment="the conversation's floor that the fold began at"),
        sa.Column("fold", sa.LargeBinary(), nullable=False, comment="the fold's state, with the versions that made it"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("user_key", "conversation", "head", name=op.f("checkpoint_pkey")),
    )
    op.create_table(
        "snapshot",
        sa.Column("user_key", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7"),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("conversation", sa.Uuid(), nullable=False),
        sa.Column(
            "head", sa.BigInteger(), nullable=False, comment="of the conversation, when the context was assembled"
        ),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="keyed hash of the answer, byte for byte"),
        sa.Column(
            "record",
            sa.Text(),
            nullable=False,
            comment="JSON: stamps, and for each message its event and reason; no text",
        ),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_key", "id", name=op.f("snapshot_pkey")),
    )
    op.create_index("snapshot_user_key_conversation_head_idx", "snapshot", ["user_key", "conversation", "head"])
