"""Runs migrations on the connection that it is handed; see server/database/upgrade.py for lock and roles."""

from __future__ import annotations

from alembic import context

import schema.tables

connection = context.config.attributes["connection"]


def include_object(_object: object, name: str | None, type_: str, reflected: bool, _compare_to: object) -> bool:
    """Leave out relations that are made at run time, one per embedding version."""
    return not (type_ == "table" and reflected and name is not None and name.startswith("embedding_v"))


context.configure(
    connection=connection,
    target_metadata=schema.tables.metadata,
    include_object=include_object,
    compare_type=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
