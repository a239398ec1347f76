"""JSON lines: Turnstone's own export, and the simplest thing another program can write, one event a line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from server.log.formats import EventType, FormatError, ImportedConversation, ImportedEvent, Role
from server.log.formats.dates import as_utc
from server.log.formats.decoding import problems_at
from server.log.formats.export_lines import (
    ConversationLine,
    EventLine,
    Header,
    Line,
    decode_line,
    parse_time,
    stored_text,
)
from server.log.formats.json_array import Progress

LINE_LIMIT = 64 << 20


class _GenericEvent(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    conversation: str
    user: str | None = None
    content: Any
    type: EventType = "message"
    role: Role | None = None
    id: str | None = None
    name: str | None = None
    call_id: str | None = None
    session: str | None = None
    run_id: str | None = None
    occurred_at: datetime | None = None
    metadata: dict[str, Any] | None = None


class _Kind(msgspec.Struct):
    kind: str | None = None


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    seq: int


_NAMING = ("pin", "unpin", "deletion")
_named_decoder = msgspec.json.Decoder(_Named)
_generic_decoder = msgspec.json.Decoder(_GenericEvent)
_kind_decoder = msgspec.json.Decoder(_Kind)
_metadata_decoder = msgspec.json.Decoder(dict[str, Raw])  # so that numbers stay as they are written


def read_lines(path: Path, progress: Progress | None = None) -> Iterator[tuple[int, Line]]:
    """The records of Turnstone's own export as (line number from 1, record), for a faithful restore.

    Raises FormatError naming the line where it is not one, or where the header is missing or comes again.
    """
    for first, (number, data) in enumerate(_raw_lines(path, progress)):
        with problems_at(path, f"line {number}"):
            line = decode_line(data)
            if isinstance(line, Header) != (first == 0):
                raise ValueError("the header must be the first line, and only that")
        yield number, line


def read_jsonl(path: Path, user: str | None = None, progress: Progress | None = None) -> Iterator[ImportedConversation]:
    """The conversations of Turnstone's own export (recognised by its header), else of generic lines.

    A generic line is `{"conversation": …, "content": …}` with, as wanted, `user` and the fields of an event. Its
    conversation is taken up wherever it appears: conversations whose lines alternate are yielded again and again, with
    the same `origin_id`. An event without an id gets `<file name>:<line>`. Raises FormatError naming the line.

    From an export every event keeps its place, but for what retention removed before it: one without an id gets
    `seq-<seq>`, an erased one becomes an `erasure` without content; what pins and deletions name moves with it (where
    that is gone, they become an `item`). The events of a conversation are read from the file as they are walked.
    """
    yield from (_read_generic if peek_header(path) is None else _read_export)(path, user, progress)


def peek_header(path: Path) -> Header | None:
    """The header of Turnstone's own export, None for generic lines and an empty file; raises FormatError."""
    first = next(_raw_lines(path, None), None)
    if first is None:
        return None
    with problems_at(path, f"line {first[0]}"):
        if _kind_decoder.decode(first[1]).kind is None:
            return None
        line = decode_line(first[1])
        if not isinstance(line, Header):
            raise ValueError("the header must be the first line, and only that")
        return line


def _raw_lines(path: Path, progress: Progress | None) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        number = 0
        while data := file.readline(LINE_LIMIT + 1):
            number += 1
            if len(data) > LINE_LIMIT:
                raise FormatError(path, f"line {number}", f"longer than {LINE_LIMIT} bytes")
            if progress is not None:
                progress(len(data))
            data = (data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data).strip()
            if data:
                yield number, data


def _read_generic(path: Path, user: str | None, progress: Progress | None) -> Iterator[ImportedConversation]:
    def events() -> Iterator[tuple[str, str | None, ImportedEvent]]:
        for number, data in _raw_lines(path, progress):
            with problems_at(path, f"line {number}"):
                line = _generic_decoder.decode(data)
                occurred_at = None if line.occurred_at is None else as_utc(line.occurred_at)
            event = ImportedEvent(
                type=line.type,
                role=line.role,
                content=line.content,
                id=line.id or f"{path.name}:{number}",
                name=line.name,
                call_id=line.call_id,
                session=line.session,
                run_id=line.run_id,
                occurred_at=occurred_at,
                metadata=line.metadata,
            )
            yield line.conversation, user or line.user, event

    for (origin, owner), group in groupby(events(), key=lambda entry: entry[:2]):
        yield ImportedConversation(
            origin_id=origin, user=owner, metadata={"source": "jsonl"}, events=(event for _, _, event in group)
        )


def _read_export(path: Path, user: str | None, progress: Progress | None) -> Iterator[ImportedConversation]:
    forks = _fork_events(path)
    origins: dict[str, str] = {}
    missing: dict[str, int] = {}  # how many events of each conversation are gone from its beginning
    current: ConversationLine | None = None

    def owned() -> Iterator[tuple[ConversationLine, ImportedEvent | None]]:
        nonlocal current
        for number, line in read_lines(path, progress):
            if isinstance(line, ConversationLine):
                current = line
                fork_seq = line.fork_seq or 0
                shared = fork_seq - missing.get(_shown_parent(line) or "", 0) if line.id in forks else 0
                missing[line.id] = (line.first or fork_seq + 1) - 1 - shared
                yield line, None
            elif isinstance(line, EventLine):
                if current is None or line.conversation != current.id:
                    raise FormatError(path, f"line {number}", f"an event of {line.conversation!r} stands outside it")
                with problems_at(path, f"line {number}"):
                    event = _event(line, missing[current.id])
                yield current, event

    for conversation_id, group in groupby(owned(), key=lambda entry: entry[0].id):
        entries = iter(group)
        conversation, _ = next(entries)
        # Two users may each have a conversation of the same origin, which one user cannot.
        origin = conversation_id if user is not None else conversation.origin_id or conversation_id
        origins[conversation_id] = origin
        parent = _shown_parent(conversation)
        if parent is not None and parent not in origins:
            raise FormatError(path, f"conversation {conversation_id}", f"its parent {parent!r} does not come before it")
        metadata = stored_text(conversation.metadata, conversation.metadata_text)
        yield ImportedConversation(
            origin_id=origin,
            user=user or conversation.user,
            metadata={} if metadata is None else _metadata_decoder.decode(metadata),
            fork_of=None if parent is None else origins[parent],
            fork_at=forks.get(conversation_id),
            deleted=conversation.deleted_at is not None,
            events=(event for _, event in entries if event is not None),
        )


def _shown_parent(conversation: ConversationLine) -> str | None:
    """The conversation in the file that holds what this one shares: its parent, or where that is gone, an older one."""
    if conversation.lineage is None:
        return conversation.parent
    return conversation.lineage[-1][0] if conversation.lineage else None


def _event(line: EventLine, missing: int) -> ImportedEvent:
    text = stored_text(line.metadata, line.metadata_text)
    metadata: dict[str, Any] | None = None if text is None else _metadata_decoder.decode(text)
    if line.erased_at is not None:
        metadata = {"erased_at": line.erased_at, "erased_type": line.type}
    content = stored_text(line.content, line.content_text)
    kind: EventType = "erasure" if line.erased_at is not None else line.type
    if missing and content is not None and line.type in _NAMING:
        moved = _moved(content, missing)
        if moved is None:
            kind, metadata = "item", {"source_type": line.type, **(metadata or {})}
        else:
            content = moved
    return ImportedEvent(
        type=kind,
        role=line.role,
        content=None if content is None else Raw(content.encode()),
        id=line.id or f"seq-{line.seq}",
        name=line.name,
        call_id=line.call_id,
        session=line.session,
        run_id=line.run_id,
        occurred_at=parse_time(line.occurred_at or line.recorded_at),
        metadata=metadata,
    )


def _moved(content: str, missing: int) -> str | None:
    """Return what names an event by its seq for when so many before it are missing; None when it is one of them."""
    try:
        seq = _named_decoder.decode(content).seq
    except msgspec.ValidationError:
        return content
    return msgspec.json.encode({"seq": seq - missing}).decode() if seq > missing else None


def _fork_events(path: Path) -> dict[str, str]:
    """For each fork the id of the event after which it branches, found before the events themselves are handed out.

    A fork names a `seq`; the event there may be its parent's or an older ancestor's.
    """
    parents: dict[str, tuple[str, int]] = {}
    wanted: dict[tuple[str, int], list[str]] = {}
    for _, line in read_lines(path):
        if isinstance(line, ConversationLine) and line.fork_seq is not None:
            parent = _shown_parent(line)
            if parent is not None:
                parents[line.id] = (parent, line.fork_seq)
    for fork, (owner, seq) in parents.items():
        holder = owner
        while holder in parents and seq <= parents[holder][1]:
            holder = parents[holder][0]
        wanted.setdefault((holder, seq), []).append(fork)
    if not wanted:
        return {}
    found: dict[str, str] = {}
    for _, line in read_lines(path):
        if isinstance(line, EventLine):
            for fork in wanted.get((line.conversation, line.seq), ()):
                found[fork] = line.id or f"seq-{line.seq}"
    return found
