"""One chunk of an export, taken apart and checked as far as that goes without the database."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from server.database.ids import ConversationId, parse_conversation_id, user_key
from server.errors import InvalidInput
from server.log.formats.export_lines import (
    ConversationLine,
    EndLine,
    ErasureLine,
    EventLine,
    Header,
    Line,
    TouchLine,
    UserLine,
    decode_line,
)


class Part(msgspec.Struct, kw_only=True):
    """A conversation, or a stretch of it; ``ended`` when the chunk goes on after its last line."""

    id: ConversationId
    line: ConversationLine
    events: list[EventLine]
    touches: list[TouchLine]
    ended: bool = False

    @property
    def first(self) -> int:
        """The first seq that it appended itself and still holds."""
        return self.line.first or (self.line.fork_seq or 0) + 1


class Chunk(msgspec.Struct, kw_only=True):
    """What a chunk holds; every chunk begins with the header, and with the conversation that its first events go on."""

    salt: bytes
    users: list[UserLine]
    parts: list[Part]
    erasures: list[ErasureLine]


def parse(body: bytes, check: Callable[[bytes], None]) -> Chunk:
    """Return what a chunk holds; ``check`` raises for text that may not be stored.

    Raises InvalidInput naming the line (from 1, in the chunk) for what is no export, and for one that is damaged.
    """
    chunk: Chunk | None = None
    for number, data in enumerate(body.split(b"\n"), 1):
        if not data.strip():
            continue
        try:
            check(data)
            line = decode_line(data)
            for text in (getattr(line, "content_text", None), getattr(line, "metadata_text", None)):
                if text is not None:
                    check(text.encode())
            if chunk is None:
                chunk = _begin(line)
            else:
                _add(chunk, line)
        except InvalidInput as error:
            raise InvalidInput(f"line {number} of the chunk: {error.message}") from None
        except RecursionError:
            raise InvalidInput(f"line {number} of the chunk is nested too deeply") from None
        except ValueError as error:  # msgspec's errors and UnicodeDecodeError are ValueErrors
            raise InvalidInput(f"line {number} of the chunk: {error}") from None
    if chunk is None:
        raise InvalidInput("the chunk is empty; it begins with the header line of the export")
    return chunk


def _begin(line: Line) -> Chunk:
    if not isinstance(line, Header):
        raise ValueError("a chunk begins with the header line of the export")
    try:
        salt = bytes.fromhex(line.salt or "")
    except ValueError:
        salt = b""
    if len(salt) != 32:
        raise ValueError("the header's `salt` is not 64 hexadecimal digits")
    return Chunk(salt=salt, users=[], parts=[], erasures=[])


def _add(chunk: Chunk, line: Line) -> None:
    if not isinstance(line, EventLine | TouchLine) and chunk.parts:
        chunk.parts[-1].ended = True
    if isinstance(line, EventLine):
        last = chunk.parts[-1] if chunk.parts else None
        if last is None or last.line.id != line.conversation or last.ended or last.touches:
            raise ValueError(f"an event of {line.conversation!r} stands outside it")
        _add_event(last, line)
    elif isinstance(line, TouchLine):
        if not chunk.parts or chunk.parts[-1].line.id != line.conversation or chunk.parts[-1].ended:
            raise ValueError(f"a touch of {line.conversation!r} stands outside it")
        _add_touch(chunk.parts[-1], line)
    elif isinstance(line, ConversationLine):
        chunk.parts.append(_part(chunk.salt, line))
    elif isinstance(line, UserLine):
        chunk.users.append(line)
    elif isinstance(line, ErasureLine):
        chunk.erasures.append(line)
    elif not isinstance(line, EndLine):
        raise ValueError("there is one header")


def _part(salt: bytes, line: ConversationLine) -> Part:
    at = parse_conversation_id(line.id)
    if at is None:
        raise ValueError(f"{line.id!r} is no id of a conversation")
    if line.user is not None and user_key(salt, "user", line.user) != at.user_key:
        raise ValueError(f"{line.id} does not belong to its user under the salt of this export")
    part = Part(id=at, line=line, events=[], touches=[])
    if line.lineage is not None:
        ends = [0, *(end for _, end in line.lineage)]
        if line.parent is None or ends != sorted(set(ends)) or ends[-1] != line.fork_seq:
            raise ValueError(f"the lineage of {line.id} does not lead to its fork_seq")
    for other in [line.parent, *(owner for owner, _ in line.lineage or [])]:
        if other is not None and relative(at, other) is None:
            raise ValueError(f"{line.id} cannot be a fork of {other!r}, which is not of the same user")
    if not (line.fork_seq or 0) < part.first <= line.head + 1:
        raise ValueError(f"{line.id} cannot hold its own events {part.first} to {line.head}")
    return part


def relative(at: ConversationId, text: str) -> ConversationId | None:
    """Return the parts of the id of a conversation of the same user, else None."""
    other = parse_conversation_id(text)
    return other if other is not None and other.user_key == at.user_key else None


def _add_event(part: Part, line: EventLine) -> None:
    if part.events:
        before = part.events[-1]
        if line.seq != before.seq + 1:
            raise ValueError(f"{line.conversation} has a gap: seq {before.seq} is followed by {line.seq}")
        if line.recorded_at < before.recorded_at:
            raise ValueError(f"{line.conversation}: seq {line.seq} was recorded before the one in front of it")
    if not part.first <= line.seq <= part.line.head:
        raise ValueError(f"{line.conversation} holds seq {part.first} to {part.line.head}, not {line.seq}")
    part.events.append(line)


def _add_touch(part: Part, line: TouchLine) -> None:
    if part.touches and (line.ord <= part.touches[-1].ord or line.at < part.touches[-1].at):
        raise ValueError(f"{line.conversation}: touch {part.touches[-1].ord} is followed by {line.ord}, out of order")
    if line.at > part.line.head or max(line.seqs) > line.at:
        raise ValueError(f"{line.conversation}: touch {line.ord} names events beyond the head of its time, {line.at}")
    part.touches.append(line)
