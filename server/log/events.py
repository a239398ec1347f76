"""Events as callers send them: what is valid, and what makes two of them the same."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from schema.vocabulary import EventType, Role
from server.database.ids import keyed_hash
from server.errors import InvalidInput, TooLarge

MAX_EVENTS = 1000  # in one append
MAX_METADATA_BYTES = 64 * 1024

Label = Annotated[str, Meta(min_length=1, max_length=256)]


class NewEvent(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One event to append."""

    type: Annotated[
        EventType, Meta(description="What kind of event this is; `erasure` and `deletion` are the server's own.")
    ] = "message"
    role: Annotated[Role | None, Meta(description="Who speaks; needed for a message.")] = None
    content: Annotated[
        Raw | UnsetType,
        Meta(
            description="For a message, a string or a list of parts (objects); any JSON for other types.",
            examples=["I moved to Lisbon."],
        ),
    ] = UNSET
    name: Annotated[Label | None, Meta(description="The speaker's name, or the tool's.")] = None
    id: Annotated[
        Label | None,
        Meta(description="Your own id, unique in the conversation: sent again with the same body, nothing is added."),
    ] = None
    call_id: Annotated[Label | None, Meta(description="Joins a tool call and its results.")] = None
    session: Annotated[Label | None, Meta(description="Your label for this stretch of the conversation.")] = None
    run_id: Annotated[Label | None, Meta(description="The agent run that this event belongs to.")] = None
    occurred_at: Annotated[
        Annotated[datetime, Meta(tz=True)] | None,
        Meta(description="When it happened (RFC 3339 with a zone); by default, when it is recorded."),
    ] = None
    metadata: Annotated[
        Raw | UnsetType,
        Meta(
            description="A JSON object of your own, up to 64 KiB, kept verbatim.",
            examples=[{"client": "ios"}],
            extra_json_schema={"type": "object"},
        ),
    ] = UNSET

    @property
    def size(self) -> int:
        """The bytes of its content and metadata."""
        # By identity, and without a copy: an append of a thousand events asks for this several times of each.
        content, metadata = self.content, self.metadata
        return (0 if content is UNSET else len(content)) + (0 if metadata is UNSET else len(metadata))


class _Pinned(msgspec.Struct):
    seq: Annotated[int, Meta(ge=1)]


class _Run(msgspec.Struct):
    state: Literal["started", "finished", "cancelled"]


_CONTENT_SHAPE: dict[str, msgspec.json.Decoder[object]] = {
    "pin": msgspec.json.Decoder(_Pinned),
    "unpin": msgspec.json.Decoder(_Pinned),
    "run": msgspec.json.Decoder(_Run),
}
_REQUIRED: dict[str, tuple[str, ...]] = {
    "message": ("role",),
    "tool_call": ("call_id", "name"),
    "tool_result": ("call_id",),
    "run": ("run_id",),
}
_parts = msgspec.json.Decoder(list[Raw])


def raw(text: Raw | UnsetType) -> bytes:
    """Return JSON text as bytes, none when it was not given."""
    return b"" if isinstance(text, UnsetType) else bytes(text)


def validate(events: list[NewEvent], *, max_bytes: int, param: str = "events") -> None:
    """Raise InvalidInput or TooLarge, naming the first field that is wrong; moves each ``occurred_at`` to UTC."""
    if not 1 <= len(events) <= MAX_EVENTS:
        raise InvalidInput(f"an append takes 1 to {MAX_EVENTS} events, not {len(events)}", param=param)
    seen: dict[str, int] = {}
    for index, event in enumerate(events):
        at = f"{param}[{index}]"
        _validate_fields(event, at)
        _validate_content(event, at)
        _validate_size(event, at, max_bytes)
        if event.id is not None and seen.setdefault(event.id, index) != index:
            raise InvalidInput(f"the id {event.id!r} stands at {param}[{seen[event.id]}] already", param=f"{at}.id")


def _validate_fields(event: NewEvent, at: str) -> None:
    if event.type in ("erasure", "deletion"):
        which = "event" if event.type == "erasure" else "item"
        problem = f"the server appends `{event.type}` events itself; DELETE the {which} instead"
        raise InvalidInput(problem, param=f"{at}.type")
    for field in _REQUIRED.get(event.type, ()):
        if getattr(event, field) is None:
            raise InvalidInput(f"a {event.type} needs `{field}`", param=f"{at}.{field}")
    if event.id or event.name or event.call_id or event.session or event.run_id:
        _validate_labels(event, at)
    if event.occurred_at is not None:
        try:
            event.occurred_at = event.occurred_at.astimezone(UTC)
        except OverflowError:
            raise InvalidInput("the time lies outside the years 1 to 9999", param=f"{at}.occurred_at") from None


def _validate_labels(event: NewEvent, at: str) -> None:
    for field in ("id", "name", "call_id", "session", "run_id"):
        value = getattr(event, field)
        if value is not None and "\0" in value:
            raise InvalidInput("U+0000 is kept in content and metadata, not in labels", param=f"{at}.{field}")
    if event.id is not None and event.id.startswith("evt_"):
        raise InvalidInput("ids that begin with evt_ are the server's own", param=f"{at}.id")


def _validate_content(event: NewEvent, at: str) -> None:
    content = raw(event.content)
    if event.type == "message":
        if content[:1] == b"[":
            if not all(bytes(part)[:1] == b"{" for part in _parts.decode(content)):
                raise InvalidInput("each content part is a JSON object", param=f"{at}.content")
        elif content[:1] != b'"':
            raise InvalidInput("a message needs `content`: a string or a list of parts", param=f"{at}.content")
    elif event.type in _CONTENT_SHAPE:
        try:
            _CONTENT_SHAPE[event.type].decode(content or b"null")
        except msgspec.ValidationError as error:
            raise InvalidInput(f"the content of a {event.type}: {error}", param=f"{at}.content") from None
    if event.metadata is not UNSET and raw(event.metadata)[:1] != b"{":
        raise InvalidInput("metadata is a JSON object", param=f"{at}.metadata")


def _validate_size(event: NewEvent, at: str, max_bytes: int) -> None:
    if event.metadata is not UNSET and len(event.metadata) > MAX_METADATA_BYTES:
        size = len(event.metadata)
        raise TooLarge(f"metadata of {size} bytes is over {MAX_METADATA_BYTES}", param=f"{at}.metadata")
    size = event.size
    if size > max_bytes:
        raise TooLarge(f"an event of {size} bytes is over {max_bytes}", param=at)


def deletion_of(seq: int) -> NewEvent:
    """Return the event that deletes the one at ``seq``; by its id, that is deleted only once."""
    return NewEvent(type="deletion", content=Raw(b'{"seq":%d}' % seq), id=f"evt_{seq}_deleted")


def digest(salt: bytes, event: NewEvent) -> bytes:
    """Return a keyed hash of an event's body, equal for equal meaning: key order, white space, escapes do not count."""
    labels = (event.type, event.role, event.name, event.call_id, event.session, event.run_id)
    when = event.occurred_at.isoformat() if event.occurred_at else ""
    body = (_canonical(event.content), _canonical(event.metadata))
    return keyed_hash(salt, "event", *(label or "" for label in labels), when, *body)


def _canonical(text: Raw | UnsetType) -> bytes:
    data = raw(text)
    if data[:1] not in (b"{", b"[", b'"'):
        return data
    try:
        return msgspec.json.encode(msgspec.json.decode(data), order="sorted")
    except msgspec.DecodeError:  # a number beyond what a float holds: only the very same text is the same
        return data
