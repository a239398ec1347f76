"""``turnstone keys``: create, list and revoke API keys."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from schema.vocabulary import SCOPES
from server.access.key_format import parse_id
from server.cli import tables
from server.cli.client import SETTINGS, connect, pages
from server.cli.options import with_settings
from server.settings import Settings

_DAYS = re.compile(r"([1-9][0-9]{0,4})d", re.ASCII)
_tenant = click.option("--tenant", help="Another tenant's name or id; needs an operator's key.")


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command()
@with_settings(*SETTINGS)
@click.option("--name", required=True, help="What the key is for.")
@click.option(
    "--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True, help="What it may do; give several."
)
@click.option("--expires", help="When it stops to work: 2030-01-31, 2030-01-31T12:00:00Z, or 90d from now.")
@click.option("--rate-limit", type=click.IntRange(1), help="Requests per second.")
@_tenant
def create(
    settings: Settings,
    name: str,
    scopes: tuple[str, ...],
    expires: str | None,
    rate_limit: int | None,
    tenant: str | None,
) -> None:
    """Create a key and print it, once.

    The key alone goes to standard output, so that KEY=$(turnstone keys create ...) works.
    """
    body = {
        "name": name,
        "scopes": list(scopes),
        "expires_at": None if expires is None else _moment(expires).isoformat(),
        "rate_limit": rate_limit,
        "tenant": tenant,
    }
    with connect(settings) as client:
        made = client.post("/v1/keys", json=body).json()
    click.echo(f"{made['id']} for {made['tenant']}; keep the key, it is not shown again:", err=True)
    click.echo(made["key"])


@keys.command("list")
@with_settings(*SETTINGS)
@_tenant
@tables.as_json
def list_keys(settings: Settings, tenant: str | None, json_lines: bool) -> None:
    """List keys, revoked ones too, oldest first."""
    with connect(settings) as client:
        rows = list(pages(client, "/v1/keys", tenant=tenant))
    columns = ("id", "name", "prefix", "scopes", "rate_limit", "created_at", "expires_at", "revoked_at")
    tables.show(rows, columns, json_lines=json_lines)


@keys.command()
@with_settings(*SETTINGS)
@click.argument("key_id")
@_tenant
def revoke(settings: Settings, key_id: str, tenant: str | None) -> None:
    """Revoke a key for good; KEY_ID is what `turnstone keys list` shows, key_..."""
    # Never a path made of whatever was typed: it may be the key itself, which must not end up in somebody's log.
    if parse_id(key_id) is None:
        raise click.BadParameter("give the key's id, key_..., as `turnstone keys list` shows it", param_hint="KEY_ID")
    with connect(settings) as client:
        query = {} if tenant is None else {"tenant": tenant}
        gone = client.delete(f"/v1/keys/{key_id}", params=query).json()
    click.echo(f"{gone['id']} ({gone['name']}) is revoked since {gone['revoked_at']}")


def _moment(text: str) -> datetime:
    """Return a moment from a date, a time or a number of days; a date begins at midnight UTC."""
    if match := _DAYS.fullmatch(text):
        return datetime.now(UTC) + timedelta(days=int(match[1]))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a date, a time or a number of days such as 90d", param_hint="--expires"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
