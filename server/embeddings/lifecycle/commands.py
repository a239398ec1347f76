"""The commands that change a migration, as an operator gives them."""

from __future__ import annotations

from msgspec import Struct, field

from server.embeddings.lifecycle.gates.gate import Gate
from server.retrieval.plan import Plan


class Add(Struct, frozen=True, kw_only=True, tag="add"):
    """Register a version: ``number`` is the one that it would get, ``space`` the digest of all that fixes it."""

    number: int
    name: str
    space: str


class Estimate(Struct, frozen=True, kw_only=True, tag="plan"):
    """Say what a migration to a version would take; ``figures`` are the texts, the rate, the time and the disk."""

    name: str
    figures: dict[str, float] = field(default_factory=dict)


class Start(Struct, frozen=True, kw_only=True, tag="start"):
    """Begin the migration to a version: from here on every writer covers it. ``plan``: the weights it is read with."""

    name: str
    plan: Plan


class Backfill(Struct, frozen=True, kw_only=True, tag="backfill"):
    """Embed what was written before; given again, go on with what is left."""


class Verify(Struct, frozen=True, kw_only=True, tag="verify"):
    """Judge the candidate's vectors and index. ``gates``: of gates.verification; ``since``: the epoch they are of."""

    since: int
    gates: tuple[Gate, ...]


class Shadow(Struct, frozen=True, kw_only=True, tag="shadow"):
    """Let the candidate answer a share of the searches, unseen. ``sample``: in basis points."""

    sample: int


class Compare(Struct, frozen=True, kw_only=True, tag="compare"):
    """Judge the candidate's answers. ``gates``: of gates.comparison; ``since``: the epoch that measuring began at.

    ``thresholds``: on the candidate's scale, by name.
    """

    since: int
    gates: tuple[Gate, ...]
    figures: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)


class Ramp(Struct, frozen=True, kw_only=True, tag="ramp"):
    """Let a share of the users read the candidate, in basis points. ``force``: why, although a gate fails."""

    share: int
    force: str | None = None


class Cutover(Struct, frozen=True, kw_only=True, tag="cutover"):
    """Let everybody read the candidate. ``force``: why, although a gate fails."""

    force: str | None = None


class Rollback(Struct, frozen=True, kw_only=True, tag="rollback"):
    """Go back to the routing from before the migration."""

    reason: str = ""


class Contract(Struct, frozen=True, kw_only=True, tag="contract"):
    """Drop a version's vectors for good: the one that was replaced, or a candidate that was given up.

    ``typed``: the name as the operator typed it to confirm.
    """

    name: str
    typed: str


class Pause(Struct, frozen=True, kw_only=True, tag="pause"):
    """Let the background work of the migration wait."""

    reason: str = ""


class Resume(Struct, frozen=True, kw_only=True, tag="resume"):
    """Let it go on."""


Command = (
    Add
    | Estimate
    | Start
    | Backfill
    | Verify
    | Shadow
    | Compare
    | Ramp
    | Cutover
    | Rollback
    | Contract
    | Pause
    | Resume
)
