"""The events of a scope as columns: where each stands, who speaks, when, and its neighbours in its session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from schema.vocabulary import EVENT_TYPES, ROLES, EventType, Role
from server.errors import InvalidInput
from server.retrieval.growing import Growing

Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

# Where the caller names no sessions, a silence of so many seconds ends one.
SESSION_GAP: Final = 30 * 60.0
_NONE: Final = -1


class Key(Struct, frozen=True, order=True):
    """Names an event: its conversation and its seq there."""

    conversation: str
    seq: int


class Entry(Struct, frozen=True, kw_only=True):
    """A text-bearing event to be indexed.

    ``at``: when it occurred, seconds since 1970. ``text``, ``speaker``, ``asks``: as built by `text.build`.
    """

    conversation: str
    seq: int
    text: str
    at: float = 0.0
    type: EventType = "message"
    role: Role | None = None
    session: str | None = None
    speaker: str | None = None
    asks: bool = False
    tokens: int = 0

    @property
    def key(self) -> Key:
        return Key(self.conversation, self.seq)


class Turns:
    """Columns by row. A row is an event's place in the index, in order of arrival, and is never used again."""

    def __init__(self) -> None:
        self.rows_of: dict[Key, int] = {}
        self.conversations: list[str] = []
        self.speakers: list[str] = []
        self.sessions = 0
        self._conversation_numbers: dict[str, int] = {}
        self._speaker_numbers: dict[str, int] = {}
        self._session_numbers: dict[tuple[int, str], int] = {}
        self._last: dict[int, int] = {}
        self._newest_seq: dict[int, int] = {}
        self._columns: dict[str, Growing] = {
            "conversation": Growing(np.int32),
            "seq": Growing(np.int64),
            "at": Growing(np.float64),
            "session": Growing(np.int32),
            "before": Growing(np.int32),
            "after": Growing(np.int32),
            "speaker": Growing(np.int32),
            "type": Growing(np.int8),
            "role": Growing(np.int8),
            "length": Growing(np.int32),
            "tokens": Growing(np.int32),
            "asks": Growing(np.bool_),
            "labelled": Growing(np.bool_),
            "live": Growing(np.bool_),
        }

    def __len__(self) -> int:
        return len(self._columns["seq"])

    def __getitem__(self, column: str) -> npt.NDArray[Any]:
        return self._columns[column].values

    @property
    def live(self) -> int:
        """How many rows are not removed."""
        return len(self.rows_of)

    @property
    def nbytes(self) -> int:
        """Bytes held, in round figures (a key and its place in the dictionary are about 200)."""
        return sum(column.nbytes for column in self._columns.values()) + 200 * len(self.rows_of)

    def check(self, entries: Sequence[Entry]) -> None:
        """Raise InvalidInput unless each conversation's entries continue it in ascending order of seq."""
        newest: dict[str, int] = {}
        for entry in entries:
            number = self._conversation_numbers.get(entry.conversation, _NONE)
            held = newest.get(entry.conversation, self._newest_seq.get(number, 0))
            if entry.seq <= held:
                raise InvalidInput(
                    f"Event {entry.seq} of conversation {entry.conversation} comes when {held} is indexed already; "
                    "add a conversation's events in ascending order."
                )
            newest[entry.conversation] = entry.seq

    def add(self, entry: Entry, length: int) -> int:
        """Append a row, ``length`` terms long, and return it."""
        row = len(self)
        conversation = _number(entry.conversation, self._conversation_numbers, self.conversations)
        before = self._last.get(conversation, _NONE)
        session = self._session(entry, conversation, before)
        joined = before != _NONE and self["session"][before] == session
        values: dict[str, Any] = {
            "conversation": conversation,
            "seq": entry.seq,
            "at": entry.at,
            "session": session,
            "before": before if joined else _NONE,
            "after": _NONE,
            "speaker": _NONE
            if entry.speaker is None
            else _number(entry.speaker.casefold(), self._speaker_numbers, self.speakers),
            "type": EVENT_TYPES.index(entry.type),
            "role": _NONE if entry.role is None else ROLES.index(entry.role),
            "length": length,
            "tokens": entry.tokens,
            "asks": entry.asks,
            "labelled": entry.session is not None,
            "live": True,
        }
        for name, value in values.items():
            self._columns[name].append(value)
        if joined:
            self["after"][before] = row
        self._last[conversation] = row
        self._newest_seq[conversation] = entry.seq
        self.rows_of[entry.key] = row
        return row

    def remove(self, keys: Iterable[Key]) -> list[int]:
        """Mark events removed, join their neighbours, and return their rows; unknown keys are passed over.

        Sessions stay as they are, also where what is removed was all that bridged a silence.
        """
        rows = [row for row in (self.rows_of.pop(key, _NONE) for key in keys) if row != _NONE]
        for name in ("at", "length", "tokens", "asks", "live"):
            self[name][rows] = 0
        for name in ("before", "after", "speaker"):
            self[name][rows] = _NONE
        for number in np.unique(self["conversation"][rows]):
            self._join(int(number))
        heard = np.bincount(self["speaker"] + 1, minlength=len(self.speakers) + 1)[1:]
        for number in np.flatnonzero(heard == 0):
            self._speaker_numbers.pop(self.speakers[number], None)
            self.speakers[number] = ""
        return rows

    def _join(self, conversation: int) -> None:
        """Find the neighbours of a conversation's events anew, after some were removed."""
        left = np.flatnonzero(self["live"] & (self["conversation"] == conversation))
        joined = self["session"][left[1:]] == self["session"][left[:-1]]
        self["before"][left], self["after"][left] = _NONE, _NONE
        self["before"][left[1:]] = np.where(joined, left[:-1], _NONE)
        self["after"][left[:-1]] = np.where(joined, left[1:], _NONE)
        self._last[conversation] = int(left[-1]) if len(left) else _NONE

    def key(self, row: int) -> Key:
        """Name a row."""
        return Key(self.conversations[self["conversation"][row]], int(self["seq"][row]))

    def select(
        self,
        *,
        conversations: Iterable[str] | None = None,
        keys: Iterable[Key] | None = None,
        roles: Iterable[Role] | None = None,
        types: Iterable[EventType] | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Mask:
        """Return which live rows meet all that is given; ``since`` <= at < ``until``, seconds since 1970."""
        chosen: Mask = self["live"].copy()
        if conversations is not None:
            numbers = [self._conversation_numbers.get(name, len(self.conversations)) for name in conversations]
            chosen &= np.isin(self["conversation"], numbers)
        if keys is not None:
            named = np.zeros(len(self), np.bool_)
            named[[row for row in (self.rows_of.get(key, _NONE) for key in keys) if row != _NONE]] = True
            chosen &= named
        if roles is not None:
            chosen &= np.isin(self["role"], [ROLES.index(role) for role in roles])
        if types is not None:
            chosen &= np.isin(self["type"], [EVENT_TYPES.index(kind) for kind in types])
        if since is not None:
            chosen &= self["at"] >= since
        if until is not None:
            chosen &= self["at"] < until
        return chosen

    def _session(self, entry: Entry, conversation: int, before: int) -> int:
        if entry.session is not None:
            known = self._session_numbers.get((conversation, entry.session))
            if known is None:
                known = self._session_numbers[conversation, entry.session] = self._new_session()
            return known
        if before != _NONE and not self["labelled"][before] and entry.at - float(self["at"][before]) <= SESSION_GAP:
            return int(self["session"][before])
        return self._new_session()

    def _new_session(self) -> int:
        self.sessions += 1
        return self.sessions - 1


class View:
    """The rows that one search may see, numbered anew from 0; what is outside it does not exist for the search.

    Arrays of neighbours have one element more, ``size``, which stands for no event and leads to itself. What a search
    works out about the rows alone is kept for the next one, so a view is worth keeping until the turns change.
    """

    def __init__(self, turns: Turns, within: Mask | None) -> None:
        self._turns = turns
        self._columns: dict[str, npt.NDArray[Any]] = {}
        self.norms: dict[Any, Any] = {}  # of lengths, by the options that shape them
        self.whole = within is None and turns.live == len(turns)
        live = turns["live"]
        self.rows: Rows = (
            np.arange(len(turns)) if self.whole else np.flatnonzero(live if within is None else live & within)
        )
        self.size = len(self.rows)
        self.sessions = turns.sessions

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of the turns, by this view's numbers."""
        if self.whole:
            return self._turns[name]
        if name not in self._columns:
            self._columns[name] = self._turns[name][self.rows]
        return self._columns[name]

    @cached_property
    def _local(self) -> Rows:
        """This view's number by row; the last element is for row -1."""
        local = np.full(len(self._turns) + 1, self.size, np.intp)
        local[self.rows] = np.arange(self.size)
        return local

    def local(self, rows: Rows) -> Rows:
        """Return this view's numbers of rows; ``size`` for those outside it."""
        return rows if self.whole else self._local[rows]

    @cached_property
    def steps(self) -> _Steps:
        """Neighbours by distance."""
        before = np.append(self._local[self.column("before")], self.size)
        after = np.append(self._local[self.column("after")], self.size)
        return _Steps(before, after)


class _Steps:
    """The neighbours of every event, at distance 1, 2, 3 …"""

    def __init__(self, before: Rows, after: Rows) -> None:
        self._before = [before]
        self._after = [after]

    def before(self, distance: int) -> Rows:
        """The event ``distance`` turns earlier in the session."""
        return _walk(self._before, distance)

    def after(self, distance: int) -> Rows:
        """The event ``distance`` turns later in the session."""
        return _walk(self._after, distance)


def _walk(known: list[Rows], distance: int) -> Rows:
    while len(known) < distance:
        known.append(known[0][known[-1]])
    return known[distance - 1]


def _number(name: str, numbers: dict[str, int], names: list[str]) -> int:
    number = numbers.get(name)
    if number is None:
        number = numbers[name] = len(names)
        names.append(name)
    return number
