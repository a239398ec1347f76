"""From an item, as it is sent, to the event that is appended."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from schema.vocabulary import Role
from server.errors import InvalidInput
from server.items.ids import claimed
from server.items.kinds import CALLS, DEFAULT_STATUS, MARK, STATED, event_type
from server.log.events import Label, NewEvent

Item = dict[str, Raw]
T = TypeVar("T")

_encode: Final = msgspec.json.Encoder().encode
_word: Final = msgspec.json.Decoder(str | None)
_label: Final = msgspec.json.Decoder(Label | None)
_role: Final = msgspec.json.Decoder(Role)
_DEFAULT_KINDS: Final = {"tool_call": "function_call", "tool_result": "function_call_output"}


def event_of(item: Item, at: str) -> NewEvent:
    """Return an item as an event; raises InvalidInput naming the field below ``at``.

    What every event must be is left to ``server.log.events.validate``.
    """
    kind = _read(_word, item, "type", at) or ("message" if "role" in item else None)
    if kind is None:
        raise InvalidInput("an item needs `type`; only a message, which has a `role`, may leave it out", param=at)
    if kind == "item_reference":
        raise InvalidInput("an item_reference names an item that is stored; send the item itself", param=f"{at}.type")
    given = _read(_label, item, "id", at)
    event = _message(item, at) if kind == "message" else _call(kind, item, at) if kind in CALLS else _whole(kind, item)
    event.id = claimed(given) if given is not None else None
    return event


def _read(decoder: msgspec.json.Decoder[T], item: Item, field: str, at: str) -> T | None:
    """Return a field of an item, None when it is absent."""
    try:
        return decoder.decode(item[field]) if field in item else None
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error), param=f"{at}.{field}") from None


def _message(item: Item, at: str) -> NewEvent:
    event = NewEvent(role=_read(_role, item, "role", at))
    if "content" in item:
        event.content = item["content"]
    _keep(event, "message", item, {"role", "content"})
    return event


def _call(kind: str, item: Item, at: str) -> NewEvent:
    call = CALLS[kind]
    content = item.get(call.content)
    if content is None or bytes(content)[:1] not in ((b'"', b"[") if call.content == "output" else (b'"',)):
        shape = "a string, or a list of parts" if call.content == "output" else "a string"
        raise InvalidInput(f"a {kind} needs `{call.content}`: {shape}", param=f"{at}.{call.content}")
    event = NewEvent(type=call.event, role="tool" if call.event == "tool_result" else None, content=content)
    event.call_id, event.name = _read(_label, item, "call_id", at), _read(_label, item, "name", at)
    _keep(event, kind, item, {"call_id", "name", call.content})
    return event


def _whole(kind: str, item: Item) -> NewEvent:
    """Return an item of a kind that has no event of its own: its content, but for its id, is the item."""
    call_id = _plain(item, "call_id")
    event = NewEvent(type=event_type(kind, paired=call_id is not None))
    event.content = Raw(_encode({name: value for name, value in item.items() if name != "id"}))
    if event.type in _DEFAULT_KINDS:
        event.metadata = Raw(_encode({MARK: {"type": kind}}))
        event.call_id = call_id
        event.name = _plain(item, "name")
        if event.type == "tool_result":
            event.role = "tool"
        else:
            event.name = event.name or kind.removesuffix("_call")[:256]
    return event


def _plain(item: Item, field: str) -> str | None:
    """Return a field that is a label, None for whatever else it is."""
    try:
        label = _label.decode(item[field]) if field in item else None
    except msgspec.ValidationError:
        return None
    return None if label is not None and "\0" in label else label


def _keep(event: NewEvent, kind: str, item: Item, known: set[str]) -> None:
    """Put into the metadata what the event has no field for."""
    extras = {name: value for name, value in item.items() if name not in known and name not in ("id", "type")}
    if kind in STATED and bytes(extras.get("status", b"")) in (DEFAULT_STATUS, b"null"):
        del extras["status"]
    if kind != "message" and kind != _DEFAULT_KINDS[event.type]:
        extras["type"] = Raw(_encode(kind))
    if extras:
        event.metadata = Raw(_encode({MARK: extras}))
