"""Labelled questions with what is indexed of their conversations."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Raw

from benchmarks.eviction_data import load
from schema.vocabulary import EventType, Role
from server.log.formats import ImportedEvent
from server.log.formats.locomo import read_locomo
from server.log.formats.longmemeval import read_longmemeval
from server.retrieval.text import build
from server.retrieval.turns import Entry
from server.working_set import tokens

# What a message's frame (its role and separators) costs in common chat templates.
_FRAME_TOKENS = 4


class Asked(NamedTuple):
    """A question; evidence by seq as labelled and as corrected; ``sessions`` that hold it."""

    text: str
    evidence: frozenset[int]
    corrected: frozenset[int]
    sessions: frozenset[str]
    category: str


class Chat(NamedTuple):
    """A conversation's entries, by seq - 1, and its questions."""

    name: str
    entries: list[Entry]
    questions: list[Asked]
    unusable: int


class _Event(NamedTuple):
    type: EventType
    role: Role | None
    name: str | None
    content: Raw


def read(path: Path, corrections: Path | None = None) -> list[Chat]:
    """Read a LoCoMo or LongMemEval file; ``corrections`` of LoCoMo's labels go beside the raw ones."""
    records = msgspec.json.decode(path.read_bytes())
    longmemeval = bool(records) and "haystack_sessions" in records[0]
    imported = read_longmemeval(path) if longmemeval else read_locomo(path)
    corrected = load(path, corrections=corrections)
    chats = []
    for source, raw, right in zip(imported, load(path), corrected, strict=True):
        events = list(source.events)
        sessions = [event.session or "" for event in events]
        right_of = {question.text: frozenset(question.evidence) for question in right.questions}
        questions = [
            Asked(
                text=question.text,
                evidence=frozenset(question.evidence),
                corrected=right_of.get(question.text, frozenset(question.evidence)),
                sessions=frozenset(sessions[seq - 1] for seq in question.evidence),
                category=question.category,
            )
            for question in raw.questions
        ]
        chats.append(Chat(source.origin_id, _entries(source.origin_id, events), questions, raw.unusable))
    return chats


def _entries(name: str, events: list[ImportedEvent]) -> list[Entry]:
    texts = [
        build(_Event(event.type, event.role, event.name, Raw(msgspec.json.encode(event.content)))) for event in events
    ]
    counts = tokens.count([text.text if text else "" for text in texts])
    return [
        Entry(
            conversation=name,
            seq=seq,
            text=text.text if text else "",
            at=event.occurred_at.timestamp() if event.occurred_at else 0.0,
            type=event.type,
            role=event.role,
            session=event.session,
            speaker=text.speaker if text else None,
            asks=text.asks if text else False,
            tokens=count + _FRAME_TOKENS,
        )
        for seq, (event, text, count) in enumerate(zip(events, texts, counts, strict=True), 1)
    ]
