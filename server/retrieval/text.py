"""What is indexed and embedded of an event: one text, of one version."""

from __future__ import annotations

from typing import Any, Final, Protocol

import msgspec
from msgspec import Raw, Struct, UnsetType

from schema.vocabulary import EventType, Role
from server import verbatim

# A change of what follows changes what vectors mean: a new version, and a migration.
TEXT_BUILDER: Final = "speaker+text+captions/1"

# Control events say nothing to a reader; what a tombstone said is gone.
TEXT_BEARING: Final = frozenset({"message", "tool_call", "tool_result", "reasoning", "summary", "constraint", "item"})
_TOOL: Final = frozenset({"tool_call", "tool_result"})

LONGEST: Final = 50_000
# The beginning of a tool's output says what it is, the end how it came out; the middle is bulk.
_TOOL_HEAD: Final = 3_000
_TOOL_TAIL: Final = 1_000
# Data in text's clothes (base64, keys of files) has no words.
_LONGEST_WORD: Final = 500
_MEDIA: Final = ("image", "audio", "file", "document", "video")
_QUESTION_MARKS: Final = ("?", "？", "؟", "⸮", "՞", "፧")
_DEEPEST: Final = 16


class TextEvent(Protocol):
    """What is needed of an event."""

    @property
    def type(self) -> EventType: ...
    @property
    def role(self) -> Role | None: ...
    @property
    def name(self) -> str | None: ...
    @property
    def content(self) -> Raw | UnsetType: ...


class Text(Struct, frozen=True):
    """``text``: what is indexed and embedded. ``speaker``: who is named as speaking. ``asks``: ends in a question."""

    text: str
    speaker: str | None = None
    asks: bool = False


def build(event: TextEvent) -> Text | None:
    """Return an event's text: speaker or tool, what was said, captions; None where there is nothing to read.

    A tool's output is cut to its head and tail. The turn before is not part of the text: averaging the similarities of
    neighbouring turns measured as well as embedding pairs of turns, at half the vectors.
    """
    if event.type not in TEXT_BEARING or isinstance(event.content, UnsetType):
        return None
    said: list[str] = []
    captions: list[str] = []
    content = verbatim.value(event.content)
    if event.type == "constraint" and isinstance(content, dict) and {"seq", "state"} <= content.keys():
        return None  # a decision on what another event says
    _read(content, said, captions, 0)
    spoken = _without_data("\n".join(said))[:LONGEST].strip()
    if event.type in _TOOL:
        spoken = _trim(spoken)
    whole = "\n".join(part for part in (spoken, *captions) if part)[:LONGEST]
    if not whole:
        return None
    message = event.type == "message"
    return Text(
        text=f"{event.name}: {whole}" if event.name else whole,
        speaker=event.name if message else None,
        asks=message and spoken.endswith(_QUESTION_MARKS),
    )


def _read(value: Any, said: list[str], captions: list[str], depth: int) -> None:
    if isinstance(value, str):
        said.append(value)
    elif isinstance(value, list) and depth < _DEEPEST:
        for part in value:
            _read(part, said, captions, depth + 1)
    elif isinstance(value, dict):
        _read_part(value, said, captions, depth)
    elif value is not None:
        said.append(msgspec.json.encode(value).decode())


def _read_part(part: dict[str, Any], said: list[str], captions: list[str], depth: int) -> None:
    kind = part.get("type")
    if isinstance(part.get("caption"), str):
        captions.append(part["caption"])
        if not isinstance(part.get("text"), str):
            return
    if isinstance(part.get("text"), str):
        said.append(part["text"])
    elif isinstance(kind, str) and any(word in kind for word in _MEDIA):
        return
    elif isinstance(part.get("content"), str | list):
        _read(part["content"], said, captions, depth + 1)
    else:
        said.append(msgspec.json.encode(part).decode())


def _trim(output: str) -> str:
    if len(output) <= _TOOL_HEAD + _TOOL_TAIL:
        return output
    return f"{output[:_TOOL_HEAD]}\n…\n{output[-_TOOL_TAIL:]}"


def _without_data(text: str) -> str:
    if len(text) <= _LONGEST_WORD:
        return text
    longest = max(map(len, text.split()), default=0)
    if longest <= _LONGEST_WORD or not text.isascii():  # scripts without spaces have long runs
        return text
    return " ".join(word if len(word) <= _LONGEST_WORD else word[:16] + "…" for word in text.split(" "))
