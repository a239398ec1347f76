"""Embedding versions, routing between them, progress and dead letters; each version's own relation is made at run time.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "embedding_version",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="the operator's word for it"),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column(
            "options",
            sa.Text(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="JSON: of the provider; no secrets",
        ),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("metric", sa.Text(), server_default=sa.text("'cosine'"), nullable=False),
        sa.Column(
            "normalised",
            sa.Boolean(),
            nullable=False,
            comment="whether the model's own vectors had length 1; ours have",
        ),
        sa.Column("query_prefix", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("document_prefix", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("text_builder", sa.Text(), nullable=False, comment="what made the texts that were embedded"),
        sa.Column("fingerprint", sa.Text(), nullable=False, comment="of the model as it answered, not of its name"),
        sa.Column(
            "probe",
            sa.LargeBinary(),
            nullable=False,
            comment="its vectors of the probe texts, float32, to compare with",
        ),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("state_since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("dimensions BETWEEN 1 AND 4000", name=op.f("embedding_version_dimensions_check")),
        sa.CheckConstraint("metric = 'cosine'", name=op.f("embedding_version_metric_check")),
        sa.CheckConstraint(
            "state IN ('draft', 'writing', 'backfilling', 'verified', 'shadowing', 'ramping', 'holding', 'active', 'retired', 'dropped')",
            name=op.f("embedding_version_state_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("embedding_version_pkey")),
        sa.UniqueConstraint("name", name=op.f("embedding_version_name_key")),
    )
    op.create_table(
        "embedding_routing",
        sa.Column(
            "singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False, comment="there is one row"
        ),
        sa.Column(
            "epoch",
            sa.BigInteger(),
            nullable=False,
            comment="raised by every flip; servers say which one they follow",
        ),
        sa.Column("active", sa.Integer(), nullable=False),
        sa.Column("candidate", sa.Integer(), nullable=True),
        sa.Column(
            "ramp",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="percent of users that read the candidate",
        ),
        sa.Column("salt", sa.LargeBinary(), nullable=False, comment="chooses those users"),
        sa.Column(
            "written",
            postgresql.ARRAY(sa.Integer()),
            nullable=False,
            comment="the versions that every writer covers",
        ),
        sa.Column(
            "tuning",
            sa.Text(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="JSON: weights and thresholds by version",
        ),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("active = ANY (written)", name=op.f("embedding_routing_active_check")),
        sa.CheckConstraint("singleton", name=op.f("embedding_routing_singleton_check")),
        sa.CheckConstraint("ramp BETWEEN 0 AND 100", name=op.f("embedding_routing_ramp_check")),
        sa.ForeignKeyConstraint(["active"], ["embedding_version.id"], name=op.f("embedding_routing_active_fkey")),
        sa.ForeignKeyConstraint(["candidate"], ["embedding_version.id"], name=op.f("embedding_routing_candidate_fkey")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("embedding_routing_pkey")),
    )
    op.create_table(
        "embedding_progress",
        sa.Column("user_key", sa.BigInteger(), nullable=False),
        sa.Column("conversation", sa.Uuid(), nullable=False, comment="the conversation that appended them"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column(
            "seq",
            sa.BigInteger(),
            nullable=False,
            comment="own events up to here have their vectors, or are dead letters",
        ),
        sa.PrimaryKeyConstraint("user_key", "conversation", "version", name=op.f("embedding_progress_pkey")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_table(
        "embedding_failure",
        sa.Column("user_key", sa.BigInteger(), nullable=False),
        sa.Column("conversation", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column(
            "error",
            sa.Text(),
            nullable=False,
            comment="the class of the error; never a message, which may quote the text",
        ),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("user_key", "conversation", "version", "seq", name=op.f("embedding_failure_pkey")),
    )
