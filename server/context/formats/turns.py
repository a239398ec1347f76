"""A context's messages as turns: what somebody said, and tool calls with the results of each of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Raw, UnsetType

from schema.vocabulary import EventType
from server import verbatim
from server.context.formats.parts import Media, Part, parts_of
from server.context.render import Cut, Message

Speaker = Literal["user", "assistant", "system", "developer"]
_CALL_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)  # OpenAI sets the length, Anthropic the letters
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]", re.ASCII)
_LONGEST_NAME: Final = 64
_ERASED: Final = "[erased]"  # of a result, since its call is shown; only in what is given back


class Source(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An event that a message is made of."""

    seq: Annotated[int, Meta(description="Its place in the conversation.", examples=[41])]
    conversation_id: Annotated[
        str | None, Meta(description="Of which conversation of the user, if it is another one.")
    ] = None
    id: Annotated[str | None, Meta(description="The event's id, yours or the server's.")] = None
    type: Annotated[EventType | None, Meta(description="What kind of event it is.", examples=["message"])] = None
    tokens: Annotated[int, Meta(description="What it takes of the budget.", examples=[9])]
    reason: Annotated[str, Meta(description="Why it is here.", examples=["kept by importance"])]
    cut: Annotated[Cut | None, Meta(description="Set when only the beginning is shown.")] = None
    placeholder: Annotated[bool, Meta(description="True for a tool result of which only a note is shown.")] = False


class Said(NamedTuple):
    """What somebody said, never blank; ``name`` is the speaker's own."""

    role: Speaker
    name: str | None
    parts: list[Part]
    source: Source


class Called(NamedTuple):
    """A tool call, under an id that no other call of the context has, and all that came back."""

    id: str
    name: str
    arguments: Raw  # a JSON object
    parts: list[Part]
    source: Source
    results: list[Source]


Turn = Said | list[Called]  # calls that were made together


def turns_of(messages: Sequence[Message]) -> tuple[list[Turn], list[Source]]:
    """Return the turns of a context, and the events that no API takes: reasoning, and what is blank.

    What has been erased since is left out, with the results of an erased call; an erased result leaves a mark.
    """
    turns: list[Turn] = []
    left_out: list[Source] = []
    ids: set[str] = set()
    there = [message for message in messages if not message.erased]
    for is_tool, group in groupby(there, key=lambda one: one.type in ("tool_call", "tool_result")):
        if is_tool:
            turns += _calls(list(group), ids)
            continue
        for message in group:
            said = None if message.type == "reasoning" else _said(message)
            if said is None:
                left_out.append(_source(message))
            else:
                turns.append(said)
    return turns, left_out


def _calls(messages: Sequence[Message], ids: set[str]) -> list[list[Called]]:
    """Return calls with their results: of each turn, a result belongs to the last call with its id."""
    turns: list[list[Called]] = []
    by_id: dict[str | None, Called] = {}
    for is_call, group in groupby(messages, key=lambda one: one.type == "tool_call"):
        if is_call:
            calls = [(message.call_id, _called(message, ids)) for message in group]
            turns.append([call for _, call in calls])
            by_id = dict(calls)
            continue
        for message in group:
            found = by_id.get(message.call_id)
            if found is not None:  # else its call has been erased
                found.parts.extend(parts_of(message.content))
                found.results.append(_source(message))
    for call in (call for turn in turns for call in turn):
        if not call.results:
            call.parts.append(_ERASED)
    return turns


def _called(message: Message, ids: set[str]) -> Called:
    wanted = message.call_id or ""
    if not _CALL_ID.fullmatch(wanted) or wanted in ids:
        wanted = f"call_{message.seq}"
        while wanted in ids:
            wanted += "_"
    ids.add(wanted)
    name = _NOT_IN_NAMES.sub("_", message.name or "tool")[:_LONGEST_NAME]
    return Called(wanted, name, arguments(message.content), [], _source(message), [])


def arguments(content: Raw | UnsetType) -> Raw:
    """Return what a tool was called with as a JSON object without white space; what is none, as its ``input``."""
    text = b"{}" if isinstance(content, UnsetType) else bytes(content)
    if text[:1] == b'"':
        said = str(msgspec.json.decode(text))
        text = said.strip().encode() or b"{}"
        if not _is_object(text):
            return Raw(msgspec.json.encode({"input": said}))
    elif text[:1] != b"{":
        return Raw(msgspec.json.encode({"input": Raw(text)}))
    return Raw(msgspec.json.format(text, indent=-1))


def _is_object(text: bytes) -> bool:
    """Whether a text that came as a string is a JSON object, to its depth."""
    if text[:1] != b"{":
        return False
    try:
        return isinstance(verbatim.value(text), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _said(message: Message) -> Said | None:
    parts = parts_of(message.content)
    if not parts:
        return None
    role = message.role or "user"
    if role == "tool":  # outside a pair, where no API takes one: it must not pass for the user's own word
        mark = "Tool" if message.name is None else f"Tool {message.name}"
        return Said("user", None, marked(mark, parts), _source(message))
    if message.type == "summary":
        parts = marked("Summary", parts)
    return Said(role, message.name, parts, _source(message))


def marked(mark: str, parts: Sequence[Part]) -> list[Part]:
    """Return parts with a word before them that says whose or what they are."""
    first = parts[0]
    if isinstance(first, Media):
        return [f"{mark}:", *parts]
    return [f"{mark}: {first}", *parts[1:]]


def _source(message: Message) -> Source:
    return Source(
        seq=message.seq,
        conversation_id=message.conversation_id,
        id=message.id,
        type=message.type,
        tokens=message.tokens,
        reason=message.reason,
        cut=message.cut,
        placeholder=message.placeholder,
    )
