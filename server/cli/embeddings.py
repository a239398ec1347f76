"""``turnstone embeddings``: versions, and the migration from one to the next, step by step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from server.cli import backfilling, comparing, migrating, tables
from server.cli.client import SETTINGS, Client, Refused, connect
from server.cli.options import DATABASE, with_settings
from server.settings import Settings

_PATH: Final = "/v1/embeddings/migration"
_FLIPS: Final = ("start", "shadow", "ramp", "cutover", "contract")
_LONG: Final = 6 * 3600.0  # seconds: a large log is measured for hours
_json = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON, for programs.")
_epoch = click.option(
    "--epoch", type=click.IntRange(0), help="Refuse if anything has changed since this epoch. Default: since just now."
)
_force = click.option("--force", metavar="REASON", help="Go on although a comparison fails; the reason is recorded.")
_backfill_settings = tuple(dict.fromkeys((*SETTINGS, *DATABASE, "log_level", "log_format")))


@click.group()
def embeddings() -> None:
    """Migrate to another embedding model, on live traffic; needs an operator's admin key.

    \b
    add       register a model, by what it answers
    plan      what it would take
    start     every writer covers both versions from here on
    backfill  embed what was written before
    verify    are the vectors sound?
    shadow    let the new version answer some searches, unseen
    compare   is it better? gates say pass or fail
    ramp      let it answer some users
    cutover   let it answer everybody
    rollback  undo all of it, at any time until:
    contract  drop the old version's vectors
    """


@embeddings.command("list")
@with_settings(*SETTINGS)
@tables.as_json
def list_versions(settings: Settings, json_lines: bool) -> None:
    """List the versions."""
    with connect(settings) as client:
        rows = client.get("/v1/embeddings/versions").json()["data"]
    tables.show(
        rows, ("name", "state", "provider", "model", "dimensions", "fingerprint", "since"), json_lines=json_lines
    )


@embeddings.command()
@with_settings(*SETTINGS)
@_json
def status(settings: Settings, as_json: bool) -> None:
    """Say where the migration stands, and what stands in the way of each step."""
    with connect(settings) as client:
        found = client.get(_PATH).json()
    _show(found, as_json, migrating.show_status)


@embeddings.command()
@with_settings(*SETTINGS)
@click.option("--version", "version", help="Only of this version.")
@click.option("--newest", type=click.IntRange(1), help="Only so many lines.")
@tables.as_json
def history(settings: Settings, version: str | None, newest: int | None, json_lines: bool) -> None:
    """Say what was done, by whom, and on what figures."""
    query = {name: value for name, value in (("version", version), ("newest", newest)) if value is not None}
    with connect(settings) as client:
        rows = client.get(f"{_PATH}/history", params=query).json()["data"]
    if json_lines:
        tables.show(rows, (), json_lines=True)
    else:
        migrating.show_history(rows)


@embeddings.command()
@with_settings(*SETTINGS)
@click.argument("name")
@click.option("--provider", required=True, help="What runs the model: wordllama, sentence-transformers, openai.")
@click.option("--model", required=True, help="The model, as its provider names it, or a path.")
@click.option("--revision", default="", help="The model's revision.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Of the provider; repeatable.")
@click.option("--query-prefix", default="", help="What stands before a question.")
@click.option("--document-prefix", default="", help="What stands before a text.")
@_json
def add(settings: Settings, name: str, options: tuple[str, ...], as_json: bool, **fields: str) -> None:
    """Register a model as the version NAME; nothing else changes.

    A provider's key is never given here: the server takes it from TURNSTONE_PROVIDER_KEY.
    """
    body = {"name": name, **fields, "options": _options(options)}
    with connect(settings) as client:
        done = client.post("/v1/embeddings/versions", json=body, timeout=_LONG).json()
    _show(done, as_json, migrating.show_done)
    _next(f"turnstone embeddings plan {name}")


def _options(given: tuple[str, ...]) -> dict[str, Any]:
    """Read NAME=VALUE; a value that is JSON (a number, true) is taken as that, else as it stands."""
    found: dict[str, Any] = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign or not name:
            raise click.BadParameter(f"{one!r} is not NAME=VALUE", param_hint="--option")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


@embeddings.command()
@with_settings(*SETTINGS)
@click.argument("name")
@_json
def plan(settings: Settings, name: str, as_json: bool) -> None:
    """Say what a migration to NAME would take: texts, time, disk."""
    _run(settings, "plan", {"name": name}, as_json, migrating.show_plan)


@embeddings.command()
@with_settings(*SETTINGS)
@click.argument("name")
@_epoch
@_json
def start(settings: Settings, name: str, epoch: int | None, as_json: bool) -> None:
    """Begin the migration to NAME: from here on every writer covers it beside the old version."""
    _run(settings, "start", {"name": name}, as_json, epoch=epoch)


@embeddings.command()
@with_settings(*_backfill_settings)
@click.option("--worker", is_flag=True, help="Be one more worker, on this machine, until nothing is left.")
@click.option("--no-wait", is_flag=True, help="Only begin; the servers do the rest.")
@_json
def backfill(settings: Settings, worker: bool, no_wait: bool, as_json: bool) -> None:
    """Embed what was written before, and show how far it is; Ctrl-C ends the showing only."""
    if worker:
        backfilling.work(settings)
        return
    with connect(settings) as client:
        before = client.get(_PATH).json()
        done = {} if _state(before) == "backfilling" else _post(client, "backfill", {}, before["routing"]["epoch"])
        if not no_wait:
            left = backfilling.follow(lambda: _backfilled(client))
            if not as_json:
                click.echo(f"{left['events']:,} events, {left['waiting']:,} waiting, {left['dead']:,} dead letters")
        elif done and not as_json:
            migrating.show_done(done)
        if as_json:
            click.echo(json.dumps(client.get(_PATH).json(), ensure_ascii=False))
    _next("turnstone embeddings verify")


def _state(status: dict[str, Any]) -> str | None:
    return status["running"]["state"] if status["running"] else None


def _backfilled(client: Client) -> dict[str, Any]:
    now = client.get(_PATH).json()
    if now["backfill"] is None:
        raise click.ClickException("the migration was rolled back")
    found: dict[str, Any] = now["backfill"]
    return found | {"paused": now["routing"]["paused"]}


@embeddings.command()
@with_settings(*SETTINGS)
@click.option("--sample", type=click.IntRange(1, 5000), default=200, show_default=True, help="Vectors made anew.")
@_json
def verify(settings: Settings, sample: int, as_json: bool) -> None:
    """Hold the new version's vectors and index against the log and the model."""
    _run(settings, "verify", {"sample": sample}, as_json)


@embeddings.command()
@with_settings(*SETTINGS)
@click.argument("percent", type=click.FloatRange(0, 100))
@_epoch
@_json
def shadow(settings: Settings, percent: float, epoch: int | None, as_json: bool) -> None:
    """Let the new version answer PERCENT of the searches too, unseen."""
    _run(settings, "shadow", {"percent": percent}, as_json, epoch=epoch)


@embeddings.command()
@with_settings(*SETTINGS)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures to a JSON file.")
@_json
def compare(settings: Settings, report: Path | None, as_json: bool) -> None:
    """Compare the answers of both versions; ends with status 3 when a gate fails."""
    with connect(settings) as client:
        found = client.post(f"{_PATH}/compare", json={}, timeout=_LONG).json()
    if report is not None:
        report.write_text(json.dumps(found["report"], indent=1, ensure_ascii=False))
    _show(found, as_json, lambda one: comparing.show(one["report"]))
    if not found["passed"]:
        raise click.exceptions.Exit(3)


@embeddings.command()
@with_settings(*SETTINGS)
@click.argument("percent", type=click.FloatRange(0, 100))
@_force
@_epoch
@_json
def ramp(settings: Settings, percent: float, force: str | None, epoch: int | None, as_json: bool) -> None:
    """Let the new version answer PERCENT of the users, always the same ones."""
    _run(settings, "ramp", {"percent": percent, "force": force}, as_json, epoch=epoch)


@embeddings.command()
@with_settings(*SETTINGS)
@_force
@_epoch
@_json
def cutover(settings: Settings, force: str | None, epoch: int | None, as_json: bool) -> None:
    """Let the new version answer everybody; the old one is still written."""
    _run(settings, "cutover", {"force": force}, as_json, epoch=epoch)


@embeddings.command()
@with_settings(*SETTINGS)
@click.option("--reason", default="", help="Kept in the history.")
@_json
def rollback(settings: Settings, reason: str, as_json: bool) -> None:
    """Undo the migration: the old version answers everybody, as before; never refused until `contract`."""
    with connect(settings) as client:
        done = _post(client, "rollback", {"reason": reason}, None)
    _show(done, as_json, migrating.show_done)


@embeddings.command()
@with_settings(*SETTINGS)
@click.argument("name")
@click.option("--yes", help="The version's name once more, instead of being asked for it.")
@_epoch
@_json
def contract(settings: Settings, name: str, yes: str | None, epoch: int | None, as_json: bool) -> None:
    """Drop the vectors of NAME: the version that was replaced, or a draft that was given up."""
    typed = yes or click.prompt(f"There is no way back. Type the version's name ({name}) to drop its vectors")
    _run(settings, "contract", {"name": name, "confirm": typed}, as_json, epoch=epoch)


@embeddings.command()
@with_settings(*SETTINGS)
@click.option("--reason", default="", help="Kept in the history.")
@_json
def pause(settings: Settings, reason: str, as_json: bool) -> None:
    """Let the background work wait."""
    _run(settings, "pause", {"reason": reason}, as_json)


@embeddings.command()
@with_settings(*SETTINGS)
@_json
def resume(settings: Settings, as_json: bool) -> None:
    """Let the background work go on."""
    _run(settings, "resume", {}, as_json)


def _run(
    settings: Settings,
    action: str,
    body: dict[str, Any],
    as_json: bool,
    show: Callable[[dict[str, Any]], None] | None = None,
    *,
    epoch: int | None = None,
) -> None:
    """Run a command, if it flips anything as of the epoch of now: of two operators at once only one gets through."""
    with connect(settings) as client:
        if epoch is None and action in _FLIPS:
            epoch = client.get(_PATH).json()["routing"]["epoch"]
        done = _post(client, action, body, epoch)
    _show(done, as_json, show or migrating.show_done)


def _post(client: Client, action: str, body: dict[str, Any], epoch: int | None) -> dict[str, Any]:
    sent = {name: value for name, value in (body | {"epoch": epoch}).items() if value is not None}
    try:
        answer: dict[str, Any] = client.post(f"{_PATH}/{action}", json=sent, timeout=_LONG).json()
    except Refused as error:
        migrating.show_gates(error.details.get("gates", []), whole=False)
        raise
    return answer


def _show(found: dict[str, Any], as_json: bool, show: Callable[[dict[str, Any]], None]) -> None:
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        show(found)


def _next(command: str) -> None:
    click.echo(f"next: {command}", err=True)
