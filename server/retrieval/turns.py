"""The events of a scope as columns: where each stands, who speaks, when, and its neighbours in its session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from schema.vocabulary import EVENT_TYPES, ROLES, EventType, Role
from server.errors import InvalidInput
from server.retrieval.growing import Growing

T = TypeVar("T")
Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

# Where the caller names no sessions, a silence of so many seconds ends one.
SESSION_GAP: Final = 30 * 60.0
_NONE: Final = -1


class Key(Struct, frozen=True, order=True, gc=False):
    """Names an event: its conversation and its seq there."""

    conversation: str
    seq: int

    def __deepcopy__(self, _memo: object) -> Key:
        return self  # it cannot change


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
        self._ranks: Rows = np.empty(0, np.intp)
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
        self._forget_names()
        return rows

    def _forget_names(self) -> None:
        """Drop the names of speakers and sessions that only removed events carried: they are text, too."""
        heard = np.bincount(self["speaker"] + 1, minlength=len(self.speakers) + 1)[1:]
        for number in np.flatnonzero(heard == 0):
            self._speaker_numbers.pop(self.speakers[number], None)
            self.speakers[number] = ""
        left = np.bincount(self["session"][self["live"]], minlength=self.sessions)
        self._session_numbers = {label: number for label, number in self._session_numbers.items() if left[number]}

    def _join(self, conversation: int) -> None:
        """Find the neighbours of a conversation's events anew, after some were removed."""
        left = np.flatnonzero(self["live"] & (self["conversation"] == conversation))
        joined = self["session"][left[1:]] == self["session"][left[:-1]]
        self["before"][left], self["after"][left] = _NONE, _NONE
        self["before"][left[1:]] = np.where(joined, left[:-1], _NONE)
        self["after"][left[:-1]] = np.where(joined, left[1:], _NONE)
        self._last[conversation] = int(left[-1]) if len(left) else _NONE

    @property
    def ranks(self) -> Rows:
        """The place of each conversation among all, by its name."""
        if len(self._ranks) != len(self.conversations):
            self._ranks = np.argsort(np.argsort(np.array(self.conversations)))
        return self._ranks

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

    ``size`` stands for no event, and is its own neighbour: padded arrays have one element more for it. What a search
    works out about the rows alone is ``kept`` for the next one, so a view is worth keeping until the turns change.
    """

    def __init__(self, turns: Turns, within: Mask | None) -> None:
        self._turns = turns
        self.kept: dict[Any, Any] = {}
        self.whole = within is None and turns.live == len(turns)
        live = turns["live"]
        self.rows: Rows = (
            np.arange(len(turns)) if self.whole else np.flatnonzero(live if within is None else live & within)
        )
        self.size = len(self.rows)
        self.sessions = turns.sessions
        self._around = np.empty((0, self.size + 1), np.int32)

    def keep(self, name: Any, make: Callable[[], T]) -> T:
        """Return what was worked out under a name, or work it out."""
        if name not in self.kept:
            self.kept[name] = make()
        found: T = self.kept[name]
        return found

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of the turns, by this view's numbers."""
        if self.whole:
            return self._turns[name]
        return self.keep(("column", name), lambda: self._turns[name][self.rows])

    @cached_property
    def _local(self) -> Rows:
        """This view's number by row; the last element is for row -1."""
        local = np.full(len(self._turns) + 1, self.size, np.intp)
        local[self.rows] = np.arange(self.size)
        return local

    def local(self, rows: Rows) -> Rows:
        """Return this view's numbers of rows; ``size`` for those outside it."""
        return rows if self.whole else self._local[rows]

    def around(self, reach: int) -> npt.NDArray[np.int32]:
        """Return each event and its neighbours in its session, padded: itself, 1 before, 1 after, 2 before, 2 after …

        One row each, 1 + 2 * ``reach`` of them. No event is at the same distance of two others on the same side.
        """
        if len(self._around) < 1 + 2 * reach:
            self._around = self._walked(reach)
        return self._around[: 1 + 2 * reach]

    def _walked(self, reach: int) -> npt.NDArray[np.int32]:
        found = np.empty((1 + 2 * reach, self.size + 1), np.int32)
        found[0] = np.arange(self.size + 1)
        for side, name in enumerate(("before", "after"), 1):
            rows = self.column(name)
            step = np.append(np.where(rows < 0, self.size, self.local(rows)), self.size)
            for place in range(side, len(found), 2):
                found[place] = step if place == side else step[found[place - 2]]
        return found


def _number(name: str, numbers: dict[str, int], names: list[str]) -> int:
    number = numbers.get(name)
    if number is None:
        number = numbers[name] = len(names)
        names.append(name)
    return number
