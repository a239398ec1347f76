"""``turnstone serve``: the server and its database, until Ctrl-C."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

import click
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rich.console import Console
from rich.markup import escape

from server.cli.options import with_settings
from server.database.address import Address
from server.settings import TABLE, Settings

_NO_FLAGS = ("url", "key", "provider_key")  # of client commands; and a secret, which every process list would show


@click.command()
@with_settings(*(row.name for row in TABLE if row.name not in _NO_FLAGS))
def serve(settings: Settings) -> None:
    """Start the server, and its own PostgreSQL unless a database URL is given.

    Ctrl-C or SIGTERM finishes the requests that are being answered and stops everything; a second one stops at once.
    """
    # Not at the top: `turnstone --help` need not load a web framework.
    from server.operations import logs
    from server.serve.supervisor import serve as run

    logs.configure(settings.log_level, settings.log_format)
    key_file: list[Path] = []
    try:
        run(
            settings,
            lambda address: key_file.extend(asyncio.run(_ensure_key(settings, address))),
            lambda url: announce(settings, url, key_file[0] if key_file else None),
        )
    except KeyboardInterrupt:
        click.echo("stopped while starting", err=True)
        sys.exit(130)


async def _ensure_key(settings: Settings, address: Address) -> list[Path]:
    """Make the default tenant and the admin key on the first start; return the key's file, if there is one."""
    from server.access.first_start import ensure_admin_key
    from server.database.connections import Database

    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(address)
    try:
        path = await ensure_admin_key(database, settings.data_dir, embedded=settings.database_url is None)
    finally:
        await database.close()
    return [path] if path is not None else []


def _without_secrets(database_url: str) -> str:
    parts = conninfo_to_dict(database_url)
    shown = {name: parts[name] for name in ("host", "port", "user", "dbname") if name in parts}
    return make_conninfo("", **shown)


def announce(settings: Settings, url: str, key_file: Path | None) -> None:
    """Say on standard output that the server is ready, and what to type next."""
    key = f"$(cat {shlex.quote(str(key_file))})" if key_file else "YOUR_KEY"
    facts = {
        "docs": f"{url}/docs",
        "data": str(settings.data_dir) if settings.database_url is None else _without_secrets(settings.database_url),
        "key": str(key_file) if key_file else "the admin key made at the first start; it was not made on this machine",
    }
    command = (
        f'curl -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\\n'
        f'    -d \'{{"user": "ada"}}\' {url}/v1/conversations'
    )
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold green]Turnstone[/] serves on [bold]{url}[/]  (Ctrl-C stops it)")
    for name, value in facts.items():
        console.print(f"  [dim]{name:<5}[/]{escape(value)}")
    console.print("\nOpen a conversation:\n")
    console.print(f"  {escape(command)}\n")
    console.file.flush()
