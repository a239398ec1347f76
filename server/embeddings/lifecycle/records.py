"""What a command of the migration comes to, and the history that is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from msgspec import Struct, field

from schema.vocabulary import VersionState
from server.embeddings.lifecycle.gates.gate import Gate
from server.embeddings.lifecycle.routing import Routing

Action = Literal[
    "add",
    "plan",
    "start",
    "backfill",
    "verify",
    "shadow",
    "compare",
    "ramp",
    "cutover",
    "rollback",
    "contract",
    "pause",
    "resume",
]


class Record(Struct, frozen=True, kw_only=True):
    """One line of the history.

    ``epoch``: the routing's, after it. ``version``: whom it was about. ``gates``: what it rested on, or failed on when
    ``done`` is false. ``forced``: the reason given for going on all the same. ``figures``: as they were shown.
    ``thresholds``: the values that a comparison found for the candidate's scale.
    """

    action: Action
    version: int
    epoch: int
    at: datetime
    who: str
    note: str
    done: bool = True
    gates: tuple[Gate, ...] = ()
    forced: str | None = None
    figures: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)


class Transition(Struct, frozen=True, kw_only=True):
    """What a command changes, in one transaction: the row if it still has ``from_epoch``, the states, the history.

    ``creates``: the version whose relation is made, if need be, before that. ``drops``: the one whose relation is
    dropped afterwards, once every live server follows the new epoch; a server that finds a dropped version with a
    relation does it again.
    """

    from_epoch: int
    routing: Routing
    states: dict[int, VersionState] = field(default_factory=dict)
    record: Record | None = None
    creates: int | None = None
    drops: int | None = None

    @property
    def flips(self) -> bool:
        """Whether servers have something to follow."""
        return self.routing.epoch != self.from_epoch


class Refused(Struct, frozen=True, kw_only=True):
    """Why a command changes nothing: a stable ``code``, what is wrong, and what to do.

    ``record``: kept in the history all the same, where figures were found wanting.
    """

    code: str
    message: str
    record: Record | None = None


class Evidence(NamedTuple):
    """What was found of a candidate since its migration began; None where that was not looked at yet."""

    verified: Record | None
    compared: Record | None


def evidence(history: Sequence[Record], candidate: int) -> Evidence:
    """Return the newest verification and comparison of a candidate's present migration. ``history``: oldest first.

    Nothing counts that was found before the migration began, nor what was found before vectors were filled in again.
    """
    verified: Record | None = None
    compared: Record | None = None
    for record in history:
        if record.version != candidate:
            continue
        if record.action == "start":
            verified = compared = None
        elif record.action == "backfill":
            verified = None
        elif record.action == "verify":
            verified = record
        elif record.action == "compare":
            compared = record
    return Evidence(verified, compared)


def apply(stored: Routing, transition: Transition) -> Routing | Refused:
    """Return the row after a transition, as its UPDATE must: of two that saw the same epoch, the second loses."""
    if stored.epoch != transition.from_epoch:
        return stale(transition.from_epoch, stored.epoch)
    return transition.routing


def stale(seen: int, found: int) -> Refused:
    """Refuse a decision that was taken on a state that has passed."""
    return Refused(
        code="stale_epoch",
        message=f"the routing has changed meanwhile (epoch {seen} was seen, {found} is there): somebody else is at "
        "work on this migration; look at `turnstone embeddings status` and decide again",
    )
