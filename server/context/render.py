"""How an event of a context is shown: whole, cut, or as a placeholder; never for more tokens than it is charged.

Two steps: ``plan`` decides, and counts tokens; ``write`` makes the message of an event and that decision, and needs no
tokenizer. A snapshot keeps the decisions, so that the same messages can be written years later, by ``RENDERER``.

What a model is shown carries no more authority than it was given: a message keeps its role, a tool call is the
assistant's, a result the tool's, and anything else that names no role is shown as the user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from schema.vocabulary import EventType, Role
from server.log.stored import StoredEvent
from server.working_set import tokens
from server.working_set.explain import Resident
from server.working_set.items import FRAME_TOKENS, text_and_media

RENDERER: Final = 1  # goes up with any change of what ``write`` makes; then the old one stays beside the new
_ROLES: Final[dict[str, Role]] = {"tool_call": "assistant", "tool_result": "tool", "reasoning": "assistant"}


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """How one event is shown. ``cut``: so many characters of its text; ``mark``: which of the marks says so.

    ``spans``: only these stretches of its text. ``conversation``: the id of the one that it is of, if another.
    """

    seq: int
    tokens: int
    reason: str
    cut: int | None = None
    cleared: bool = False
    mark: int = 0
    spans: tuple[tuple[int, int], ...] = ()
    conversation: str | None = None


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of an event that is too long."""

    characters: Annotated[
        int, Meta(description="How many characters of its text are shown; of a constraint, those that set it.")
    ]
    of: Annotated[int, Meta(description="How many characters its text has.")]


class Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One event as a model should see it. What was erased since has only its place left."""

    seq: Annotated[int, Meta(description="Its place in the conversation.", examples=[41])]
    conversation_id: Annotated[
        str | None, Meta(description="Of which conversation of the user, if it is another one.")
    ] = None
    id: Annotated[str | None, Meta(description="The event's id, yours or the server's.")] = None
    type: Annotated[EventType | None, Meta(description="What kind of event it is.", examples=["message"])] = None
    role: Annotated[Role | None, Meta(description="Who speaks, to the model.", examples=["user"])] = None
    name: Annotated[str | None, Meta(description="The speaker's name, or the tool's.")] = None
    content: Annotated[
        Raw | UnsetType,
        Meta(description="Verbatim; a string when it is cut or cleared.", examples=["I moved to Lisbon."]),
    ] = UNSET
    call_id: Annotated[str | None, Meta(description="Joins a tool call and its results.")] = None
    occurred_at: Annotated[
        Annotated[datetime, Meta(tz=True)] | None, Meta(description="When it happened, says the caller.")
    ] = None
    tokens: Annotated[int, Meta(description="What it takes of the budget.", examples=[9])]
    reason: Annotated[str, Meta(description="Why it is here.", examples=["kept by importance"])]
    cut: Annotated[Cut | None, Meta(description="Set when only the beginning is shown.")] = None
    placeholder: Annotated[bool, Meta(description="True for a tool result of which only a note is shown.")] = False
    erased: Annotated[bool, Meta(description="True when its content has been erased since.")] = False


def plan(event: StoredEvent, resident: Resident) -> Shown | None:
    """Decide how an event is shown within its charge; None when not even one token of its text finds room."""
    if resident.tokens >= resident.whole:
        return Shown(seq=event.seq, tokens=resident.tokens, reason=resident.why)
    if resident.placeholder:
        return _cleared(event, resident)
    return _cut(event, resident)


def write(event: StoredEvent, shown: Shown) -> Message:
    """Make the message of an event; of a tombstone, only its place."""
    message = Message(
        seq=event.seq,
        conversation_id=shown.conversation,
        id=event.id,
        type=event.type,
        role=event.role or _ROLES.get(event.type, "user"),
        name=event.name,
        content=event.content,
        call_id=event.call_id,
        occurred_at=event.occurred_at,
        tokens=shown.tokens,
        reason=shown.reason,
    )
    if event.erased_at is not None:
        message.erased = True
    elif shown.cleared:
        text, _ = text_and_media(event.content)
        message.content = _json(_cleared_marks(len(text))[shown.mark])
        message.placeholder = True
    elif shown.spans:
        text, _ = text_and_media(event.content)
        message.content = _json(_pieces(text, shown.spans))
        message.cut = Cut(characters=sum(last - first for first, last in shown.spans), of=len(text))
    elif shown.cut is not None:
        text, media = text_and_media(event.content)
        message.content = _json(text[: shown.cut] + _cut_marks(shown.cut, len(text), media)[shown.mark])
        message.cut = Cut(characters=shown.cut, of=len(text))
    return message


def lost(shown: Shown) -> Message:
    """Make what is left of an event that is gone altogether, since retention removed it."""
    return Message(
        seq=shown.seq, conversation_id=shown.conversation, tokens=shown.tokens, reason=shown.reason, erased=True
    )


def span_tokens(event: StoredEvent, spans: Sequence[tuple[int, int]]) -> int:
    """Return what an event takes of which only some stretches are shown."""
    text, _ = text_and_media(event.content)
    return FRAME_TOKENS + tokens.count([_label(event) + _pieces(text, spans)])[0]


def _pieces(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return stretches of a text, with a mark where something is left out."""
    parts = []
    end = 0
    for first, last in spans:
        parts += ["[…]"] * (first > end) + [text[first:last]]
        end = last
    return " ".join(parts + ["[…]"] * (end < len(text)))


def _json(text: str) -> Raw:
    return Raw(msgspec.json.encode(text))


def _cleared_marks(length: int) -> Sequence[str]:
    """Return what may stand for a tool result, the most telling first."""
    return f"[{length} characters cleared]", "[cleared]", "…"


def _cut_marks(shown: int, length: int, media: int) -> Sequence[str]:
    """Return what may end a cut text, the most telling first."""
    parts = [f"{shown} of {length} characters shown"] if shown < length or not media else []
    parts += [f"{media} attachments left out"] if media else []
    return f" [… {', '.join(parts)}]", "…", ""


def _cleared(event: StoredEvent, resident: Resident) -> Shown | None:
    text, _ = text_and_media(event.content)
    label = _label(event)
    counts = tokens.count([label + mark for mark in _cleared_marks(len(text))])
    for mark, count in enumerate(counts):
        if FRAME_TOKENS + count <= resident.tokens:
            return Shown(seq=event.seq, tokens=FRAME_TOKENS + count, reason=resident.why, cleared=True, mark=mark)
    return None


def _cut(event: StoredEvent, resident: Resident) -> Shown | None:
    text, media = text_and_media(event.content)
    label = _label(event)
    room = resident.tokens - FRAME_TOKENS
    [of_label, *of_marks] = tokens.count([label, *_cut_marks(len(text), len(text) + 1, media)])
    for mark, of_mark in enumerate(of_marks):
        # A mark that would leave less room to the text than it takes itself gives way to a shorter one.
        left = room - of_label - of_mark
        while left >= max(1, of_mark):
            characters = max(0, tokens.fitting(label + text, of_label + left) - len(label))
            shown = label + text[:characters] + _cut_marks(characters, len(text), media)[mark]
            count = tokens.count([shown])[0]
            if count <= room and (characters or media):
                return Shown(seq=event.seq, tokens=FRAME_TOKENS + count, reason=resident.why, cut=characters, mark=mark)
            left -= max(1, count - room)
    return None


def _label(event: StoredEvent) -> str:
    return f"{event.name}: " if event.name else ""
