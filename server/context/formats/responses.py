"""Input items of OpenAI's Responses, which its Agents SDK works with too.

https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.context.formats.formatted import Formatted
from server.context.formats.openai import image_url, stored_file
from server.context.formats.parts import Media, Part, only_text, with_marks
from server.context.formats.turns import Said, marked, turns_of
from server.context.render import Message


def write(messages: Sequence[Message]) -> Formatted:
    """Return a context as Responses takes it: an item for each event, but one for all results of a call."""
    turns, left_out = turns_of(messages)
    written = Formatted([], [], left_out)
    for turn in turns:
        if isinstance(turn, Said):
            written.messages.append(_message(turn))
            written.sources.append([turn.source])
            continue
        for call in turn:
            given = bytes(call.arguments).decode()
            asked = {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": given}
            written.messages.append(asked)
            written.sources.append([call.source])
        for call in turn:
            output = {"type": "function_call_output", "call_id": call.id, "output": _content(call.parts)}
            written.messages.append(output)
            written.sources.append(call.results)
    return written


def _message(said: Said) -> dict[str, Any]:
    parts = said.parts if said.name is None or said.role == "assistant" else marked(said.name, said.parts)
    content = _content(parts) if said.role == "user" else only_text(parts)
    return {"type": "message", "role": said.role, "content": content}


def _content(parts: Sequence[Part]) -> str | list[dict[str, Any]]:
    parts = with_marks(parts, _shown)
    if all(isinstance(part, str) for part in parts):
        return only_text(parts)
    return [{"type": "input_text", "text": part} if isinstance(part, str) else _shown(part) or {} for part in parts]


def _shown(media: Media) -> dict[str, Any] | None:
    if media.kind == "image":
        detail = media.detail if media.detail in ("auto", "low", "high") else "auto"
        if (url := image_url(media)) is not None:
            return {"type": "input_image", "image_url": url, "detail": detail}
        if media.file is not None and media.provider == "openai":
            return {"type": "input_image", "file_id": media.file, "detail": detail}
        return None
    if (file := stored_file(media)) is not None:
        return {"type": "input_file", **file}
    if media.kind == "file" and media.url is not None:
        return {"type": "input_file", "file_url": media.url}
    return None
