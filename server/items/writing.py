"""From an event to its item, as JSON.

Content that is text already is copied, not decoded: a list of items costs little more than one of events.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Raw, UnsetType

from schema.vocabulary import ROLES, EventType, Role
from server.items.ids import item_id
from server.items.kinds import CALLS, DEFAULT_STATUS, MARK, STATED

T = TypeVar("T")

_encode: Final = msgspec.json.Encoder().encode
_KINDS: Final = {"message": "message", "tool_call": "function_call", "tool_result": "function_call_output"}
_ROLES: Final = {role: _encode(role) for role in (*ROLES, None)}
_NO_MARK: Final[dict[str, Raw]] = {}


class ItemEvent(Protocol):
    """What is needed of an event, be it stored or just appended."""

    @property
    def type(self) -> EventType: ...
    @property
    def role(self) -> Role | None: ...
    @property
    def name(self) -> str | None: ...
    @property
    def call_id(self) -> str | None: ...
    @property
    def content(self) -> Raw | UnsetType: ...
    @property
    def metadata(self) -> Raw | UnsetType: ...


class Encoded(NamedTuple):
    """An item: its id and its JSON."""

    id: str
    json: bytes


class _Marked(msgspec.Struct):
    openai: dict[str, Raw] = {}


class _Typed(msgspec.Struct):
    type: str


_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_marked: Final = msgspec.json.Decoder(_Marked)
_typed: Final = msgspec.json.Decoder(_Typed)
_string: Final = msgspec.json.Decoder(str)
_typed_parts: Final = msgspec.json.Decoder(list[_Typed])


def encode(event_id: str, event: ItemEvent) -> Encoded:
    """Return the item that an event of a SHOWN type is."""
    if event.type == "message" and isinstance(event.metadata, UnsetType):
        return _plain(event_id, event)
    extras = _extras(event.metadata)
    kind = _KINDS.get(event.type)
    if "type" in extras:
        kind = _decoded(_string, extras["type"]) or kind
    content = b"" if isinstance(event.content, UnsetType) else bytes(event.content)
    if event.type == "message":
        fields = _message(event, content)
    elif kind in CALLS:
        fields = _call(event, kind, content)
    else:
        return _whole(event_id, event, content)
    own = item_id(event_id, kind or "")
    body = b'"id":%b,"type":%b,%b' % (_encode(own), _encode(kind), fields)
    status = extras.get("status")
    if kind in STATED and status is None:
        body += b',"status":' + DEFAULT_STATUS
    for name, value in extras.items():
        if name not in _TAKEN[event.type]:
            body += b",%b:%b" % (_encode(name), bytes(value))
    return Encoded(own, b"{%b}" % body)


def _plain(event_id: str, event: ItemEvent) -> Encoded:
    """Return a message without anything else to it, as nearly all are: a third of the general way's time."""
    own = item_id(event_id, "message")
    name = b'"%b"' % own.encode() if own is not event_id else _encode(own)
    content = b"" if isinstance(event.content, UnsetType) else bytes(event.content)
    return Encoded(own, b'{"id":%b,"type":"message",%b,"status":"completed"}' % (name, _message(event, content)))


# Fields that an item has of its event; metadata written by hand may name them too, and is no match for that.
_TAKEN: Final = {
    "message": frozenset({"id", "type", "role", "content"}),
    "tool_call": frozenset({"id", "type", "call_id", "name", "arguments", "input"}),
    "tool_result": frozenset({"id", "type", "call_id", "name", "output"}),
}


def _extras(metadata: Raw | UnsetType) -> dict[str, Raw]:
    if isinstance(metadata, UnsetType) or MARK.encode() not in bytes(metadata):
        return _NO_MARK
    found = _decoded(_marked, metadata)
    return found.openai if found else _NO_MARK


def _decoded(decoder: msgspec.json.Decoder[T], text: Raw | bytes) -> T | None:
    try:
        return decoder.decode(text)
    except msgspec.DecodeError:
        return None


def _message(event: ItemEvent, content: bytes) -> bytes:
    if content[:1] == b'"':
        said = event.role == "assistant"
        head, tail = (b"output_text", b',"annotations":[]') if said else (b"input_text", b"")
        content = b'[{"type":"%b","text":%b%b}]' % (head, content, tail)
    return b'"role":%b,"content":%b' % (_ROLES[event.role], content or b"[]")


def _call(event: ItemEvent, kind: str, content: bytes) -> bytes:
    call = CALLS[kind]
    body = b'"call_id":%b' % _encode(event.call_id)
    if event.name is not None:
        body += b',"name":%b' % _encode(event.name)
    if call.event == "tool_call" and content[:1] != b'"':
        content = _encode((content or b"{}").decode())
    elif call.event == "tool_result" and not _is_output(content):
        content = _encode(content.decode())
    return body + b',"%b":%b' % (call.content.encode(), content)


def _is_output(content: bytes) -> bool:
    """Whether a result can be shown as it is: text, or parts that say what they are."""
    if content[:1] == b"[":
        return _decoded(_typed_parts, content) is not None
    return content[:1] == b'"'


def _whole(event_id: str, event: ItemEvent, content: bytes) -> Encoded:
    """Return an item that is its event's content; what was appended as another thing is put into one."""
    typed = _decoded(_typed, content) if content[:1] == b"{" else None
    if event.type == "reasoning":
        if typed is None or typed.type != "reasoning":
            typed, content = _Typed("reasoning"), _reasoning(content)
    elif typed is None:
        typed = _Typed("item")
        content = b'{"type":"item","content":%b}' % content if content else b'{"type":"item"}'
    if b'"id"' in content:  # perhaps its own, of an event that was not appended as an item
        content = _encode({name: value for name, value in _fields.decode(content).items() if name != "id"})
    own = item_id(event_id, typed.type)
    return Encoded(own, b'{"id":%b,%b' % (_encode(own), content[1:]))


def _reasoning(content: bytes) -> bytes:
    if not content:
        return b'{"type":"reasoning","summary":[]}'
    text = content if content[:1] == b'"' else _encode(content.decode())
    return b'{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":%b}]}' % text
