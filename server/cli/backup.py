"""``turnstone backup`` and ``turnstone restore``."""

from __future__ import annotations

from pathlib import Path

import click

from server.cli.options import DATABASE, with_settings
from server.settings import Settings

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("file", type=_FILE)
@with_settings(*DATABASE)
def backup(settings: Settings, file: Path) -> None:
    """Write everything into FILE (mode 0600), as it stands now, while the server serves.

    It holds all content, the tenants' salts and the digests of keys, but no key. What is erased later stays in FILE:
    delete the backups that are older than an erasure to be rid of it.
    """
    from server.operations import backup as operation
    from server.operations.databases import database

    with database(settings.data_dir, settings.database_url) as address:
        size = operation.backup(address, file)
    click.echo(f"{file}: {size:,} bytes")


@click.command()
@click.argument("file", type=_FILE)
@click.option("--replace", is_flag=True, help="Replace what the database holds; it is lost.")
@with_settings(*DATABASE)
def restore(settings: Settings, file: Path, replace: bool) -> None:
    """Put a backup from FILE into an empty database, with the server stopped.

    All of it or nothing: the restored log is found gapless before it takes the place of anything. Keys made before the
    backup work again; the next start makes a new admin key if the one in the data directory does not.
    """
    from server.operations import backup as operation
    from server.operations.databases import database

    if not file.is_file():
        raise click.ClickException(f"there is no file {file}")
    with database(settings.data_dir, settings.database_url, alone=True, create=True) as address:
        counts = operation.restore(address, file, replace=replace)
    click.echo("restored " + ", ".join(f"{count:,} × {table}" for table, count in counts.items()))
