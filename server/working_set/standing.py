"""Standing instructions and preferences: which events set some, and which of these hold.

A constraint is recognised when it is written (a firm cue), or is a candidate (a loose one); the caller confirms or
dismisses it. A later one that holds takes the place of an earlier one, unless a system or developer set that and a
user says this. What is confirmed counts as set anew. When one goes, what it had superseded holds again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schema.vocabulary import EventType, Role
from server.constraints import SETTERS, Rule, supersedes

State = Literal["candidate", "recognised", "confirmed", "dismissed", "superseded"]
Decided = Literal["confirmed", "dismissed"]
Reach = Literal["conversation", "user"]

# Events that are remembered; what matters least, and is oldest, is forgotten first, and is an ordinary event then.
MOST: Final = 256
_FORGOTTEN_FIRST: Final = ("dismissed", "superseded", "candidate", "recognised", "confirmed")
_FROM_ABOVE: Final = frozenset({"system", "developer"})


class Decision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The content of a ``constraint`` event that confirms or dismisses what another event sets."""

    seq: Annotated[int, Meta(ge=1)]
    state: Decided
    reach: Reach = "conversation"


class Setting(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An event that sets constraints. ``superseded``: place of a rule -> the seq that took its place."""

    seq: int
    rules: tuple[Rule, ...]
    state: Literal["candidate", "recognised", "confirmed", "dismissed"]
    from_above: bool = False
    reach: Reach = "conversation"
    superseded: dict[int, int] = {}

    @property
    def holds(self) -> bool:
        """Whether anything that it sets is in force."""
        return self.state in ("recognised", "confirmed") and len(self.superseded) < max(1, len(self.rules))

    @property
    def cues(self) -> str:
        """What showed the rules that are in force."""
        left = [rule.cue for place, rule in enumerate(self.rules) if place not in self.superseded]
        return ", ".join(dict.fromkeys(left)) or "explicit"

    def state_of(self, place: int) -> State:
        """Return how one of its rules stands."""
        return "superseded" if place in self.superseded and self.state != "dismissed" else self.state


class Standing:
    """The settings of one conversation, in the order in which they were set or confirmed."""

    def __init__(self, settings: list[Setting] | None = None) -> None:
        self._settings = {setting.seq: setting for setting in settings or ()}

    def __iter__(self) -> Iterator[Setting]:
        return iter(self._settings.values())

    def __len__(self) -> int:
        return len(self._settings)

    def copy(self) -> Standing:
        """Return one that does not change with this."""
        return Standing(
            [msgspec.structs.replace(one, superseded=dict(one.superseded)) for one in self._settings.values()]
        )

    def get(self, seq: int) -> Setting | None:
        """Return what an event sets."""
        return self._settings.get(seq)

    def holds(self, seq: int) -> bool:
        """Whether an event sets something that is in force."""
        setting = self._settings.get(seq)
        return setting is not None and setting.holds

    def note(self, setting: Setting) -> list[int]:
        """Take in what a new event sets; returns the seqs of which something else may hold now."""
        self._settings[setting.seq] = setting
        changed = self._supersede_by(setting)
        while len(self._settings) > MOST:
            changed += self.forget(self._least())
        return changed

    def decide(self, decision: Decision) -> list[int]:
        """Confirm or dismiss what a known event sets; returns as `note` does."""
        setting = self._settings[decision.seq]
        setting.state, setting.reach = decision.state, decision.reach
        if decision.state == "dismissed":
            setting.superseded = {}
            return [setting.seq, *self._free(setting.seq)]
        setting.superseded = {}
        del self._settings[setting.seq]
        return [setting.seq, *self.note(setting)]

    def forget(self, seq: int) -> list[int]:
        """Forget an event; returns as `note` does."""
        return [seq, *self._free(seq)] if self._settings.pop(seq, None) is not None else []

    def _supersede_by(self, setting: Setting) -> list[int]:
        if not setting.holds:
            return []
        return [old.seq for old in self._settings.values() if old is not setting and self._replace(setting, old)]

    def _replace(self, new: Setting, old: Setting) -> bool:
        if not old.holds or (old.from_above and not new.from_above):
            return False
        places = [
            place
            for place, rule in enumerate(old.rules)
            if place not in old.superseded
            and any(supersedes(one, rule) for number, one in enumerate(new.rules) if number not in new.superseded)
        ]
        old.superseded.update(dict.fromkeys(places, new.seq))
        return bool(places)

    def _free(self, seq: int) -> list[int]:
        """Let hold again what an event had superseded, unless a later one supersedes it too."""
        freed = []
        for setting in self._settings.values():
            places = [place for place, by in setting.superseded.items() if by == seq]
            for place in places:
                del setting.superseded[place]
            if places:
                freed.append(setting)
        order = list(self._settings.values())
        for setting in freed:
            for later in order[order.index(setting) + 1 :]:
                if later.holds:
                    self._replace(later, setting)
        return [setting.seq for setting in freed]

    def _least(self) -> int:
        def rank(setting: Setting) -> int:
            state: State = setting.state
            if state in ("recognised", "confirmed") and not setting.holds:
                state = "superseded"
            return _FORGOTTEN_FIRST.index(state)

        return min(self._settings.values(), key=rank).seq  # the first of equals is the oldest


def may_set(kind: EventType, role: Role | None) -> bool:
    """Whether an event can set constraints: a message by its role; an explicit one also without any."""
    return (kind == "message" and role in SETTERS) or (kind == "constraint" and (role is None or role in SETTERS))


def setting_of(seq: int, kind: EventType, role: Role | None, rules: tuple[Rule, ...]) -> Setting | None:
    """Return what a new event sets, if anything."""
    if not may_set(kind, role) or (kind == "message" and not rules):
        return None
    from_above = role in _FROM_ABOVE
    if kind == "constraint":
        return Setting(seq=seq, rules=rules, state="confirmed", from_above=from_above)
    firm = tuple(rule for rule in rules if rule.firm)
    state: Literal["recognised", "candidate"] = "recognised" if firm else "candidate"
    return Setting(seq=seq, rules=firm or rules, state=state, from_above=from_above)
