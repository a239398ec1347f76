"""Which kinds of items there are, and what event each is."""

from __future__ import annotations

from typing import Final, NamedTuple

from schema.vocabulary import EventType

# Events that are items. The others steer the server (pins, summaries, runs, erasures …) and have no counterpart.
SHOWN: Final = frozenset({"message", "tool_call", "tool_result", "reasoning", "item"})

MARK: Final = "openai"  # the member of an event's metadata that holds what only items have
STATED: Final = frozenset({"message", "function_call", "function_call_output"})  # these always show a status
DEFAULT_STATUS: Final = b'"completed"'


class Call(NamedTuple):
    """A tool call or its result, and the field that is the event's content."""

    event: EventType
    content: str


CALLS: Final = {
    "function_call": Call("tool_call", "arguments"),
    "function_call_output": Call("tool_result", "output"),
    "custom_tool_call": Call("tool_call", "input"),
    "custom_tool_call_output": Call("tool_result", "output"),
}

_PREFIXES: Final = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
    "compaction": "cmp",
}


def prefix(kind: str) -> str:
    """Return what the server's ids of such items begin with."""
    return _PREFIXES.get(kind, "item")


def event_type(kind: str, *, paired: bool) -> EventType:
    """Return what event an item of this kind is; ``paired``: it has a ``call_id``.

    Calls of built-in tools and their outputs belong together as those of functions do.
    """
    if kind in CALLS:
        return CALLS[kind].event
    if kind in ("message", "reasoning"):
        return "message" if kind == "message" else "reasoning"
    if paired and kind.endswith("_call"):
        return "tool_call"
    if paired and (kind.endswith("_call_output") or kind == "tool_search_output"):
        return "tool_result"
    return "item"
