"""What a content is made of, whoever's shape it has: text, and pictures, sounds and files.

Known are the parts of OpenAI's Chat Completions and Responses, of Anthropic's Messages, of MCP and of LangChain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

from msgspec import Raw, UnsetType

from server import verbatim
from server.working_set.items import is_media, text_of

PICTURES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})  # what both APIs can look at
_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.+-]+=[^;,]*)*;base64,(.*)", re.ASCII | re.DOTALL)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}", re.ASCII)
_WEB: Final = re.compile(r"https?://[^\s\x00-\x20]+", re.ASCII)
_LONGEST_NAME: Final = 200  # characters of what a mark says; so that it is smaller than what media are charged
# Where a part holds what it shows, beside in itself.
_INNER: Final = ("source", "image_url", "input_audio", "file", "image", "audio", "document")
_URLS: Final = ("url", "image_url", "file_url")
_DATA: Final = ("data", "base64", "file_data")
_TYPES: Final = ("media_type", "mime_type", "mimeType")
_NAMES: Final = ("filename", "title", "name")


class Media(NamedTuple):
    """A part that is no text: by URL, as ``data`` (base64 of ``media_type``), as plain text, or as a provider's file.

    ``file``: an id that only ``provider`` knows.
    """

    kind: Literal["image", "audio", "video", "file"]
    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    name: str | None = None
    detail: str | None = None
    text: str | None = None
    file: str | None = None
    provider: Literal["openai", "anthropic"] | None = None

    @property
    def mark(self) -> str:
        """What stands for it where an API takes no such part."""
        said = self.url if self.url and len(self.url) <= _LONGEST_NAME else self.name
        return f"[{self.kind}: {said[:_LONGEST_NAME]}]" if said else f"[{self.kind} left out]"

    @property
    def data_url(self) -> str | None:
        """Its bytes as a URL, if they are here."""
        return f"data:{self.media_type};base64,{self.data}" if self.data and self.media_type else None


Part = str | Media


def parts_of(content: Raw | UnsetType) -> list[Part]:
    """Return what a content is made of; texts that stand together are one, and blank ones are none."""
    if isinstance(content, UnsetType):
        return []
    value = verbatim.value(content)
    return _joined([_part(one) for one in value] if isinstance(value, list) else [_text(value)])


def only_text(parts: Sequence[Part]) -> str:
    """Return parts as one text, with marks for what is none."""
    return "\n".join(part if isinstance(part, str) else part.mark for part in parts)


def with_marks(parts: Sequence[Part], keeps: Any) -> list[Part]:
    """Return parts with a mark in place of each medium that ``keeps`` (of a Media) makes nothing of."""
    return _joined([part if isinstance(part, str) or keeps(part) is not None else part.mark for part in parts])


def _joined(parts: Sequence[Part]) -> list[Part]:
    found: list[Part] = []
    texts: list[str] = []

    def end() -> None:
        text = "\n".join(texts)
        if text.strip():
            found.append(text)
        texts.clear()

    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        else:
            end()
            found.append(part)
    end()
    return found


def _part(value: Any) -> Part:
    return _media(value) if is_media(value) else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("refusal"), str) and value.get("type") == "refusal":
        return str(value["refusal"])
    return text_of(value)


def _media(part: dict[str, Any]) -> Media:
    kind = str(part["type"])
    holders = [part, *(part[name] for name in _INNER if isinstance(part.get(name), dict))]

    def first(names: Sequence[str]) -> str | None:
        return next(_strings(holders, names), None)

    url, data, media_type = first(_URLS), first(_DATA), first(_TYPES)
    if audio := first(("format",)):
        media_type = media_type or f"audio/{audio}"
    for given in (url, data):
        if given is not None and (match := _DATA_URL.fullmatch(given)):
            url, media_type, data = None, match[1], match[2]
    source = part.get("source")
    plain = isinstance(source, dict) and source.get("type") == "text"
    return Media(
        kind="image" if "image" in kind else "audio" if "audio" in kind else "video" if "video" in kind else "file",
        url=url if url and _WEB.fullmatch(url) else None,
        data=data if data and not plain and _BASE64.fullmatch(data) else None,
        media_type=media_type.lower() if media_type else None,
        name=first(_NAMES),
        detail=first(("detail",)),
        text=data if plain else None,
        file=first(("file_id",)),
        provider="anthropic" if isinstance(source, dict) else "openai",
    )


def _strings(holders: Sequence[dict[str, Any]], names: Sequence[str]) -> Iterator[str]:
    for holder in holders:
        for name in names:
            if isinstance(holder.get(name), str) and holder[name]:
                yield holder[name]
