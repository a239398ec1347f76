"""LongMemEval (Wu et al. 2024): chats of a user with an assistant, one haystack of sessions a question.

A file is a list of `{question_id, question, ..., haystack_dates, haystack_session_ids, haystack_sessions: [[turn]]}`, a
turn `{role, content, has_answer?}`. Questions and answers are left to the benchmarks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from server.log.formats import FormatError, ImportedConversation, ImportedEvent, Role
from server.log.formats.dates import TURN
from server.log.formats.decoding import numbered, problems_at
from server.log.formats.json_array import Progress, read_elements

_TIME = re.compile(r"(\d{4})/(\d\d)/(\d\d)(?: \([A-Za-z]+\))?(?: (\d\d):(\d\d))?")


class _Question(msgspec.Struct):
    question_id: str
    haystack_sessions: list[list[dict[str, Any]]]
    haystack_session_ids: list[str] | None = None
    haystack_dates: list[str] | None = None
    question_type: str | None = None
    question_date: str | None = None


class _Turn(msgspec.Struct):
    role: Role
    content: str | list[Any]


_TURN_FIELDS = frozenset(_Turn.__struct_fields__)
_decoder = msgspec.json.Decoder(_Question)


def read_longmemeval(
    path: Path, user: str | None = None, progress: Progress | None = None
) -> Iterator[ImportedConversation]:
    """A conversation per haystack, its sessions in order of time: its user is `user`, else the question id.

    An event's id is `<session id>:<turn from 0>`; a session id that comes again in a haystack gets `#2`. What else a
    turn says (`has_answer`) is its metadata, for benchmarks. Raises FormatError naming the record, session and turn.
    """
    for number, data in read_elements(path, progress):
        with problems_at(path, f"record {number}"):
            question = _decoder.decode(data)
        metadata = {
            "source": "longmemeval",
            "question_type": question.question_type,
            "question_date": question.question_date,
        }
        yield ImportedConversation(
            origin_id=question.question_id,
            user=user or question.question_id,
            metadata={name: value for name, value in metadata.items() if value is not None},
            events=_events(path, f"record {number} ({question.question_id})", question),
        )


def parse_time(text: str) -> datetime:
    """A time such as "2023/05/20 (Sat) 02:21", in UTC; raises ValueError for anything else."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time like '2023/05/20 (Sat) 02:21'")
    year, month, day, hour, minute = (int(group or 0) for group in match.groups())
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def _events(path: Path, where: str, question: _Question) -> list[ImportedEvent]:
    sessions = question.haystack_sessions
    ids = question.haystack_session_ids or [f"session_{number}" for number in range(1, len(sessions) + 1)]
    dates: list[str | None] = [*question.haystack_dates] if question.haystack_dates else [None] * len(sessions)
    for field, values in (("haystack_session_ids", ids), ("haystack_dates", dates)):
        if len(values) != len(sessions):
            raise FormatError(path, f"{where}, {field}", f"{len(values)} values for {len(sessions)} sessions")
    starts: list[datetime | None] = []
    for index, date in enumerate(dates):
        with problems_at(path, f"{where}, haystack_dates[{index}]"):
            starts.append(None if date is None else parse_time(date))
    seen: set[str] = set()
    labels = [numbered(session_id, seen) for session_id in ids]
    # Some files list a haystack's sessions in no order of time; a log has one.
    order = sorted(range(len(sessions)), key=lambda index: starts[index] or datetime.min.replace(tzinfo=UTC))
    events = []
    for position in order:
        start = starts[position]
        for index, fields in enumerate(sessions[position]):
            with problems_at(path, f"{where}, haystack_sessions[{position}][{index}]"):
                turn = msgspec.convert(fields, _Turn)
            others = {name: value for name, value in fields.items() if name not in _TURN_FIELDS}
            events.append(
                ImportedEvent(
                    id=f"{labels[position]}:{index}",
                    role=turn.role,
                    content=turn.content,
                    session=labels[position],
                    occurred_at=None if start is None else start + index * TURN,
                    metadata=others or None,
                )
            )
    return events
