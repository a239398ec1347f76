"""Constraints: found over all conversations of a user.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_index(
        "event_user_key_conversation_constraint_idx",
        "event",
        ["user_key", "conversation", "seq"],
        postgresql_where=sa.text("type = 'constraint'"),
    )
