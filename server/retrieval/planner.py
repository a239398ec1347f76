"""From a question's type to a change of the default plan, and from the default ranking to the changed one.

A change adds signals to the scores of what the default plan ranked, in the same unit, so that a wish that nothing
fulfils leaves the default answer. What was tried and did not earn its place is said where it would stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct, structs

from schema.vocabulary import EVENT_TYPES, ROLES, Role
from server.retrieval.classify import Classified
from server.retrieval.plan import Plan
from server.retrieval.query_types.wish import Wish
from server.retrieval.ranking import Evidence, Hit, Ranking
from server.retrieval.times import Anchor, TimeRange
from server.retrieval.turns import Key

Floats = npt.NDArray[np.float64]

VERSION: Final = "planner/1"
# The cues of classify.py and query_types/; a change of them may change an answer.
CLASSIFIER: Final = "cues/1"

# What a wish of 1 adds: the scores of a search span about so many log-odds from its median to its best.
_SPAN: Final = 6.0
_ANCHOR_WEIGHT: Final = 0.1
_ROLE_WEIGHT: Final = 0.1
_CONSTRAINT_WEIGHT: Final = 0.5
_DAY: Final = 86_400.0
_MESSAGE: Final = EVENT_TYPES.index("message")
_CONSTRAINT: Final = EVENT_TYPES.index("constraint")
# Of events about the same thing, at most so many are put newest first: evidence further down stays where it is.
_NEWEST_FIRST: Final = 5
_SAME_THING: Final = 2.0  # log-odds below the best


class Planned(Struct, frozen=True, kw_only=True):
    """``plan``: as the ranking takes it; ``wish``: what is added; ``changes``: what differs from the default."""

    plan: Plan
    wish: Wish
    changes: tuple[str, ...] = ()


class Extra(Struct, frozen=True):
    """A signal that a wish adds over the pool: ``adds`` = ``weight`` x ``values``."""

    name: str
    weight: float
    values: Floats


class Found(Struct, frozen=True):
    """An answer: ``adds`` is what each signal adds to its score, the most telling first.

    ``score`` None: it was not found by score, but by its place in the log. ``superseded_by``: a newer answer about the
    same thing stands before it.
    """

    key: Key
    score: float | None
    adds: dict[str, float]
    superseded_by: Key | None = None


class Replanned(Struct, frozen=True):
    """The answer, and the ranking that it is of, with what the wish added to the scores."""

    found: tuple[Found, ...]
    ranking: Ranking
    extras: tuple[Extra, ...] = ()


def plan(classified: Classified, default: Plan) -> Planned:
    """Return what a question's type changes."""
    wish = classified.wish
    changes: list[str] = []
    changed = default
    if wish.lexical != 1.0:
        weights = structs.replace(default.weights, lexical=default.weights.lexical * wish.lexical)
        changed = structs.replace(changed, weights=weights)
        changes.append(f"the lexical weight times {wish.lexical:g}")
    if wish.breadth != 1.0:
        changed = structs.replace(changed, pool=int(changed.pool * wish.breadth))
        changes.append(f"{changed.pool} candidates ranked in full")
    if wish.tail is not None:
        changes.append(f"the last {wish.tail} messages first, newest first")
    if wish.ranges and wish.range_weight:
        named = ", ".join(one.text for one in wish.ranges)
        changes.append(f"events of that time preferred: {named}")
    changes += [f"events {one.relation} “{one.phrase}” preferred" for one in wish.anchors]
    if wish.recency and wish.tail is None:
        changes.append("newer events preferred")
    if wish.phrases and wish.phrase_weight:
        changes.append(f"events that hold {', '.join(f'“{one}”' for one in wish.phrases)} preferred")
    if wish.roles and wish.tail is None:
        changes.append(f"what {', '.join(wish.roles)} said preferred")
    if wish.all_constraints:
        changes.append("constraints preferred")
    if wish.newest_value_first:
        changes.append("of the best about the same thing, the newest first")
    if wish.coverage == "span":
        changes.append("the best of each stretch of the whole span, in its order")
    return Planned(plan=changed, wish=wish, changes=tuple(changes))


def needs_text(planned: Planned) -> bool:
    """Whether the texts of the best candidates are to be looked at."""
    return bool(planned.wish.phrases and planned.wish.phrase_weight)


def replan(
    ranking: Ranking,
    planned: Planned,
    k: int,
    *,
    anchors: Sequence[tuple[Anchor, float]] = (),
    texts: Mapping[Key, str] | None = None,
) -> Replanned:
    """Give a ranking by the plan what else the wish is about.

    ``anchors``: when (seconds since 1970) what the question dates by happened, as a first search has found it.
    ``texts``: those of the best candidates. Everything is decided by scores, times and keys: ties by key.
    """
    wish, evidence = planned.wish, ranking.evidence
    if not len(evidence.pool):
        return Replanned((), ranking)
    at = evidence.view.column("at")[evidence.pool]
    extras = [extra for extra in _extras(wish, evidence, at, anchors, texts or {}) if extra.values.any()]
    if extras:
        scores = evidence.scores
        for extra in extras:
            scores = scores + extra.weight * extra.values
        # An event of the time that is asked about is found by that, though it shares no word with the question.
        timely = [extra.values > 0 for extra in extras if extra.name == "time"]
        nothing = evidence.nothing & ~timely[0] if timely else evidence.nothing
        evidence = structs.replace(evidence, scores=np.round(scores, 6), nothing=nothing)
    best = evidence.best(k) if extras or len(ranking.places) < k else ranking.places[:k]
    superseded: dict[int, int] = {}
    if wish.newest_value_first:
        best, superseded = _newest_first(evidence, at, best)
    elif wish.coverage == "span":
        best = spread(evidence, at, k)
    found = []
    for place, adds in zip(best, _adds(evidence, planned.plan, extras, best), strict=True):
        newer = superseded.get(place)
        by = None if newer is None else _key(evidence, newer)
        found.append(Found(_key(evidence, place), float(evidence.scores[place]), adds, by))
    if wish.tail is not None:
        last = [Found(key, None, {"newest": 1.0}) for key in tail(evidence, wish, k)]
        known = {one.key for one in last}
        found = [*last, *(one for one in found if one.key not in known)][:k]
    hits = tuple(Hit(one.key, one.score) for one in found if one.score is not None)
    return Replanned(tuple(found), structs.replace(ranking, hits=hits, evidence=evidence), tuple(extras))


def _adds(evidence: Evidence, plan: Plan, extras: Sequence[Extra], places: list[int]) -> list[dict[str, float]]:
    """Return what each signal adds to the scores at some places of the pool, the most telling first."""
    weights = structs.asdict(plan.weights)
    added = {name: weights[name] * values[places] for name, values in evidence.features.items() if weights[name]}
    added |= {extra.name: extra.weight * extra.values[places] for extra in extras}
    found = []
    for values in zip(*(column.tolist() for column in added.values()), strict=True):
        rounded = [(name, shown) for name, value in zip(added, values, strict=True) if (shown := round(value, 4))]
        found.append(dict(sorted(rounded, key=lambda one: (-abs(one[1]), one[0]))))
    return found or [{} for _ in places]


def _extras(
    wish: Wish, evidence: Evidence, at: Floats, anchors: Sequence[tuple[Anchor, float]], texts: Mapping[Key, str]
) -> list[Extra]:
    found = []
    if wish.ranges and wish.range_weight and wish.tail is None:
        found.append(Extra("time", wish.range_weight * _SPAN, _inside(wish.ranges, wish.range_slack_days, at)))
    if anchors:
        values = np.max([_beside(anchor, when, at) for anchor, when in anchors], axis=0)
        found.append(Extra("anchor", _ANCHOR_WEIGHT * _SPAN, values))
    if wish.recency and wish.tail is None:
        found.append(Extra("newness", wish.recency * _SPAN, _newness(at)))
    if wish.phrases and texts:
        folded = [phrase.casefold() for phrase in wish.phrases]
        holds = {key for key, text in texts.items() if any(phrase in text.casefold() for phrase in folded)}
        values = np.array([float(key in holds) for key in _keys(evidence)]) if holds else np.zeros(len(at))
        found.append(Extra("phrase", wish.phrase_weight * 3 * _SPAN, values))
    if wish.roles and wish.tail is None:
        found.append(Extra("role", _ROLE_WEIGHT * _SPAN, _said_by(wish.roles, evidence)))
    if wish.all_constraints:
        held = evidence.view.column("type")[evidence.pool] == _CONSTRAINT
        found.append(Extra("constraint", _CONSTRAINT_WEIGHT * _SPAN, held.astype(np.float64)))
    return found


def _newest_first(evidence: Evidence, at: Floats, best: list[int]) -> tuple[list[int], dict[int, int]]:
    """Put the newest of the first few that are about the same thing before the others, and say which it supersedes."""
    if len(best) < 2:
        return best, {}
    about = evidence.features["coverage_turn"]
    top = best[:_NEWEST_FIRST]
    same = [
        place
        for place in top
        if evidence.scores[place] >= evidence.scores[top[0]] - _SAME_THING and about[place] >= about[top[0]] / 2
    ]
    newest = sorted(same, key=lambda place: (at[place], _key(evidence, place)), reverse=True)
    ordered = iter(newest)
    moved = [next(ordered) if place in same else place for place in top]
    return moved + best[len(top) :], dict.fromkeys(newest[1:], newest[0])


def tail(evidence: Evidence, wish: Wish, k: int) -> list[Key]:
    """Return the last messages that a wish for the end of the conversation is about, newest first.

    Those by the roles or speakers that are asked for come before the others.
    """
    view, turns = evidence.view, evidence.turns
    allowed = view.column("type") == _MESSAGE
    if evidence.allowed is not None:
        allowed &= evidence.allowed[view.rows]
    messages = np.flatnonzero(allowed)
    order = np.lexsort((view.column("seq")[messages], view.column("at")[messages]))
    last = messages[order][::-1][: wish.tail]
    wanted = np.ones(len(last), np.bool_)
    if wish.roles:
        wanted = np.isin(view.column("role")[last], [ROLES.index(role) for role in wish.roles])
    elif wish.speakers:
        names = {one.casefold() for one in wish.speakers}
        numbers = [number for number, name in enumerate(turns.speakers) if name in names]
        wanted = np.isin(view.column("speaker")[last], numbers)
    return [turns.key(int(view.rows[place])) for place in [*last[wanted], *last[~wanted]]][:k]


def spread(evidence: Evidence, at: Floats, k: int) -> list[int]:
    """Return the best of each of ``k`` stretches of the span, in order of time."""
    candidates = np.flatnonzero(~evidence.nothing)
    order = candidates[np.lexsort((evidence.view.column("seq")[evidence.pool][candidates], at[candidates]))]
    parts = np.array_split(order, min(k, len(order)) or 1)
    return [int(part[np.argmax(evidence.scores[part])]) for part in parts if len(part)]


def _inside(ranges: Sequence[TimeRange], slack_days: float, at: Floats) -> Floats:
    """Return 1 inside a range, and less and less for some days after it: people tell of a day later."""
    best = np.zeros(len(at))
    for one in ranges:
        start = -np.inf if one.start is None else _seconds(one.start)
        end = np.inf if one.end is None else _seconds(one.end)
        value = ((at >= start) & (at < end)).astype(np.float64)
        if slack_days and np.isfinite(end):
            late = (at - end) / (slack_days * _DAY)
            value = np.where((late >= 0) & (late < 1), np.maximum(value, 1 - late), value)
        best = np.maximum(best, value)
    return best


def _beside(anchor: Anchor, when: float, at: Floats) -> Floats:
    if anchor.relation in ("before", "until"):
        return (at < when).astype(np.float64)
    if anchor.relation in ("after", "since"):
        return (at > when).astype(np.float64)
    if anchor.relation == "during":
        return (np.abs(at - when) < _DAY).astype(np.float64)
    newness = _newness(at)
    return 1 - newness if anchor.relation == "first" else newness


def _newness(at: Floats) -> Floats:
    """Return from 0 for the oldest to 1 for the newest, by rank of time."""
    times, places = np.unique(at, return_inverse=True)
    return places / max(1, len(times) - 1)


def _said_by(roles: Sequence[Role], evidence: Evidence) -> Floats:
    numbers = [ROLES.index(role) for role in roles]
    return np.isin(evidence.view.column("role")[evidence.pool], numbers).astype(np.float64)


def _keys(evidence: Evidence) -> list[Key]:
    return [_key(evidence, place) for place in range(len(evidence.pool))]


def _key(evidence: Evidence, place: int) -> Key:
    return evidence.turns.key(int(evidence.view.rows[evidence.pool[place]]))


def _hit(evidence: Evidence, place: int) -> Hit:
    return Hit(_key(evidence, place), float(evidence.scores[place]))


def _seconds(moment: datetime) -> float:
    return moment.astimezone(UTC).timestamp()
