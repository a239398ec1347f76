"""Messages of Anthropic's API: what the system says apart, and user and assistant in turns, the user first.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from server.context.formats.formatted import Formatted
from server.context.formats.parts import PICTURES, Media, Part, only_text, with_marks
from server.context.formats.turns import Called, Said, Source, marked, turns_of
from server.context.render import Message

_BEFORE: Final = "…"  # stands where the assistant would speak first


class _Writing:
    """Messages in the making: blocks of one role in a row are one message."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.sources: list[list[Source]] = []

    def add(self, role: str, blocks: Sequence[dict[str, Any]], sources: Sequence[Source]) -> None:
        if not self.messages and role == "assistant":
            self.add("user", [_text(_BEFORE)], [])
        if not self.messages or self.messages[-1]["role"] != role:
            self.messages.append({"role": role, "content": []})
            self.sources.append([])
        self.messages[-1]["content"].extend(blocks)
        self.sources[-1].extend(sources)


def write(messages: Sequence[Message]) -> Formatted:
    """Return a context as Messages takes it."""
    turns, left_out = turns_of(messages)
    writing = _Writing()
    system: list[str] = []
    system_sources: list[Source] = []
    for turn in turns:
        if not isinstance(turn, Said):
            writing.add("assistant", [_asked(call) for call in turn], [call.source for call in turn])
            results = [source for call in turn for source in call.results]
            writing.add("user", [_answered(call) for call in turn], results)
            continue
        parts = turn.parts if turn.name is None or turn.role == "assistant" else marked(turn.name, turn.parts)
        if turn.role in ("system", "developer"):
            system.append(only_text(parts))
            system_sources.append(turn.source)
        else:
            blocks = _blocks(parts) if turn.role == "user" else [_text(only_text(parts))]
            writing.add(turn.role, blocks, [turn.source])
    _trim_the_end(writing.messages)
    for message in writing.messages:
        if len(message["content"]) == 1 and message["content"][0]["type"] == "text":
            message["content"] = message["content"][0]["text"]
    return Formatted(writing.messages, writing.sources, left_out, "\n\n".join(system) or None, system_sources)


def _trim_the_end(messages: Sequence[dict[str, Any]]) -> None:
    """Take white space from the end of the assistant's last words, which no request may end with."""
    if messages and messages[-1]["role"] == "assistant" and messages[-1]["content"][-1]["type"] == "text":
        block = messages[-1]["content"][-1]
        block["text"] = block["text"].rstrip()


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _blocks(parts: Sequence[Part]) -> list[dict[str, Any]]:
    return [_text(part) if isinstance(part, str) else _shown(part) or {} for part in with_marks(parts, _shown)]


def _shown(media: Media) -> dict[str, Any] | None:
    source = _source(media)
    if source is None or media.kind not in ("image", "file"):
        return None
    if media.kind == "image":
        return {"type": "image", "source": source}
    return {"type": "document", "source": source, **({"title": media.name} if media.name else {})}


def _source(media: Media) -> dict[str, Any] | None:
    if media.data is not None:
        takes = PICTURES if media.kind == "image" else ("application/pdf",)
        if media.media_type not in takes:
            return None
        return {"type": "base64", "media_type": media.media_type, "data": media.data}
    if media.text is not None and media.kind == "file":
        return {"type": "text", "media_type": "text/plain", "data": media.text}
    if media.file is not None and media.provider == "anthropic":
        return {"type": "file", "file_id": media.file}
    if media.url is not None and media.url.startswith("https:"):
        return {"type": "url", "url": media.url}
    return None


def _asked(call: Called) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}


def _answered(call: Called) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": call.id}
    blocks = _blocks(call.parts)
    if len(blocks) == 1 and blocks[0]["type"] == "text":
        block["content"] = blocks[0]["text"]
    elif blocks:
        block["content"] = blocks
    return block
