"""Embedding migrations: the ramp in basis points, shadow and pause, history, workers, servers' load, golden sets.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    _routing()
    _servers()
    op.create_table(
        "embedding_history",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False, comment="the routing's, after it"),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False, comment="whom it was about"),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.Text(), nullable=False, comment="name and id of the key"),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False, comment="false: gates failed, and nothing was changed"),
        sa.Column("forced", sa.Text(), nullable=True, comment="the reason given for going on all the same"),
        sa.Column(
            "detail",
            sa.Text(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="JSON: gates, figures, thresholds",
        ),
        sa.ForeignKeyConstraint(["version"], ["embedding_version.id"], name=op.f("embedding_history_version_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("embedding_history_pkey")),
    )
    op.create_table(
        "embedding_worker",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "embedded",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="events, since it began",
        ),
        sa.Column(
            "rate",
            sa.Double(),
            server_default=sa.text("0"),
            nullable=False,
            comment="events a second, in its last window",
        ),
        sa.Column(
            "duty",
            sa.Double(),
            server_default=sa.text("1"),
            nullable=False,
            comment="share of the time that it works, 0 to 1",
        ),
        sa.Column(
            "quiet_ms",
            sa.Double(),
            nullable=True,
            comment="the p99 of live requests without a backfill, which it measures by",
        ),
        sa.Column(
            "why",
            sa.Text(),
            server_default=sa.text("''"),
            nullable=False,
            comment="why it works at this pace, or waits",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("embedding_worker_pkey")),
    )
    _golden()
    _comparison()


def _routing() -> None:
    table = "embedding_routing"
    op.drop_constraint(op.f("embedding_routing_ramp_check"), table)
    op.execute("UPDATE embedding_routing SET ramp = ramp * 100, tuning = '[]'")
    op.alter_column(
        table,
        "ramp",
        comment="basis points of the users that read the candidate",
        existing_comment="percent of users that read the candidate",
        existing_type=sa.Integer(),
        existing_nullable=False,
    )
    op.alter_column(
        table,
        "tuning",
        server_default=sa.text("'[]'"),
        comment="JSON: weights and thresholds of each version",
        existing_comment="JSON: weights and thresholds by version",
        existing_type=sa.Text(),
        existing_nullable=False,
    )
    op.add_column(
        table,
        sa.Column(
            "shadow",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="basis points of the searches that the candidate answers too, unseen",
        ),
    )
    op.add_column(
        table,
        sa.Column(
            "paused",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="background work of a migration waits",
        ),
    )
    op.create_check_constraint(op.f("embedding_routing_ramp_check"), table, "ramp BETWEEN 0 AND 10000")
    op.create_check_constraint(op.f("embedding_routing_shadow_check"), table, "shadow BETWEEN 0 AND 10000")


def _servers() -> None:
    for column in (
        sa.Column("load_at", sa.DateTime(timezone=True), nullable=True, comment="when the following was written"),
        sa.Column(
            "p99_ms",
            sa.Double(),
            nullable=True,
            comment="of the requests that callers wait for; NULL when there was none",
        ),
        sa.Column("requests", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="in that window"),
        sa.Column(
            "waiting",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="fresh events without a vector",
        ),
        sa.Column(
            "reading",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="requests of an epoch before this one",
        ),
    ):
        op.add_column("server", column)


def _golden() -> None:
    op.create_table(
        "golden_set",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False, comment="raised by any change of its questions"),
        sa.Column("owner", sa.Text(), nullable=False, comment="who answers for it"),
        sa.Column(
            "unusable",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="questions that were left out",
        ),
        sa.Column(
            "approved_by",
            sa.Text(),
            nullable=True,
            comment="id of the key; gates rest on approved sets only",
        ),
        sa.Column("approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("golden_set_pkey")),
    )
    op.create_table(
        "golden_question",
        sa.Column("user_key", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("golden_set", sa.Text(), nullable=False, comment="the name of its set"),
        sa.Column("id", sa.Text(), nullable=False, comment="unique in its set"),
        sa.Column("place", sa.Integer(), nullable=False, comment="in its set: 1, 2, 3 …"),
        sa.Column("conversation", sa.Uuid(), nullable=False, comment="where it is asked"),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column(
            "evidence",
            postgresql.ARRAY(sa.BigInteger()),
            nullable=False,
            comment="seqs of the events that answer it",
        ),
        sa.Column(
            "owners",
            postgresql.ARRAY(sa.Uuid()),
            nullable=False,
            comment="which conversation appended each of those",
        ),
        sa.Column("category", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("language", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.PrimaryKeyConstraint("user_key", "tenant_id", "golden_set", "id", name=op.f("golden_question_pkey")),
    )
    op.create_index(
        "golden_question_tenant_id_golden_set_place_idx", "golden_question", ["tenant_id", "golden_set", "place"]
    )


def _comparison() -> None:
    op.create_table(
        "embedding_comparison",
        sa.Column("user_key", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7"),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("conversation", sa.Uuid(), nullable=True, comment="NULL for a search over all of a user's"),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("old_version", sa.Integer(), nullable=False),
        sa.Column("new_version", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False, comment="the routing's, when it was asked"),
        sa.Column("query_type", sa.Text(), nullable=False),
        sa.Column(
            "segments",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="of the figures: `language=german`, `length=1-64`, …",
        ),
        sa.Column("old_dense", postgresql.ARRAY(sa.Text()), nullable=False, comment="events, best first"),
        sa.Column("new_dense", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("old_final", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("new_final", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("old_ms", sa.Double(), nullable=False),
        sa.Column("new_ms", sa.Double(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True, comment="the class of the candidate's error: it answered nothing"),
        sa.Column(
            "dropped",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="samples that the process had no time for since its last row",
        ),
        sa.Column("question", sa.Text(), nullable=True, comment="only where TURNSTONE_SHADOW_TEXT is on"),
        sa.PrimaryKeyConstraint("user_key", "id", name=op.f("embedding_comparison_pkey")),
    )
    op.create_index("embedding_comparison_tenant_id_id_idx", "embedding_comparison", ["tenant_id", "id"])
