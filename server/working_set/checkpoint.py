"""Checkpoints: a fold's state as bytes, from which folding goes on as if it had never stopped.

A checkpoint is bound to the versions of all that it rests on. Erasure drops those of its conversation, since words
that were erased are still counted in them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from server.constraints import RECOGNISER
from server.working_set.changes import Departure
from server.working_set.choice import Choice
from server.working_set.features import SCORER
from server.working_set.fold import Fold
from server.working_set.rarity import WordCounts
from server.working_set.standing import Setting, Standing
from server.working_set.tokens import TOKENIZER
from server.working_set.units import Part, Unit

VERSION: Final = 3


class OutdatedCheckpoint(Exception):
    """The checkpoint was made by other versions of the fold, the policy, the scorer or the tokenizer."""


class _Stamps(msgspec.Struct, frozen=True):
    version: int
    tokenizer: str
    scorer: str
    recogniser: str
    policy: str
    policy_version: int


class _State(msgspec.Struct):
    stamps: _Stamps
    choice: Choice
    head: int
    step: int
    units: list[Unit]
    pins: list[int]
    deleted: list[int]
    newest_user: int | None
    constraints: list[int]
    standing: list[Setting]
    calls: list[tuple[str, list[Part]]]
    departures: list[Departure]
    events: int
    counts: bytes
    policy: Any


class _Stamped(msgspec.Struct):
    stamps: _Stamps


_encode = msgspec.msgpack.Encoder().encode
_stamped = msgspec.msgpack.Decoder(_Stamped)
_state = msgspec.msgpack.Decoder(_State)


def _stamps(fold: Fold) -> _Stamps:
    return _Stamps(VERSION, TOKENIZER, SCORER, RECOGNISER, fold.kept.policy.name, fold.kept.policy.version)


def dump(fold: Fold) -> bytes:
    """Return a fold's state; equal folds give equal bytes."""
    kept = fold.kept
    return _encode(
        _State(
            stamps=_stamps(fold),
            choice=kept.choice,
            head=kept.head,
            step=kept.step,
            units=sorted(kept.residents, key=lambda unit: unit.id),
            pins=sorted(kept.pins),
            deleted=sorted(kept.deleted),
            newest_user=kept.newest_user,
            constraints=kept.constraints,
            standing=list(kept.standing),
            calls=list(kept.calls.items()),
            departures=kept.departures,
            events=fold.words.events,
            counts=fold.words.dump(),
            policy=kept.policy.dump(),
        )
    )


def load(checkpoint: bytes) -> Fold:
    """Return the fold of a checkpoint; raises OutdatedCheckpoint when the log has to be folded anew."""
    try:
        made_by = _stamped.decode(checkpoint).stamps
        state = _state.decode(checkpoint)
        fold = Fold(state.choice)
    except (msgspec.DecodeError, ValueError) as error:
        raise OutdatedCheckpoint(f"not a checkpoint of this version: {error}") from error
    if made_by != _stamps(fold):
        raise OutdatedCheckpoint(f"made by {made_by}, not {_stamps(fold)}")
    kept = fold.kept
    kept.head, kept.step = state.head, state.step
    kept.pins, kept.newest_user, kept.constraints = set(state.pins), state.newest_user, state.constraints
    kept.deleted = set(state.deleted)
    kept.standing = Standing(state.standing)
    kept.calls, kept.departures = dict(state.calls), state.departures
    kept.restore(state.units)
    kept.policy.load(state.policy)
    fold.words = WordCounts(state.events, state.counts)
    return fold
