"""What a migration's benchmark imports: a LoCoMo file, copied under other users until it is large enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.migration_load import Asked
from server.embeddings.texts import build
from server.log.formats.locomo import read_locomo
from server.log.stored import StoredEvent

_COPY = "~"


class Data(NamedTuple):
    """``path``: the enlarged file. ``golden``: the given one, whose questions are about the first copies.

    ``origins``: the conversations, which are also their users' names. ``asked``: questions, of every copy.
    """

    path: Path
    golden: Path
    origins: list[str]
    events: int
    asked: list[tuple[str, str]]
    texts: list[str]


def enlarge(source: Path, directory: Path, least: int) -> Data:
    """Write the file in as many copies as have at least so many events; each copy has users of its own."""
    records: list[dict[str, Any]] = json.loads(source.read_bytes())
    chats = [(chat.origin_id, list(chat.events)) for chat in read_locomo(source)]
    size = sum(len(events) for _, events in chats)
    copies = max(1, -(-least // size))
    enlarged, origins, asked = [], [], []
    for copy in range(copies):
        for record, (origin, _) in zip(records, chats, strict=True):
            name = origin if copy == 0 else f"{origin}{_COPY}{copy}"
            enlarged.append(record | {"sample_id": name})
            origins.append(name)
            asked += [(name, one["question"]) for one in record.get("qa", []) if one["question"].strip()]
    path = directory / "enlarged.json"
    path.write_text(json.dumps(enlarged, ensure_ascii=False))
    texts = [event.content for _, events in chats for event in events if isinstance(event.content, str)]
    return Data(path, source, origins, copies * size, asked, texts)


def is_copy(origin: str) -> bool:
    """Whether a conversation is one that no golden question is about."""
    return _COPY in origin


def asked_of(data: Data, ids: dict[str, str]) -> list[Asked]:
    """Return the questions with their conversations' ids."""
    return [Asked(user=name, conversation=ids[name], query=query) for name, query in data.asked]


def text_of(event: StoredEvent) -> str | None:
    """Return what is embedded of an event."""
    built = build(event)
    return None if built is None else built.text
