"""What the fold knows of an event: everything but its text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
from msgspec import Meta, Raw, UnsetType

from schema.vocabulary import EventType, Role
from server import verbatim
from server.constraints import Rule, recognise, rule_of, stated
from server.working_set import tokens
from server.working_set.choice import Choice
from server.working_set.features import Features, features
from server.working_set.standing import Decision, may_set

# What a message's frame (its role and separators) costs in common chat templates.
FRAME_TOKENS: Final = 4
# Pictures and files: models charge by pixels or pages, which the log does not know.
_MEDIA_TOKENS: Final = 1000
_MEDIA: Final = ("image", "audio", "file", "document", "video")
CONTROL: Final = frozenset({"pin", "unpin", "working_set", "run", "erasure", "deletion"})
_NAMING: Final = frozenset({"pin", "unpin", "erasure", "deletion"})
_NO_FEATURES: Final = Features()

T = TypeVar("T")


class Covers(msgspec.Struct, frozen=True):
    """The seqs that a summary stands in for, both included."""

    first_seq: Annotated[int, Meta(ge=1)]
    last_seq: Annotated[int, Meta(ge=1)]


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event as the fold sees it.

    ``tokens``: as it would be rendered whole, at least 1 (0 for control events and tombstones). ``at``: when it
    occurred, in seconds since 1970. ``seq_named``: what a pin, unpin, erasure or deletion names. ``rules``: the
    constraints that it sets, if its role may, and ``decision``: what a ``constraint`` event says of another event's.
    ``named``: for a pin or a decision, the event that it names with all events of its call, so that what has left the
    working set can come back. ``stale``: a summary one of whose events has been erased since.
    """

    seq: int
    type: EventType
    role: Role | None = None
    tokens: int = 0
    call_id: str | None = None
    at: float = 0.0
    features: Features = _NO_FEATURES
    covers: Covers | None = None
    choice: Choice | None = None
    seq_named: int | None = None
    rules: tuple[Rule, ...] = ()
    decision: Decision | None = None
    named: tuple[Item, ...] = ()
    erased: bool = False
    stale: bool = False

    @property
    def is_control(self) -> bool:
        """Whether it governs the working set, and is never resident."""
        return self.type in CONTROL or self.decision is not None


class Touch(msgspec.Struct, frozen=True, kw_only=True):
    """An event that retrieval faulted in, or that the caller named as used, when the log's head was ``at``.

    ``named``: the event with all events of its call up to then; it may be left out for a resident.
    """

    seq: int
    at: int
    named: tuple[Item, ...] = ()


class LoggedEvent(Protocol):
    """What is needed of a stored event."""

    @property
    def seq(self) -> int: ...
    @property
    def type(self) -> EventType: ...
    @property
    def role(self) -> Role | None: ...
    @property
    def name(self) -> str | None: ...
    @property
    def call_id(self) -> str | None: ...
    @property
    def content(self) -> Raw | UnsetType: ...
    @property
    def occurred_at(self) -> datetime: ...
    @property
    def erased_at(self) -> datetime | None: ...


class _Named(msgspec.Struct):
    seq: int


class _Summary(msgspec.Struct):
    covers: Covers | None = None


def measure(events: Sequence[LoggedEvent]) -> list[Item]:
    """Make items of stored events: counts their tokens in one batch and reads their features.

    Content that is not as its type wants it has no effect on the fold, and is counted by its text.
    """
    decisions = {event.seq: found for event in events if (found := decision_of(event)) is not None}
    spoken = [
        event
        for event in events
        if event.type not in CONTROL and event.erased_at is None and event.seq not in decisions
    ]
    read = [text_and_media(event.content) for event in spoken]
    counts = tokens.count(
        [f"{event.name}: {text}" if event.name else text for event, (text, _) in zip(spoken, read, strict=True)]
    )
    weighed = {
        event.seq: (FRAME_TOKENS + count + _MEDIA_TOKENS * media, features(text, event.role), _rules(event, text))
        for event, count, (text, media) in zip(spoken, counts, read, strict=True)
    }
    return [_item(event, *weighed.get(event.seq, (0, _NO_FEATURES, ())), decisions.get(event.seq)) for event in events]


def decision_of(event: LoggedEvent) -> Decision | None:
    """Return what a ``constraint`` event says of another one's constraints; None for one with words of its own."""
    return None if event.erased_at is not None else _decode(event, "constraint", Decision)


def _rules(event: LoggedEvent, text: str) -> tuple[Rule, ...]:
    if not may_set(event.type, event.role):
        return ()
    return tuple(map(rule_of, stated(text) if event.type == "constraint" else recognise(text, event.role)))


def _item(event: LoggedEvent, count: int, read: Features, rules: tuple[Rule, ...], decision: Decision | None) -> Item:
    summary = _decode(event, "summary", _Summary)
    named = _decode(event, event.type, _Named) if event.type in _NAMING else None
    return Item(
        seq=event.seq,
        type=event.type,
        role=event.role,
        tokens=count,
        call_id=event.call_id,
        at=event.occurred_at.timestamp(),
        features=read,
        covers=summary.covers if summary else None,
        choice=_decode(event, "working_set", Choice),
        seq_named=named.seq if named else None,
        rules=rules,
        decision=decision,
        erased=event.erased_at is not None,
    )


def _decode(event: LoggedEvent, kind: str, shape: type[T]) -> T | None:
    if event.type != kind or isinstance(event.content, UnsetType):
        return None
    try:
        return msgspec.json.decode(event.content, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def text_and_media(content: Raw | UnsetType) -> tuple[str, int]:
    """Return what is read of a content (its text, or its JSON where it has none), and how many media parts it has."""
    if isinstance(content, UnsetType):
        return "", 0
    value = verbatim.value(content)
    if isinstance(value, list):
        media = sum(is_media(part) for part in value)
        return "\n".join(text_of(part) for part in value if not is_media(part)), media
    return text_of(value), 0


def text_of(value: Any) -> str:
    """Return what is read of a part, or of a content that is no list: its text, or its JSON where it has none."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        for field in ("text", "caption"):
            if isinstance(value.get(field), str):
                return str(value[field])
    return msgspec.json.encode(value).decode()


def is_media(part: Any) -> bool:
    """Say whether a part is shown as media; one with a caption is shown by that."""
    kind = part.get("type") if isinstance(part, dict) and not isinstance(part.get("caption"), str) else None
    return isinstance(kind, str) and any(word in kind for word in _MEDIA)
