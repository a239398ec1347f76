"""``turnstone migrate``: the schema upgrade on its own, which ``serve`` also runs at its start."""

from __future__ import annotations

import click

from server.cli.options import DATABASE, with_settings
from server.settings import Settings


@click.command()
@with_settings(*DATABASE)
def migrate(settings: Settings) -> None:
    """Bring the database's schema, roles, grants and policies to this release; safe to run at any time.

    There is no way back but a backup. An embedded database that does not run is started for it.
    """
    from server.database.upgrade import newest_revision, upgrade
    from server.embeddings.relations import ensure_first
    from server.operations.databases import database

    with database(settings.data_dir, settings.database_url, create=True) as address:
        changed = upgrade(address)
        ensure_first(address)
    click.echo(f"the schema is {'now' if changed else 'already'} at revision {newest_revision()}")
