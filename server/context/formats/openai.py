"""Messages of OpenAI's Chat Completions, which most other providers and servers take as well.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from server.context.formats.formatted import Formatted
from server.context.formats.parts import PICTURES, Media, Part, only_text, with_marks
from server.context.formats.turns import Called, Said, marked, turns_of
from server.context.render import Message

_NAME: Final = re.compile(r"[^\s<|\\/>]{1,64}")
_DETAILS: Final = frozenset({"auto", "low", "high"})
_SOUNDS: Final = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mp3": "mp3", "audio/mpeg": "mp3"}


def write(messages: Sequence[Message]) -> Formatted:
    """Return a context as Chat Completions takes it: system and developer messages stay where they were said."""
    turns, left_out = turns_of(messages)
    written = Formatted([], [], left_out)
    for turn in turns:
        if isinstance(turn, Said):
            written.messages.append(_message(turn))
            written.sources.append([turn.source])
        else:
            _write_calls(turn, written)
    return written


def _message(said: Said) -> dict[str, Any]:
    message: dict[str, Any] = {"role": said.role}
    parts = said.parts
    if said.name is not None:
        if _NAME.fullmatch(said.name):
            message["name"] = said.name
        elif said.role != "assistant":  # what it is shown as its own words it writes again
            parts = marked(said.name, parts)
    message["content"] = content(parts) if said.role == "user" else only_text(parts)
    return message


def content(parts: Sequence[Part]) -> str | list[dict[str, Any]]:
    """Return what a user said."""
    parts = with_marks(parts, _shown)
    if all(isinstance(part, str) for part in parts):
        return only_text(parts)
    return [{"type": "text", "text": part} if isinstance(part, str) else _shown(part) or {} for part in parts]


def _shown(media: Media) -> dict[str, Any] | None:
    if media.kind == "image":
        url = image_url(media)
        detail = {"detail": media.detail} if media.detail in _DETAILS else {}
        return None if url is None else {"type": "image_url", "image_url": {"url": url, **detail}}
    if media.kind == "audio":
        sound = _SOUNDS.get(media.media_type or "")
        if sound is None or media.data is None:
            return None
        return {"type": "input_audio", "input_audio": {"data": media.data, "format": sound}}
    file = stored_file(media)
    return None if file is None else {"type": "file", "file": file}


def image_url(media: Media) -> str | None:
    """Return where a picture is, or the picture itself."""
    if media.data is not None:
        return media.data_url if media.media_type in PICTURES else None
    return media.url


def stored_file(media: Media) -> dict[str, str] | None:
    """Return a file by its id or with its bytes."""
    if media.kind == "file" and media.data_url is not None:
        return {"filename": media.name or "file", "file_data": media.data_url}
    if media.kind == "file" and media.file is not None and media.provider == "openai":
        return {"file_id": media.file}
    return None


def _write_calls(calls: Sequence[Called], written: Formatted) -> None:
    """Write calls as the assistant's message, the same one where it said something just before, and their results."""
    functions = [{"name": call.name, "arguments": bytes(call.arguments).decode()} for call in calls]
    asked = [
        {"id": call.id, "type": "function", "function": function}
        for call, function in zip(calls, functions, strict=True)
    ]
    last = written.messages[-1] if written.messages else {}
    if last.get("role") != "assistant" or "tool_calls" in last:
        written.messages.append({"role": "assistant", "content": None})
        written.sources.append([])
    written.messages[-1]["tool_calls"] = asked
    written.sources[-1].extend(call.source for call in calls)
    for call in calls:
        written.messages.append({"role": "tool", "tool_call_id": call.id, "content": only_text(call.parts)})
        written.sources.append(call.results)
