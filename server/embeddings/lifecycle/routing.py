"""Which version answers whom: one row, whose parts change only together.

A request calls ``serve`` once and keeps what it returns. Then it cannot mix the query vector of one version with the
index, the weights or the thresholds of another, whatever is flipped meanwhile.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, NamedTuple

from msgspec import Struct, field

from server.retrieval.plan import Plan

WHOLE: Final = 10_000  # basis points
_PERSON: Final = b"turnstone ramp"


class Unit(Struct, frozen=True, kw_only=True):
    """All that belongs to one version and changes with it: the embedder and the index by ``version``, and the tuning.

    ``plan``: the weights fitted with this model. ``thresholds``: values on this model's own scale of similarity, by
    their registered name; another model's scores mean other things.
    """

    version: int
    plan: Plan
    thresholds: dict[str, float] = field(default_factory=dict)


class Routing(Struct, frozen=True, kw_only=True):
    """Which version serves reads, and which versions every writer covers.

    ``epoch`` rises with every change, of this row or of a version's state. ``ramp``, ``shadow``: basis points of the
    users that read the candidate, and of the searches that it answers unseen. ``paused``: background work of the
    migration waits; reads and writes are as ever. ``units``: by version, one for each that is written.
    """

    epoch: int
    active: int
    salt: bytes
    candidate: int | None = None
    ramp: int = 0
    shadow: int = 0
    paused: bool = False
    written: tuple[int, ...]
    units: tuple[Unit, ...]

    def unit(self, version: int) -> Unit:
        """Return what belongs to a version; raises KeyError for one that is not written."""
        for unit in self.units:
            if unit.version == version:
                return unit
        raise KeyError(version)


class Served(NamedTuple):
    """What one request uses from its start to its end, and what its stamps say of it."""

    epoch: int
    unit: Unit


def serve(routing: Routing, user_key: int | None) -> Served:
    """Return what answers a search of one user.

    None: the search reaches across users, of whom some read the one version and some the other. It is answered by the
    active one, which holds everybody.
    """
    if routing.candidate is not None and user_key is not None and place(routing, user_key) < routing.ramp:
        return Served(routing.epoch, routing.unit(routing.candidate))
    return Served(routing.epoch, routing.unit(routing.active))


def place(routing: Routing, user_key: int) -> int:
    """Return where a user stands in the ramp, from 0 to 9,999: it reads the candidate once the ramp is above that.

    It depends on the salt, the candidate and the user alone. So a wider ramp keeps those whom a narrower one had, going
    back and forth moves the same users, and the next migration begins with others.
    """
    key = user_key.to_bytes(8, "big", signed=True) + (routing.candidate or 0).to_bytes(8, "big")
    digest = blake2b(key, key=routing.salt, digest_size=8, person=_PERSON).digest()
    return int.from_bytes(digest, "big") % WHOLE
