"""The lines of Turnstone's own export.

A header line; user lines; conversation lines, a parent before its forks, each followed by the events that the
conversation appended itself, in order, and then by its touches; erasure lines; an end line, by which a file that was
cut off is known.
`encode_line(decode_line(line)) == line`, byte for byte, for every line encoded here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from server.log.formats import EventType, Role
from server.log.formats.dates import as_utc

FORMAT: Literal["turnstone-jsonl"] = "turnstone-jsonl"
VERSION = 1

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


class TouchLine(_Line, tag="touch", kw_only=True):
    """Events of a conversation that were faulted in or used: what its working set rests on beside its events."""

    conversation: Annotated[ConversationText, Meta(description="Where it happened.")]
    ord: Annotated[Seq, Meta(description="Its place among the touches of the conversation.")]
    at: Annotated[Position, Meta(description="The head when it happened.")]
    seqs: Annotated[list[Seq], Meta(min_length=1, description="The events, in order.")]
    recorded_at: Annotated[Timestamp, Meta(description="When it happened.")]


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
    touches: Annotated[Position, Meta(description="How many touch lines.")] = 0
    erasures: Annotated[Position, Meta(description="How many erasure lines.")]


Line = Header | UserLine | ConversationLine | EventLine | TouchLine | ErasureLine | EndLine


_encoder = msgspec.json.Encoder()
_line_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
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
