"""Exports over HTTP: fetched whole into a file, and sent back chunk by chunk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

import click
import httpx

from server.cli.client import Client
from server.cli.uploading import Counts, Sender
from server.log.formats import FormatError
from server.log.formats.export_lines import (
    ConversationLine,
    EndLine,
    ErasureLine,
    EventLine,
    Header,
    TouchLine,
    UserLine,
    encode_line,
)
from server.log.formats.jsonl import read_lines

CHUNK: Final = 8 * 1024 * 1024  # bytes; the server takes 16 MiB
_CUT_OFF = "the export ends before its end line: it was cut off; export again"


def check_whole(path: Path) -> None:
    """Raise FormatError unless every line of an export can be read and its end line counts them all."""
    counts = dict.fromkeys((UserLine, ConversationLine, EventLine, TouchLine, ErasureLine), 0)
    end: EndLine | None = None
    for number, line in read_lines(path):
        if end is not None:
            raise FormatError(path, f"line {number}", "the end line is not the last")
        if isinstance(line, EndLine):
            end = line
        elif not isinstance(line, Header):
            counts[type(line)] += 1
    if end is None:
        raise FormatError(path, "end", _CUT_OFF)
    users, conversations, events, touches, erasures = counts.values()
    if end != EndLine(users=users, conversations=conversations, events=events, touches=touches, erasures=erasures):
        raise FormatError(path, "end line", f"it says {encode_line(end).decode()}, but other numbers of lines came")


def restore_file(send: Sender, path: Path, counts: Counts, advance: Callable[[int], None]) -> None:
    """Send an export as chunks, each with the header and the conversation that its first events go on."""
    header = b""
    conversation = b""
    chunk: list[bytes] = []
    size = 0
    for _, line in read_lines(path, advance):
        data = encode_line(line)
        if isinstance(line, Header):
            header = data
            # Alone, so that a tenant that cannot take it says so at once.
            send("POST", "/v1/import", content=header)
            chunk, size = [header], len(header)
            continue
        if size + len(data) > CHUNK and len(chunk) > 1:
            _send(send, chunk, counts)
            # With the conversation also when the next line is another's: that line tells that this one is whole.
            chunk = [header, conversation] if conversation else [header]
            size = sum(map(len, chunk))
        if isinstance(line, ConversationLine):
            conversation = data
            counts.conversations += 1
        chunk.append(data)
        size += len(data) + 1
    _send(send, chunk, counts)


def _send(send: Sender, chunk: list[bytes], counts: Counts) -> None:
    answer = send("POST", "/v1/import", content=b"\n".join(chunk))
    counts.new += answer["events"]
    counts.known += answer["known"]


def save_export(client: Client, query: dict[str, str], file: BinaryIO) -> int:
    """Write an export to a file; returns its size. Raises ClickException when it is cut off."""
    size = 0
    tail = b""
    try:
        with client.stream("GET", "/v1/export", params=query) as response:
            for data in response.iter_bytes():
                file.write(data)
                size += len(data)
                tail = (tail + data)[-200:]
    except httpx.TransportError as error:
        raise click.ClickException(_CUT_OFF) from error
    if b'{"kind":"end",' not in tail or not tail.endswith(b"}\n"):
        raise click.ClickException(_CUT_OFF)
    file.flush()
    return size


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file (mode 0600) that takes the place of ``path`` when all of it is written, or leaves that as it was."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
