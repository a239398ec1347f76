"""``turnstone doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

import sys

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from server.cli.options import DATABASE, with_settings
from server.errors import TurnstoneError
from server.operations.checks import Finding, examine, fail, ok
from server.settings import Settings

_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@with_settings(*DATABASE)
def doctor(settings: Settings, as_json: bool) -> None:
    """Check database, versions, schema, roles, durability, disk and clock, and say what to do.

    Changes nothing. Ends with status 1 when a check failed; warnings leave it at 0.
    """
    findings = look(settings)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(findings)).decode())
    else:
        console = Console(soft_wrap=True, highlight=False)
        for one in findings:
            console.print(f"[{_STYLE[one.status]}]{one.status:<4}[/]  {escape(f'{one.check:<19}{one.detail}')}")
            if one.advice is not None:
                console.print(f"      {'':<19}-> {escape(one.advice)}")
    if any(one.status == "fail" for one in findings):
        sys.exit(1)


def look(settings: Settings) -> list[Finding]:
    """Return what is found of the machine, and of the database when it can be reached."""
    import psycopg

    from server.access import admin_key
    from server.operations import machine
    from server.operations.databases import running

    findings = [
        machine.directory(settings.data_dir),
        machine.disk(settings.data_dir),
        machine.key_file(admin_key.path(settings.data_dir)),
    ]
    try:
        address = running(settings.data_dir, settings.database_url)
        if address is None:
            return [*findings, fail("database", f"not running in {settings.data_dir}", "start it with turnstone serve")]
        with psycopg.connect(address.conninfo("admin"), autocommit=True, connect_timeout=5) as connection:
            kind = "embedded" if settings.database_url is None else f"at {connection.info.host}"
            return [*findings, ok("database", f"{kind}, reachable"), *examine(connection)]
    except psycopg.Error as error:
        text = " ".join(str(error).split())
        advice = "start PostgreSQL, or correct TURNSTONE_DATABASE_URL" if settings.database_url else "see postgres.log"
        return [*findings, fail("database", f"cannot be reached: {text}", advice)]
    except TurnstoneError as error:
        return [*findings, fail("database", error.message, "see the message")]
