"""One message of a ChatGPT export as an event."""

from __future__ import annotations

from datetime import datetime
from typing import Any, get_args

from server.log.formats import EventType, ImportedEvent, Role
from server.log.formats.dates import from_unix

_ROLES: dict[Any, Role] = {role: role for role in get_args(Role)}
_REASONING = frozenset({"thoughts", "reasoning_recap"})
# Content types whose words are in one field, and that field.
_TEXT_FIELD = {
    "code": "text",
    "execution_output": "text",
    "reasoning_recap": "content",
    "system_error": "text",
    "tether_browsing_display": "result",
    "tether_quote": "text",
    "text": "text",
}
# Content types that become parts, and the fields that the parts are made of.
_HELD = {
    "text": ("parts",),
    "multimodal_text": ("parts",),
    "thoughts": ("thoughts",),
    "user_editable_context": ("user_profile", "user_instructions"),
}
_BOOKKEEPING = frozenset({"content_type", "language", "source_analysis_msg_id"})  # say nothing when they are alone
_PART_TYPES = {"image_asset_pointer": "image", "audio_asset_pointer": "audio", "audio_transcription": "text"}


def event_of(node: str, message: dict[str, Any] | None, before: ImportedEvent | None) -> ImportedEvent | None:
    """The event with id `node` for a `message`, or None where it says nothing; `before` is the event it follows.

    A tool's call gets its own id as `call_id`, and the results that follow it the same. Everything of the message that
    no field of the event holds (recipient, status, weight, metadata, …) is in the event's metadata, verbatim.
    Raises ValueError for a field of a wrong type.
    """
    if message is None:
        return None
    author = _object(message, "author")
    raw_role, author_name = author.get("role"), _string(author, "name")
    role: Role | None = _ROLES.get(raw_role) if isinstance(raw_role, str) else None
    recipient = _string(message, "recipient")
    raw_content = message.get("content")
    content_type = _content_type(raw_content)
    content = None if _says_nothing(raw_content) else _content(raw_content)
    if content is None and content_type in ("text", "multimodal_text"):
        content = _custom_instructions(
            # An older form of custom instructions: an empty message that carries them beside itself.
            _object(_object(message, "metadata"), "user_context_message_data"),
            "about_user_message",
            "about_model_message",
        )
    kind: EventType
    if content is None:
        if _says_nothing(raw_content):
            return None
        kind, content = "item", raw_content
    elif content_type in _REASONING:
        kind = "reasoning"
    elif role is None:
        kind = "item"
    elif role == "tool":
        kind = "tool_result"
    elif role == "assistant" and recipient not in (None, "", "all"):
        kind = "tool_call"
    else:
        kind = "message"

    call_id = None
    if kind == "tool_call":
        call_id = node
    elif kind == "tool_result" and before is not None and before.type in ("tool_call", "tool_result"):
        call_id = before.call_id
    name = recipient if kind == "tool_call" else author_name
    rest = {field: value for field, value in message.items() if field not in ("id", "author", "create_time", "content")}
    rest["author"] = {
        field: value
        for field, value in author.items()
        if not (field == "role" and role) and not (field == "name" and name == author_name)
    }
    if kind != "item" or content is not raw_content:
        rest["content"] = _unheld(raw_content)
    return ImportedEvent(
        type=kind,
        role=role,
        name=name,
        content=content,
        id=node,
        call_id=call_id,
        occurred_at=_time(message),
        metadata={field: value for field, value in rest.items() if not _blank(value)} or None,
    )


def _content(content: Any) -> str | list[dict[str, Any]] | None:
    """A string, or parts whose words are in `text`; None when the content is of an unknown type."""
    if isinstance(content, str):
        return content
    content_type = _content_type(content)
    if content_type is None:
        return None
    if content_type == "user_editable_context":
        return _custom_instructions(content, *_HELD[content_type])
    if content_type == "thoughts":
        return [_thought(thought) for thought in _list(content, "thoughts") if not _blank(thought)] or None
    if content_type in ("text", "multimodal_text") and "parts" in content:
        parts = [_part(part) for part in _list(content, "parts") if not _blank(part)]
        if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
            return str(parts[0]["text"])
        return parts or None
    field = _TEXT_FIELD.get(content_type)
    if field is None:
        return None
    text = _string(content, field) or ""
    others = {name: value for name, value in content.items() if name not in ("content_type", field)}
    if _blank(others):
        return text
    return [{"type": "code" if content_type == "code" else "text", "text": text, **_renamed(others, "type", "text")}]


def _content_type(content: Any) -> str | None:
    content_type = content.get("content_type") if isinstance(content, dict) else None
    return content_type if isinstance(content_type, str) else None


def _says_nothing(content: Any) -> bool:
    if isinstance(content, dict):
        return _blank([value for name, value in content.items() if name not in _BOOKKEEPING])
    return _blank(content)


def _unheld(content: Any) -> dict[str, Any]:
    """The fields of a content that the event's own content does not hold, and its type unless that is plain text."""
    content_type = _content_type(content)
    if content_type is None:
        return {}
    held = _HELD.get(content_type)
    if held is None or (content_type == "text" and "parts" not in content):
        unheld = {}
    else:
        unheld = {name: value for name, value in content.items() if name not in held and name != "content_type"}
    return unheld if content_type == "text" else {"content_type": content_type, **unheld}


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        return {"type": "item", "value": part}
    own_type = part.get("content_type")
    if not isinstance(own_type, str):
        own_type = "text" if isinstance(part.get("text"), str) else "item"
    return {"type": _PART_TYPES.get(own_type, own_type), **_renamed(part, "type")}


def _thought(thought: Any) -> dict[str, Any]:
    if not isinstance(thought, dict):
        return _part(thought)
    words = thought.get("content")
    text = words if isinstance(words, str) and words.strip() else thought.get("summary")
    if not isinstance(text, str):
        return _part(thought)
    others = {name: value for name, value in thought.items() if name != "content" or value != text}
    return {"type": "text", "text": text, **_renamed(others, "type", "text")}


def _custom_instructions(content: dict[str, Any], *fields: str) -> list[dict[str, Any]] | None:
    """What the user wrote about themselves and wants of the model, each a text of its own."""
    texts = [(field, content.get(field)) for field in fields]
    return [
        {"type": "text", "text": text, "field": field}
        for field, text in texts
        if isinstance(text, str) and text.strip()
    ] or None


def _renamed(fields: dict[str, Any], *taken: str) -> dict[str, Any]:
    """`fields`, those whose name is `taken` by the part's own under `source_<name>`."""
    return {f"source_{name}" if name in taken else name: value for name, value in fields.items()}


def _blank(value: Any) -> bool:
    """Whether a JSON value says nothing: null, blank strings, and lists and objects of nothing else."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif not (value is None or (isinstance(value, str) and not value.strip())):
            return False
    return True


def _time(message: dict[str, Any]) -> datetime | None:
    seconds = message.get("create_time")
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ValueError(f"create_time: expected Unix seconds or null, got {seconds!r}")
    return from_unix(seconds) if seconds > 0 else None


def _string(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"{name}: expected a string or null, got {type(value).__name__}")


def _list(fields: dict[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    if value is None:
        return []
    if isinstance(value, list):
        return value
    raise ValueError(f"{name}: expected an array or null, got {type(value).__name__}")


def _object(fields: dict[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise ValueError(f"{name}: expected an object or null, got {type(value).__name__}")
