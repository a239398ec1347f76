"""The formats that there are, by the names that requests and snapshots call them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from server.context.formats import anthropic, openai, responses
from server.context.formats.formatted import Formatted
from server.context.render import Message

Format = Literal["events", "openai", "openai-responses", "anthropic"]

# What a snapshot was written by is kept for good: what changes a message is a new version beside the old one.
WRITERS: Final[Mapping[str, Callable[[Sequence[Message]], Formatted]]] = {
    "openai/1": openai.write,
    "openai-responses/1": responses.write,
    "anthropic/1": anthropic.write,
}
NEWEST: Final[Mapping[Format, str | None]] = {
    "events": None,
    "openai": "openai/1",
    "openai-responses": "openai-responses/1",
    "anthropic": "anthropic/1",
}
