"""Conversations with labelled evidence: LoCoMo, LongMemEval, or any JSON lines with a file of labels beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from schema.vocabulary import EventType, Role
from server.log.formats import ImportedConversation
from server.log.formats.jsonl import read_jsonl
from server.log.formats.locomo import read_locomo
from server.log.formats.longmemeval import read_longmemeval
from server.retrieval.text import Text, build
from server.retrieval.turns import Entry
from server.working_set.items import Item, measure, text_and_media

LOCOMO_CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
_LOCOMO_ID = re.compile(r"D:?(\d+):(\d+)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Question(NamedTuple):
    """A question and the seqs of the events that answer it, ascending."""

    text: str
    evidence: tuple[int, ...]
    category: str


class Conversation(NamedTuple):
    """One replayed conversation; ``items``, ``texts`` and ``entries`` (to be indexed) are by seq - 1.

    ``unusable``: questions without evidence.
    """

    name: str
    items: Sequence[Item]
    texts: Sequence[str]
    questions: Sequence[Question]
    unusable: int
    entries: Sequence[Entry] = ()


class _Event(NamedTuple):
    seq: int
    type: EventType
    role: Role | None
    name: str | None
    call_id: str | None
    content: Raw
    occurred_at: datetime
    erased_at: datetime | None = None


class _Label(msgspec.Struct):
    """One line of a file of labels."""

    conversation: str
    question: str
    evidence: list[str | int]
    category: str = "question"


class Source(NamedTuple):
    """The events of a conversation, and the seq of each id."""

    name: str
    items: list[Item]
    texts: list[str]
    seqs: dict[str, int]
    events: list[Any]
    entries: list[Entry]


def _source(imported: ImportedConversation) -> Source:
    events = list(imported.events)
    logged = [
        _Event(
            seq,
            event.type,
            event.role,
            event.name,
            event.call_id,
            Raw(msgspec.json.encode(event.content)),
            event.occurred_at or _EPOCH,
        )
        for seq, event in enumerate(events, 1)
    ]
    texts = [text_and_media(event.content)[0] for event in logged]
    named = [f"{event.name}: {text}" if event.name else text for event, text in zip(logged, texts, strict=True)]
    seqs = {event.id: seq for seq, event in enumerate(events, 1) if event.id is not None}
    items = measure(logged)
    built = [build(event) or Text("") for event in logged]
    entries = [
        Entry(
            conversation=imported.origin_id,
            seq=item.seq,
            text=text.text,
            at=item.at,
            type=item.type,
            role=item.role,
            session=event.session,
            speaker=text.speaker,
            asks=text.asks,
            tokens=item.tokens,
        )
        for item, text, event in zip(items, built, events, strict=True)
    ]
    return Source(imported.origin_id, items, named, seqs, events, entries)


def load(path: Path, labels: Path | None = None, corrections: Path | None = None) -> list[Conversation]:
    """Read a file, whatever it is; ``corrections`` replaces wrong evidence of LoCoMo questions."""
    if labels is not None:
        return list(_labelled(path, labels))
    if path.suffix != ".json":
        raise SystemExit(f"{path} holds no questions: name a file of labels with --labels (see --help)")
    records = msgspec.json.decode(path.read_bytes())
    if records and "haystack_sessions" in records[0]:
        return list(_longmemeval(path, records))
    return list(_locomo(path, records, corrections))


def _locomo(path: Path, records: list[dict[str, Any]], corrections: Path | None) -> Iterator[Conversation]:
    right = msgspec.json.decode(corrections.read_bytes()) if corrections else []
    corrected = {(one["sample_id"], one["question"]): one["correct_evidence"] for one in right}
    for record, imported in zip(records, read_locomo(path), strict=True):
        source = _source(imported)
        questions = []
        for one in record["qa"]:
            cited = corrected.get((record["sample_id"], one["question"]), one["evidence"])
            # A few citations are malformed ("D8:6; D9:17", "D:11:26"): what can be read of them is.
            found = [f"D{int(a)}:{int(b)}" for text in cited for a, b in _LOCOMO_ID.findall(text)]
            evidence = tuple(sorted({source.seqs[name] for name in found if name in source.seqs}))
            questions.append(Question(one["question"], evidence, LOCOMO_CATEGORIES[one["category"]]))
        yield _conversation(source, questions)


def _longmemeval(path: Path, records: list[dict[str, Any]]) -> Iterator[Conversation]:
    for record, imported in zip(records, read_longmemeval(path), strict=True):
        source = _source(imported)
        texts = record.get("questions") or [record["question"]]
        sessions = record["answer_session_ids"]
        answers = sessions if sessions and isinstance(sessions[0], list) else [sessions]
        questions = []
        for text, gold in zip(texts, answers, strict=True):
            turns = [(seq, event) for seq, event in enumerate(source.events, 1) if event.session in gold]
            marked = [seq for seq, event in turns if (event.metadata or {}).get("has_answer")]
            evidence = marked or [seq for seq, _ in turns]
            questions.append(Question(text, tuple(evidence), "turns" if marked else "whole sessions"))
        yield _conversation(source, questions)


def _labelled(path: Path, labels: Path) -> Iterator[Conversation]:
    by_name: dict[str, list[_Label]] = {}
    for line in labels.read_bytes().splitlines():
        if line.strip():
            label = msgspec.json.decode(line, type=_Label)
            by_name.setdefault(label.conversation, []).append(label)
    for imported in read_jsonl(path):
        source = _source(imported)
        questions = []
        for label in by_name.pop(source.name, []):
            seqs = {one if isinstance(one, int) else source.seqs.get(one, 0) for one in label.evidence}
            evidence = tuple(sorted(seq for seq in seqs if 1 <= seq <= len(source.items)))
            questions.append(Question(label.question, evidence, label.category))
        yield _conversation(source, questions)
    if by_name:
        raise SystemExit(f"{labels} names conversations that {path} does not have: {', '.join(sorted(by_name))}")


def _conversation(source: Source, questions: list[Question]) -> Conversation:
    usable = [question for question in questions if question.evidence]
    return Conversation(source.name, source.items, source.texts, usable, len(questions) - len(usable), source.entries)
