"""What a decision rests on beside the routing and the versions: read from the database right before it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from msgspec import Struct

from schema.vocabulary import VersionState
from server.embeddings.lifecycle.records import Record


class Version(NamedTuple):
    """One embedding version. ``space``: the digest of its fingerprint, its prefixes and its text builder."""

    id: int
    name: str
    space: str
    state: VersionState
    since: datetime


class Server(NamedTuple):
    """A server that is alive, its release, and the epoch that it follows."""

    name: str
    release: str
    epoch: int


class Rules(Struct, frozen=True, kw_only=True):
    """What an operator may set.

    ``grace``: how long the old version stays after a cutover. ``evidence_age``: how old figures may be that a ramp or
    a cutover rests on. ``waiting``: how many events may be waiting for the candidate's vectors at a flip; those few
    are embedded when a search needs them.
    """

    grace: timedelta = timedelta(hours=72)
    evidence_age: timedelta = timedelta(days=7)
    waiting: int = 1_000


class Facts(Struct, frozen=True, kw_only=True):
    """``release``: the one that decides. ``servers``: all whose lease has not run out, this one included.

    ``waiting``: events without the candidate's vector, dead letters apart; None when that is not known. ``reading``:
    requests and sessions that still read the version to be dropped. ``history``: oldest first.
    """

    release: str
    servers: tuple[Server, ...] = ()
    waiting: int | None = None
    reading: int = 0
    history: tuple[Record, ...] = ()
    rules: Rules = Rules()
