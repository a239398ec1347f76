"""What a person sees of a backfill: a bar with rate and time left, and why it waits; and a worker, on request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from server.settings import Settings

_LOOK: Final = 1.0  # seconds
_IDLE: Final = 12.0  # seconds in which a server must have started a worker


class _Rate(ProgressColumn):
    """Events a second, as the workers say."""

    def render(self, task: Task) -> Text:
        rate = task.fields.get("rate") or 0.0
        return Text(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s", style="progress.data.speed")


def follow(status: Callable[[], dict[str, Any]], console: Console | None = None) -> dict[str, Any]:
    """Show a backfill until nothing waits, and return the last status; Ctrl-C ends the showing, not the backfill.

    ``status`` returns ``{events, waiting, dead, rate, seconds, workers: [{hostname, pid, rate, duty, why}]}``, with
    ``paused`` if it is: as `GET /v1/embeddings/migration` has it under ``backfill``.
    """
    console = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} events"),
        _Rate(),
        TimeRemainingColumn(compact=True),
        TextColumn("[dim]{task.fields[why]}"),
    )
    now = status()
    looked = alone = time.monotonic()
    last = now["waiting"]
    with Progress(*columns, console=console, refresh_per_second=4) as progress, suppress(KeyboardInterrupt):
        bar = progress.add_task(
            "backfill", total=max(now["events"], 1), completed=now["events"] - now["waiting"], why=""
        )
        while True:
            looked = time.monotonic()
            workers = now["workers"]
            alone = looked if workers else alone
            # On a busy server a few events always wait, for the second that it takes the server itself.
            is_over = not now["waiting"] or now.get("paused") or (looked - alone > _IDLE and now["waiting"] < last)
            last = now["waiting"]
            progress.update(
                bar,
                total=max(now["events"], 1),
                completed=now["events"] - now["waiting"],
                rate=sum(worker["rate"] for worker in workers),
                why="" if is_over else _why(workers, looked - alone),
            )
            if is_over:
                break
            time.sleep(_LOOK)
            now = status()
    return now


def _why(workers: list[dict[str, Any]], alone: float) -> str:
    """Return what the slowest worker says; ``alone``: for how many seconds there was none."""
    if not workers:
        if alone < _IDLE:
            return "a worker is being started"
        return "no worker: is a server running with TURNSTONE_EMBEDDER=on? or `turnstone embeddings backfill --worker`"
    slowest = min(workers, key=lambda worker: float(worker["duty"]))
    many = f"{len(workers)} workers, " if len(workers) > 1 else ""
    return f"{many}{slowest['why']}"


def work(settings: Settings) -> None:
    """Be a worker until nothing is left: beside those of the servers, on this machine or another with the database.

    Raises TurnstoneError.
    """
    from server.operations import logs
    from server.operations.databases import database

    logs.configure(settings.log_level, settings.log_format)
    with database(settings.data_dir, settings.database_url) as address:
        done, refused = asyncio.run(_work(address, settings.provider_key))
    click.echo(f"embedded {done:,} events" + (f"; {refused:,} texts were refused (dead letters)" if refused else ""))


async def _work(address: Any, key: str | None) -> tuple[int, int]:
    from server.database.connections import Database
    from server.embeddings.backfill.worker import Worker

    database = Database(address, pool_size=2)
    worker = Worker(database, key=key)
    saying = asyncio.create_task(_say(worker))
    try:
        await worker.run()
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
        await database.close()
    return worker.embedded, worker.refused


async def _say(worker: Any) -> None:
    """Log how far it is, each ten seconds and whenever the reason for its pace changes."""
    logger = logging.getLogger(__name__)
    said, at = "", 0.0
    while True:
        if worker.why != said or time.monotonic() - at > 10:
            said, at = worker.why, time.monotonic()
            logger.info("%d events, %.0f a second; %s", worker.embedded, worker.rate, said)
        await asyncio.sleep(_LOOK)
