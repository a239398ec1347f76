"""Which version answers one request, with all that goes with it: chosen once, and kept to the request's end."""

from __future__ import annotations

from typing import NamedTuple

from server.embeddings.lifecycle.routing import serve
from server.embeddings.versions import Registered, Version
from server.retrieval.plan import DEFAULT, Plan


class Serving(NamedTuple):
    """The version whose query vectors, index, weights and thresholds a request uses, as of one epoch of the routing.

    ``version`` None: none is known yet, and words alone answer. ``candidate``: it is being migrated to, so that the
    active version can answer instead, as a whole.
    """

    epoch: int
    version: Version | None
    plan: Plan
    thresholds: dict[str, float]
    candidate: bool = False


UNKNOWN = Serving(0, None, DEFAULT, {})


def serving(registered: Registered, user_key: int | None) -> Serving:
    """Return what serves a user, or (None) what reaches across users."""
    if registered.routing is None:
        return UNKNOWN
    return of_version(registered, serve(registered.routing, user_key).unit.version)


def of_version(registered: Registered, version: int) -> Serving:
    """Return a version on purpose: to answer unseen, or to be compared. Raises KeyError for one that is not written."""
    routing = registered.routing
    if routing is None:
        raise KeyError(version)
    unit = routing.unit(version)
    is_candidate = version == routing.candidate
    return Serving(routing.epoch, registered.versions[version], unit.plan, unit.thresholds, is_candidate)


def active(registered: Registered) -> Serving:
    """Return what serves everybody who reads no candidate."""
    return UNKNOWN if registered.routing is None else of_version(registered, registered.routing.active)
