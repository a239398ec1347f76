"""``turnstone tenants``: create, list and change tenants."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from server.cli import tables
from server.cli.client import SETTINGS, connect, pages
from server.cli.options import with_settings
from server.settings import Settings

_COLUMNS = ("id", "name", "operator", "retention_days", "created_at")
_retention = click.option(
    "--retention-days", type=click.IntRange(1), help="Days after which events are erased; by default they are kept."
)


@click.group()
def tenants() -> None:
    """Create, list and change tenants; needs an operator's admin key."""


@tenants.command()
@with_settings(*SETTINGS)
@click.argument("name")
@_retention
def create(settings: Settings, name: str, retention_days: int | None) -> None:
    """Create a tenant called NAME."""
    with connect(settings) as client:
        made = client.post("/v1/tenants", json={"name": name, "retention_days": retention_days}).json()
    tables.show([made], _COLUMNS, json_lines=False)
    click.echo(
        f"next: turnstone keys create --tenant {made['name']} --name backend --scope read --scope append", err=True
    )


@tenants.command("list")
@with_settings(*SETTINGS)
@tables.as_json
def list_tenants(settings: Settings, json_lines: bool) -> None:
    """List tenants, oldest first."""
    with connect(settings) as client:
        rows = list(pages(client, "/v1/tenants"))
    tables.show(rows, _COLUMNS, json_lines=json_lines)


@tenants.command()
@with_settings(*SETTINGS)
@click.argument("tenant")
@click.option("--name", help="The new name.")
@_retention
def update(settings: Settings, tenant: str, name: str | None, retention_days: int | None) -> None:
    """Change TENANT (a name or an id); what is not given stays."""
    given = {"name": name, "retention_days": retention_days}
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise click.UsageError("nothing to change; give --name or --retention-days")
    _change(settings, tenant, changes)


@tenants.command()
@with_settings(*SETTINGS)
@click.argument("tenant")
@click.argument("days")
def retention(settings: Settings, tenant: str, days: str) -> None:
    """Erase TENANT's events after DAYS days, or keep them `forever`."""
    if days != "forever" and not (days.isascii() and days.isdecimal()):
        raise click.BadParameter(f"{days!r} is neither a number of days nor `forever`", param_hint="DAYS")
    _change(settings, tenant, {"retention_days": None if days == "forever" else int(days)})


def _change(settings: Settings, tenant: str, changes: dict[str, Any]) -> None:
    with connect(settings) as client:
        changed = client.post(f"/v1/tenants/{quote(tenant, safe='')}", json=changes).json()
    tables.show([changed], _COLUMNS, json_lines=False)


@tenants.command()
@with_settings(*SETTINGS)
@click.argument("tenant")
@click.option("--yes", help="The tenant's name once more, instead of being asked for it.")
def erase(settings: Settings, tenant: str, yes: str | None) -> None:
    """Erase TENANT (a name or an id) with its keys and all that it holds."""
    with connect(settings) as client:
        name = client.get(f"/v1/tenants/{quote(tenant, safe='')}").json()["name"]
        typed = yes or click.prompt(f"This cannot be undone. Type the tenant's name ({name}) to erase it")
        if typed != name:
            raise click.ClickException(f"{typed!r} is not {name!r}; nothing was erased")
        client.delete(f"/v1/tenants/{quote(tenant, safe='')}")
    click.echo(f"{name} is erased")
