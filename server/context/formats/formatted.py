"""What a format makes of a context, whichever it is."""

from __future__ import annotations

from typing import Any, NamedTuple

from server.context.formats.turns import Source


class Formatted(NamedTuple):
    """Messages of an API, and of each the events that it is made of.

    ``system``: what the API takes beside the messages, with its events; ``left_out``: events that it has no place for.
    """

    messages: list[dict[str, Any]]
    sources: list[list[Source]]
    left_out: list[Source]
    system: str | None = None
    system_sources: list[Source] = []  # noqa: RUF012 - never changed
