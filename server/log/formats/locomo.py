"""LoCoMo (Maharana et al. 2024): long chats between two people, in dated sessions.

A file is a list of `{sample_id?, conversation: {speaker_a, speaker_b, session_N: [turn], session_N_date_time}, qa}`, a
turn `{speaker, dia_id, text, blip_caption?, img_url?, ...}`. Questions are left to the benchmarks.
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

# Not strptime's %B, which follows the process's locale.
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_TIME = re.compile(r"\s*(\d{1,2}):(\d\d) ([ap]m) on (\d{1,2}) ([a-z]+),? (\d{4})\s*", re.IGNORECASE)
_SESSION = re.compile(r"session_(\d+)")


class _Sample(msgspec.Struct):
    conversation: dict[str, Any]
    sample_id: str | int | None = None


class _Speakers(msgspec.Struct):
    speaker_a: str
    speaker_b: str


class _Turn(msgspec.Struct):
    speaker: str
    dia_id: str
    text: str = ""
    blip_caption: str | None = None


_TURN_FIELDS = frozenset(_Turn.__struct_fields__)
_decoder = msgspec.json.Decoder(_Sample)


def read_locomo(
    path: Path, user: str | None = None, progress: Progress | None = None
) -> Iterator[ImportedConversation]:
    """A conversation per sample: its user is `user`, else the sample id; speaker_a has the role user.

    A turn with a picture has two parts, its text and `{type: image, caption?, ...}` with the turn's other fields
    verbatim. Raises FormatError naming the record, session and turn.
    """
    for number, data in read_elements(path, progress):
        where = f"record {number}"
        with problems_at(path, where):
            sample = _decoder.decode(data)
        origin = f"{path.stem}:{number}" if sample.sample_id is None else str(sample.sample_id)
        with problems_at(path, f"{where} ({origin}), conversation"):
            speakers = msgspec.convert(sample.conversation, _Speakers)
        yield ImportedConversation(
            origin_id=origin,
            user=user or origin,
            metadata={"source": "locomo", "speaker_a": speakers.speaker_a, "speaker_b": speakers.speaker_b},
            events=_events(path, f"{where} ({origin})", sample.conversation, speakers),
        )


def parse_time(text: str) -> datetime:
    """A session time such as "1:56 pm on 8 May, 2023", in UTC; raises ValueError for anything else."""
    match = _TIME.fullmatch(text)
    if match is None or match[5][:3].lower() not in _MONTHS or not 1 <= int(match[1]) <= 12:
        raise ValueError(f"{text!r} is no time like '1:56 pm on 8 May, 2023'")
    hour = int(match[1]) % 12 + (12 if match[3].lower() == "pm" else 0)
    month = _MONTHS.index(match[5][:3].lower()) + 1
    return datetime(int(match[6]), month, int(match[4]), hour, int(match[2]), tzinfo=UTC)


def _events(path: Path, where: str, conversation: dict[str, Any], speakers: _Speakers) -> list[ImportedEvent]:
    numbers = sorted(int(match[1]) for match in map(_SESSION.fullmatch, conversation) if match)
    roles: dict[str, Role] = {speakers.speaker_b: "assistant", speakers.speaker_a: "user"}
    seen: set[str] = set()
    events = []
    for session in (f"session_{number}" for number in numbers):
        turns = conversation.get(session)
        if not isinstance(turns, list):
            continue
        time_field = f"{session}_date_time"
        with problems_at(path, f"{where}, conversation.{time_field}"):
            text = msgspec.convert(conversation.get(time_field), str | None)
            start = parse_time(text) if text else None
        for index, fields in enumerate(turns):
            turn_where = f"{where}, conversation.{session}[{index}]"
            with problems_at(path, turn_where):
                turn = msgspec.convert(fields, _Turn)
            if turn.speaker not in roles:
                known = f"{speakers.speaker_a!r} and {speakers.speaker_b!r}"
                raise FormatError(path, turn_where, f"speaker {turn.speaker!r} is none of {known}")
            others = {name: value for name, value in fields.items() if name not in _TURN_FIELDS}
            pictured = turn.blip_caption is not None or "img_url" in others
            events.append(
                ImportedEvent(
                    id=numbered(turn.dia_id, seen),
                    role=roles[turn.speaker],
                    name=turn.speaker,
                    session=session,
                    occurred_at=None if start is None else start + index * TURN,
                    content=_parts(turn, others) if pictured else turn.text,
                    metadata=None if pictured else others or None,
                )
            )
    return events


def _parts(turn: _Turn, others: dict[str, Any]) -> list[dict[str, Any]]:
    caption = {} if turn.blip_caption is None else {"caption": turn.blip_caption}
    image = {"type": "image", **caption} | {name: value for name, value in others.items() if name != "type"}
    return [{"type": "text", "text": turn.text}, image] if turn.text else [image]
