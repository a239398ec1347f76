"""``turnstone import`` and ``turnstone export``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from server.cli.client import SETTINGS, Refused, connect
from server.cli.options import with_settings
from server.cli.restoring import check_whole, replacing, restore_file, save_export
from server.cli.uploading import Counts, Sender, Uploader
from server.log.formats import FormatError, ImportedConversation
from server.log.formats.chatgpt import Trunk, read_chatgpt
from server.log.formats.jsonl import peek_header, read_jsonl
from server.log.formats.locomo import read_locomo
from server.log.formats.longmemeval import read_longmemeval
from server.settings import Settings

_PLAIN_EVERY = 5.0  # seconds between two lines of progress where there is no terminal
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
Advance = Callable[[int], None]
Read = Callable[[Advance], Iterator[ImportedConversation]]


def _command(command: Callable[..., None]) -> Callable[..., None]:
    """Give an import what all of them take."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Read the whole file and count; send nothing."),
        click.option("--user", help="The user that all of it belongs to; by default, as the file says."),
        click.argument("file", type=_FILE),
        with_settings(*SETTINGS),
    ):
        command = option(command)
    return command


@click.group("import")
def import_() -> None:
    """Import conversations from a file.

    Importing the same file again adds only what is new in it, so an import that was interrupted is simply run again.
    """


@import_.command()
@_command
def locomo(settings: Settings, file: Path, user: str | None, dry_run: bool) -> None:
    """Import LoCoMo: each sample is a conversation, and a user of its own."""
    _import(settings, file, "locomo:", lambda advance: read_locomo(file, user, advance), dry_run)


@import_.command()
@_command
def longmemeval(settings: Settings, file: Path, user: str | None, dry_run: bool) -> None:
    """Import LongMemEval: each question's haystack is a conversation, and a user of its own."""
    _import(settings, file, "longmemeval:", lambda advance: read_longmemeval(file, user, advance), dry_run)


@import_.command()
@_command
@click.option(
    "--trunk",
    type=click.Choice(["oldest", "current"]),
    default="oldest",
    show_default=True,
    help="Which branch is the conversation itself, the others being forks of it. A later export of the same account "
    "extends what `oldest` imported; `current` is what ChatGPT shows, and may contradict an earlier import.",
)
def chatgpt(settings: Settings, file: Path, user: str | None, dry_run: bool, trunk: Trunk) -> None:
    """Import conversations.json of the export that ChatGPT users download; branches become forks."""
    _import(settings, file, "chatgpt:", lambda advance: read_chatgpt(file, user, trunk, advance), dry_run)


@import_.command()
@_command
@click.option("--new-ids", is_flag=True, help="Make new conversations of an export even where it could be restored.")
def jsonl(settings: Settings, file: Path, user: str | None, dry_run: bool, new_ids: bool) -> None:
    """Import JSON lines: Turnstone's own export, or one event a line.

    An export goes into an empty tenant, or the tenant that it came from, exactly as it was; this needs an admin key,
    and nothing else writing to the tenant meanwhile. In any other tenant, or for another user, its conversations get
    new ids and keep their old ones as origin ids.
    """
    with _file_errors():
        header = peek_header(file)
    if header is None or user is not None or new_ids or dry_run or not _restore(settings, file):
        prefix = "jsonl:" if header is None else ""
        _import(settings, file, prefix, lambda advance: read_jsonl(file, user, advance), dry_run)


def _restore(settings: Settings, file: Path) -> bool:
    """Restore an export; returns False when the tenant cannot take it as it is."""
    counts = Counts()
    started = time.monotonic()
    with _file_errors():
        check_whole(file)
        with connect(settings) as client, _progress(file, counts) as advance:
            try:
                restore_file(Sender(client), file, counts, advance)
            except Refused as error:
                if error.code != "tenant_not_empty" or counts.events:
                    raise
                click.echo(f"{error.message}; they are made anew", err=True)
                return False
    _summary(counts, time.monotonic() - started, f"{counts.new:,} restored, {counts.known:,} already there")
    return True


def _import(settings: Settings, file: Path, prefix: str, read: Read, dry_run: bool) -> None:
    counts = Counts()
    started = time.monotonic()
    with _file_errors(), _progress(file, counts) as advance:
        if dry_run:
            for conversation in read(advance):
                counts.new += sum(1 for _ in conversation.events)
                counts.conversations += 1
        else:
            with connect(settings) as client:
                uploader = Uploader(Sender(client), prefix, counts)
                for conversation in read(advance):
                    uploader.upload(conversation)
                uploader.finish()
    what = "would be imported" if dry_run else f"{counts.new:,} new, {counts.known:,} already there"
    _summary(counts, time.monotonic() - started, what)


def _summary(counts: Counts, seconds: float, what: str) -> None:
    rate = counts.events / seconds if seconds else 0
    click.echo(f"{counts.conversations:,} conversations, {counts.events:,} events ({what}); {rate:,.0f} events/s")


@click.group()
def export() -> None:
    """Export the log to a file."""


@export.command("jsonl")
@with_settings(*SETTINGS)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The file (mode 0600), else stdout.")
@click.option("--user", help="Only this user's conversations.")
@click.option("--conversation", help="Only the conversation with this id, and those it was forked from.")
def export_jsonl(settings: Settings, output: Path | None, user: str | None, conversation: str | None) -> None:
    """Export as JSON lines, from which `turnstone import jsonl` restores the very same log.

    The export holds all content, and the salt that ids and hashes are made from: keep it as you keep the database. It
    needs an admin key.
    """
    query = {name: value for name, value in (("user", user), ("conversation", conversation)) if value is not None}
    with connect(settings) as client, _file_errors():
        if output is None:
            size = save_export(client, query, sys.stdout.buffer)
        else:
            with replacing(output) as file:
                size = save_export(client, query, file)
            click.echo(f"{output}: {size:,} bytes")


@contextmanager
def _file_errors() -> Iterator[None]:
    try:
        yield
    except FormatError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error


@contextmanager
def _progress(file: Path, counts: Counts) -> Iterator[Advance]:
    """Show how much of a file has been read: a bar on a terminal, elsewhere a line now and then, on standard error."""
    size = file.stat().st_size
    console = Console(stderr=True)
    if not console.is_terminal:
        done, told_at = 0, time.monotonic()

        def tell(amount: int) -> None:
            nonlocal done, told_at
            done += amount
            if time.monotonic() - told_at >= _PLAIN_EVERY:
                told_at = time.monotonic()
                click.echo(f"{file.name}: {done * 100 // max(size, 1)} %, {counts.events:,} events", err=True)

        yield tell
        return
    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[events]:,} events"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(file.name, total=size, events=0)
        yield lambda amount: progress.update(task, advance=amount, events=counts.events)
