"""``turnstone golden``: sets of questions whose evidence is known, by which a new embedding model is judged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from server.cli import tables
from server.cli.client import SETTINGS, connect
from server.cli.options import with_settings
from server.embeddings.lifecycle.golden import GoldenSet, read_golden
from server.log.formats import FormatError
from server.settings import Settings

_COLUMNS: Final = ("name", "tenant", "version", "owner", "questions", "unusable", "approved_by", "approved_at")
_SHOWN: Final = 10  # questions that were left out
_TIMEOUT: Final = 300.0  # seconds: a large set is looked up event by event
_tenant = click.option("--tenant", help="Whose conversations it asks, by name or id. Default: your own tenant's.")


@click.group()
def golden() -> None:
    """Load, list, approve and remove golden sets; needs an operator's admin key."""


@golden.command()
@with_settings(*SETTINGS)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="The set's name. Default: the file's.")
@click.option("--owner", required=True, help="Who answers for it.")
@_tenant
@tables.as_json
def add(settings: Settings, file: Path, name: str | None, owner: str, tenant: str | None, json_lines: bool) -> None:
    """Load the golden set in FILE: LoCoMo's questions (`.json`), or one question a line.

    A line is `{"conversation": …, "question": …, "evidence": […]}` with, as wanted, `id`, `category` and `language`.
    Conversations are named by their ids or origin ids, events by your ids or the server's: import the conversations
    first. Loading the same questions again changes nothing; other questions make the next version, which is to be
    approved anew.
    """
    try:
        read = read_golden(file, name or file.stem, owner)
    except FormatError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    body = {"name": read.name, "owner": read.owner, "questions": _questions(read)}
    body |= {} if tenant is None else {"tenant": tenant}
    with connect(settings) as client:
        made = client.post("/v1/golden", json=body, timeout=_TIMEOUT).json()
    left_out = [{"id": one.id, "why": one.why} for one in read.unusable] + made["left_out"]
    if json_lines:
        click.echo(json.dumps(made | {"left_out": left_out}, ensure_ascii=False))
        return
    tables.show([made], _COLUMNS, json_lines=False)
    _tell(left_out)
    if made["approved_by"] is None:
        of = "" if tenant is None else f" --tenant {tenant}"
        click.echo(f"next: turnstone golden approve {made['name']} --version {made['version']}{of}", err=True)


@golden.command("list")
@with_settings(*SETTINGS)
@_tenant
@tables.as_json
def list_golden(settings: Settings, tenant: str | None, json_lines: bool) -> None:
    """List golden sets, by name."""
    with connect(settings) as client:
        rows = client.get("/v1/golden", params=_whose(tenant)).json()["data"]
    tables.show(rows, _COLUMNS, json_lines=json_lines)


@golden.command()
@with_settings(*SETTINGS)
@click.argument("name")
@_tenant
@tables.as_json
def show(settings: Settings, name: str, tenant: str | None, json_lines: bool) -> None:
    """Show the questions of the golden set NAME."""
    with connect(settings) as client:
        rows = client.get(_path(name), params=_whose(tenant)).json()["data"]
    tables.show(rows, ("id", "question", "evidence", "category", "language", "conversation"), json_lines=json_lines)


@golden.command()
@with_settings(*SETTINGS)
@click.argument("name")
@click.option("--version", type=click.IntRange(1), required=True, help="The version that you have looked at.")
@_tenant
@tables.as_json
def approve(settings: Settings, name: str, version: int, tenant: str | None, json_lines: bool) -> None:
    """Approve a version of the golden set NAME: gates rest on approved sets."""
    with connect(settings) as client:
        made = client.post(f"{_path(name)}/approve", json={"version": version}, params=_whose(tenant)).json()
    tables.show([made], _COLUMNS, json_lines=json_lines)


@golden.command()
@with_settings(*SETTINGS)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_tenant
def remove(settings: Settings, name: str, yes: bool, tenant: str | None) -> None:
    """Remove the golden set NAME with its questions."""
    if not yes:
        click.confirm(f"Remove the golden set {name!r} with its questions?", abort=True)
    with connect(settings) as client:
        client.delete(_path(name), params=_whose(tenant))
    click.echo(f"{name} is removed")


def _questions(read: GoldenSet) -> list[dict[str, Any]]:
    return [
        {
            "id": one.id,
            "conversation": one.conversation,
            "question": one.text,
            "evidence": list(one.evidence),
            "category": one.category,
            "language": one.language,
        }
        for one in read.questions
    ]


def _tell(left_out: Iterable[Mapping[str, str]]) -> None:
    rows = list(left_out)
    for one in rows[:_SHOWN]:
        click.echo(f"left out {one['id']}: {one['why']}", err=True)
    if len(rows) > _SHOWN:
        click.echo(f"left out {len(rows) - _SHOWN} more; --json names them all", err=True)


def _path(name: str) -> str:
    return f"/v1/golden/{quote(name, safe='')}"


def _whose(tenant: str | None) -> dict[str, str]:
    return {} if tenant is None else {"tenant": tenant}
