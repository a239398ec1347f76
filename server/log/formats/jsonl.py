"""JSON lines: Turnstone's own export, and the simplest thing another program can write, one event a line.

The export is a header line; user lines; conversation lines, a parent before its forks, each followed by the events that
the conversation appended itself, in order; erasure lines; an end line, by which a file that was cut off is known.
`encode_line(decode_line(line)) == line`, byte for byte, for every line encoded here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from server.log.formats import EventType, FormatError, ImportedConversation, ImportedEvent, Role
from server.log.formats.dates import as_utc
from server.log.formats.decoding import problems_at
from server.log.formats.json_array import Progress

FORMAT: Literal["turnstone-jsonl"] = "turnstone-jsonl"
VERSION = 1
LINE_LIMIT = 64 << 20

# Kept as text: msgspec writes a datetime without its fraction when that is zero, and a line must come back as it was.
Timestamp = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]
Seq = Annotated[int, Meta(ge=1, lt=2**62)]
Position = Annotated[int, Meta(ge=0, lt=2**62)]
ConversationText = Annotated[str, Meta(pattern="^conv_[0-9a-f]{48}$")]
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class _Line(msgspec.Struct, tag_field="kind", omit_defaults=True, forbid_unknown_fields=True):
    pass


class Header(_Line, tag="header", kw_only=True):
    """The first line. `salt` is the tenant's, in hexadecimal, from which ids and hashes are made."""

    format: Annotated[Literal["turnstone-jsonl"], Meta(description="The format's name.")]
    version: Annotated[int, Meta(description="The format's version.")]
    salt: Annotated[
        str | None,
        Meta(description="The tenant's salt, 64 hexadecimal digits, from which ids and hashes are made."),
    ] = None


class UserLine(_Line, tag="user", kw_only=True):
    """An end user, who may have no conversation."""

    id: Annotated[str, Meta(description="The user, in the caller's words.")]
    created_at: Annotated[Timestamp, Meta(description="When it was first named.")]


class ConversationLine(_Line, tag="conversation", kw_only=True):
    """A conversation; `metadata` is JSON text, verbatim, absent when it is `{}`.

    `fork_seq` is the last `seq` shared with `parent`; `lineage` lists who owns what of that, as [id, last seq], when
    the parent itself is not in the file. Of its own events it holds those from `first` on (by default from the first
    that is not shared); events up to `floor` are gone by retention. A deleted one is kept for what its forks share.
    """

    id: Annotated[str, Meta(description="The conversation's id.")]
    origin_id: Annotated[str | None, Meta(description="Its id where it came from.")] = None
    user: Annotated[str | None, Meta(description="The user it belongs to.")] = None
    parent: Annotated[str | None, Meta(description="The conversation it is a fork of.")] = None
    fork_seq: Annotated[Position | None, Meta(description="The last seq that it shares with its parent.")] = None
    lineage: Annotated[
        list[tuple[str, Seq]] | None,
        Meta(description="Who owns what it shares, as [id, last seq], when the parent is not in the file."),
    ] = None
    created_at: Annotated[Timestamp, Meta(description="When it was created.")]
    recorded_at: Annotated[Timestamp, Meta(description="When its last event was recorded.")]
    deleted_at: Annotated[Timestamp | None, Meta(description="When it was deleted.")] = None
    metadata: Annotated[Raw | UnsetType, Meta(description="Its metadata, verbatim; absent when it is `{}`.")] = UNSET
    metadata_text: Annotated[str | None, Meta(description="The metadata as a string, when it holds line breaks.")] = (
        None
    )
    retention_days: Annotated[Annotated[int, Meta(ge=1, le=36500)] | None, Meta(description="Its own retention.")] = (
        None
    )
    head: Annotated[Position, Meta(description="Its last seq.")]
    first: Annotated[
        Seq | None, Meta(description="The first of its own events in the file, when others before it are gone.")
    ] = None
    floor: Annotated[Position, Meta(description="Events up to this seq are gone by retention.")] = 0
    epoch: Annotated[Position, Meta(description="Raised whenever it shows less than before.")] = 0


class EventLine(_Line, tag="event", kw_only=True):
    """An event that its conversation appended itself; `content` and `metadata` are JSON text, verbatim.

    JSON text with line breaks between its tokens stands in `content_text` or `metadata_text`, as a string.
    `occurred_at` is absent when it is `recorded_at`. `client_digest` is the keyed hash of the body that came with the
    caller's own id; `client_key` that of an id that is erased. With `erased_at` it is a tombstone, without content.
    """

    conversation: Annotated[str, Meta(description="The conversation that appended it.")]
    seq: Annotated[Seq, Meta(description="Its position there.")]
    type: Annotated[EventType, Meta(description="What kind of event it is.")]
    role: Annotated[Role | None, Meta(description="Who speaks.")] = None
    name: Annotated[str | None, Meta(description="The speaker's name, or the tool's.")] = None
    id: Annotated[str | None, Meta(description="The caller's own id.")] = None
    client_key: Annotated[Hash | None, Meta(description="The keyed hash of a caller's id that is erased.")] = None
    client_digest: Annotated[
        Hash | None, Meta(description="The keyed hash of the body that came with the caller's id.")
    ] = None
    call_id: Annotated[str | None, Meta(description="Joins a tool call and its results.")] = None
    session: Annotated[str | None, Meta(description="The caller's label for this stretch.")] = None
    run_id: Annotated[str | None, Meta(description="The agent run it belongs to.")] = None
    content: Annotated[Raw | UnsetType, Meta(description="Its content, verbatim.")] = UNSET
    content_text: Annotated[str | None, Meta(description="The content as a string, when it holds line breaks.")] = None
    metadata: Annotated[Raw | UnsetType, Meta(description="Its metadata, verbatim.")] = UNSET
    metadata_text: Annotated[str | None, Meta(description="The metadata as a string, when it holds line breaks.")] = (
        None
    )
    occurred_at: Annotated[
        Timestamp | None, Meta(description="When it happened; absent when that is `recorded_at`.")
    ] = None
    recorded_at: Annotated[Timestamp, Meta(description="When it was recorded.")]
    erased_at: Annotated[Timestamp | None, Meta(description="When its content was erased.")] = None


class ErasureLine(_Line, tag="erasure", kw_only=True):
    """The proof that something was erased; it holds no text and names nobody."""

    id: Annotated[Hash, Meta(description="The record's id.")]
    user_key: Annotated[
        Annotated[str, Meta(pattern="^[0-9a-f]{16}$")], Meta(description="The shard key of what was erased.")
    ]
    scope: Annotated[
        Literal["event", "conversation", "user", "retention", "tenant"], Meta(description="What was erased.")
    ]
    conversation: Annotated[Hash | None, Meta(description="Where, for an event or a conversation.")] = None
    user_digest: Annotated[Hash | None, Meta(description="The keyed hash of the user's name.")] = None
    first_seq: Annotated[int | None, Meta(description="The first seq that was erased.")] = None
    last_seq: Annotated[int | None, Meta(description="The last seq that was erased.")] = None
    events: Annotated[Position, Meta(description="How many events were erased.")]
    actor: Annotated[str, Meta(description="The key that asked, or `retention`.")]
    created_at: Annotated[Timestamp, Meta(description="When it was erased.")]


class EndLine(_Line, tag="end", kw_only=True):
    """The last line: how many lines of each kind came before it."""

    users: Annotated[Position, Meta(description="How many user lines.")]
    conversations: Annotated[Position, Meta(description="How many conversation lines.")]
    events: Annotated[Position, Meta(description="How many event lines.")]
    erasures: Annotated[Position, Meta(description="How many erasure lines.")]


Line = Header | UserLine | ConversationLine | EventLine | ErasureLine | EndLine


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


_encoder = msgspec.json.Encoder()
_line_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
_generic_decoder = msgspec.json.Decoder(_GenericEvent)
_kind_decoder = msgspec.json.Decoder(_Kind)
_metadata_decoder = msgspec.json.Decoder(dict[str, Raw])  # so that numbers stay as they are written
_raw_decoder = msgspec.json.Decoder(Raw)


def encode_line(line: Line) -> bytes:
    """One line, without its newline."""
    return _encoder.encode(line)


def decode_line(data: bytes) -> Line:
    """The record of one line; raises ValueError naming the field, also for a version that this server cannot read."""
    line = _line_decoder.decode(data)
    if isinstance(line, Header) and line.version != VERSION:
        raise ValueError(f"version {line.version} of {FORMAT} is not known here (only {VERSION}): upgrade this server")
    if isinstance(line, ConversationLine):
        if (line.parent is None) != (line.fork_seq is None):
            raise ValueError("`parent` and `fork_seq` must come together")
        _check_text(line.metadata, line.metadata_text, "metadata")
    if isinstance(line, EventLine):
        _check_text(line.content, line.content_text, "content")
        _check_text(line.metadata, line.metadata_text, "metadata")
        has_content = stored_text(line.content, line.content_text) is not None
        if has_content and line.erased_at is not None:
            raise ValueError("an event has either `content` or `erased_at`")
        if line.type == "message" and not has_content and line.erased_at is None:
            raise ValueError("a message has either `content` or `erased_at`")
    return line


def verbatim(text: str | None) -> tuple[Raw | UnsetType, str | None]:
    """JSON text as the two fields that hold it: itself, or as a string where it would break the line."""
    if text is None:
        return UNSET, None
    return (UNSET, text) if "\n" in text or "\r" in text else (Raw(text.encode()), None)


def stored_text(raw: Raw | UnsetType, text: str | None) -> str | None:
    """The JSON text that `verbatim` put into the two fields."""
    return text if isinstance(raw, UnsetType) else bytes(raw).decode()


def _check_text(raw: Raw | UnsetType, text: str | None, field: str) -> None:
    if text is not None and not isinstance(raw, UnsetType):
        raise ValueError(f"either `{field}` or `{field}_text`, not both")
    json = stored_text(raw, text)  # raises for what is not UTF-8: msgspec does not look into what it keeps raw
    if text is not None:
        _raw_decoder.decode(text)
    if field == "metadata" and json is not None and json.lstrip()[:1] != "{":
        raise ValueError("`metadata` is an object")


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with microseconds; a naive time is UTC."""
    return as_utc(time).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")  # %Y does not pad years before 1000


def parse_time(text: str) -> datetime:
    """The time that `format_time` wrote; raises ValueError for anything else."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


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

    From an export every event keeps its place: one without an id gets `seq-<seq>`, an erased one becomes an `erasure`
    without content. The events of a conversation are read from the file as they are walked.
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
    current: ConversationLine | None = None

    def owned() -> Iterator[tuple[ConversationLine, ImportedEvent | None]]:
        nonlocal current
        for number, line in read_lines(path, progress):
            if isinstance(line, ConversationLine):
                current = line
                yield line, None
            elif isinstance(line, EventLine):
                if current is None or line.conversation != current.id:
                    raise FormatError(path, f"line {number}", f"an event of {line.conversation!r} stands outside it")
                with problems_at(path, f"line {number}"):
                    event = _event(line)
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


def _event(line: EventLine) -> ImportedEvent:
    text = stored_text(line.metadata, line.metadata_text)
    metadata: dict[str, Any] | None = None if text is None else _metadata_decoder.decode(text)
    if line.erased_at is not None:
        metadata = {"erased_at": line.erased_at, "erased_type": line.type}
    content = stored_text(line.content, line.content_text)
    return ImportedEvent(
        type="erasure" if line.erased_at is not None else line.type,
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
