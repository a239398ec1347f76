"""Golden sets: questions whose evidence is known, with an owner, a version and an approval; and their files.

Evidence is named as the file names it: by event ids of this server, or by the ids that the events had where they came
from, with their conversation. Who loads a set looks them up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from server.log.formats import FormatError
from server.log.formats.decoding import problems_at
from server.log.formats.json_array import Progress, read_elements
from server.log.formats.jsonl import LINE_LIMIT
from server.log.formats.locomo import read_locomo

LOCOMO_CATEGORIES: Final = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
_LOCOMO_ID: Final = re.compile(r"D:?(\d+):(\d+)")


class Question(Struct, frozen=True, kw_only=True):
    """``conversation``: its id, or its id where it came from. ``evidence``: ids of events in it, without repeats."""

    id: str
    conversation: str
    text: str
    evidence: tuple[str, ...]
    category: str = ""
    language: str = ""


class Unusable(Struct, frozen=True, kw_only=True):
    """A question that was left out, and why."""

    id: str
    why: str


class GoldenSet(Struct, frozen=True, kw_only=True):
    """``version``: goes up with any change of its questions; an approval is of one version."""

    name: str
    version: int
    owner: str
    questions: tuple[Question, ...]
    unusable: tuple[Unusable, ...] = ()
    approved_by: str | None = None
    approved_at: datetime | None = None

    @property
    def approved(self) -> bool:
        """Whether gates may rest on it."""
        return self.approved_by is not None


def approve(golden: GoldenSet, who: str, now: datetime) -> GoldenSet:
    """Return the set as approved; raises ValueError for one without questions."""
    if not golden.questions:
        raise ValueError(f"the golden set {golden.name!r} has no usable question: there is nothing to approve")
    return msgspec.structs.replace(golden, approved_by=who, approved_at=now)


def revise(old: GoldenSet, new: GoldenSet) -> GoldenSet:
    """Return what replaces a set: itself if no question changed, else the new one as its next version, unapproved."""
    if old.questions == new.questions:
        return msgspec.structs.replace(old, owner=new.owner, unusable=new.unusable)
    return msgspec.structs.replace(new, name=old.name, version=old.version + 1, approved_by=None, approved_at=None)


def read_golden(path: Path, name: str, owner: str, progress: Progress | None = None) -> GoldenSet:
    """Read version 1 of a set: of LoCoMo from ``.json``, else of lines, one question each.

    A line is ``{"conversation", "question", "evidence": […]}`` with, as wanted, ``id``, ``category`` and ``language``.
    Raises FormatError naming the record or line.
    """
    rows = list((_locomo if path.suffix == ".json" else _lines)(path, progress))
    questions = tuple(row for row in rows if isinstance(row, Question))
    repeated = _repeated([question.id for question in questions])
    if repeated is not None:
        raise FormatError(path, f"question {repeated!r}", "the id stands twice: give each question its own")
    unusable = tuple(row for row in rows if isinstance(row, Unusable))
    return GoldenSet(name=name, version=1, owner=owner, questions=questions, unusable=unusable)


class _Line(Struct, kw_only=True, forbid_unknown_fields=True):
    conversation: str
    question: str
    evidence: list[str]
    id: str | None = None
    category: str = ""
    language: str = ""


class _Asked(Struct):
    question: str
    category: int
    evidence: list[str] = []


class _Sample(Struct):
    qa: list[dict[str, Any]] = []


_line_decoder = msgspec.json.Decoder(_Line)
_sample_decoder = msgspec.json.Decoder(_Sample)


def _lines(path: Path, progress: Progress | None) -> Iterator[Question | Unusable]:
    with path.open("rb") as file:
        number = 0
        while data := file.readline(LINE_LIMIT + 1):
            number += 1
            if len(data) > LINE_LIMIT:
                raise FormatError(path, f"line {number}", f"longer than {LINE_LIMIT} bytes")
            if progress is not None:
                progress(len(data))
            data = (data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data).strip()
            if not data:
                continue
            with problems_at(path, f"line {number}"):
                line = _line_decoder.decode(data)
            yield _question(
                Question(
                    id=line.id or f"{path.name}:{number}",
                    conversation=line.conversation,
                    text=line.question,
                    evidence=tuple(dict.fromkeys(line.evidence)),
                    category=line.category,
                    language=line.language,
                )
            )


def _locomo(path: Path, progress: Progress | None) -> Iterator[Question | Unusable]:
    """A malformed citation ("D8:6; D9:17", "D:11:26") gives what can be read of it; an unknown one is left out."""
    # Each is read to its end, so that no file stays open when a question is refused.
    chats = [(chat.origin_id, {event.id for event in chat.events}) for chat in read_locomo(path)]
    for (number, data), (origin, known) in zip(list(read_elements(path, progress)), chats, strict=True):
        where = f"record {number} ({origin})"
        with problems_at(path, f"{where}, qa"):
            asked = _sample_decoder.decode(data).qa
        for place, fields in enumerate(asked):
            with problems_at(path, f"{where}, qa[{place}]"):
                one = msgspec.convert(fields, _Asked)
                if one.category not in LOCOMO_CATEGORIES:
                    raise ValueError(f"category {one.category} is none of {sorted(LOCOMO_CATEGORIES)}")
            cited = [f"D{int(a)}:{int(b)}" for text in one.evidence for a, b in _LOCOMO_ID.findall(text)]
            yield _question(
                Question(
                    id=f"{origin}:{place}",
                    conversation=origin,
                    text=one.question,
                    evidence=tuple(name for name in dict.fromkeys(cited) if name in known),
                    category=LOCOMO_CATEGORIES[one.category],
                )
            )


def _question(question: Question) -> Question | Unusable:
    if not question.text.strip():
        return Unusable(id=question.id, why="it asks nothing")
    if not question.evidence:
        return Unusable(id=question.id, why="no evidence is named that its conversation has")
    return question


def _repeated(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
