"""Which constraints a context has to show: those that govern the question, or, without one, every answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from server.constraints import Constraint, governs, recognise, stated
from server.context.assemble import Guest
from server.context.reach import Reaching, in_force
from server.context.render import span_tokens
from server.log.stored import StoredEvent
from server.working_set.explain import Resident
from server.working_set.fold import Fold
from server.working_set.items import measure, text_and_media
from server.working_set.standing import Setting

MOST: Final = 64  # the newest
ENOUGH: Final = 0.5  # how surely a constraint has to bear on a question
_WHOLE: Final = 48  # tokens up to which an event is shown whole, and not only what sets the constraint
_SURE: Final = 1.0  # what bears on every question


def looked_at(fold: Fold) -> list[int]:
    """Return the seqs whose events are needed: of what holds, the newest first."""
    return [setting.seq for setting in reversed(list(fold.kept.standing)) if setting.holds][:MOST]


def governing(
    fold: Fold, events: Mapping[int, StoredEvent], reaching: Sequence[Reaching], query: str | None, *, every: bool
) -> list[Guest]:
    """Return the constraints that are to be shown, the newest of the conversation's own first.

    Without a query these are those that bear on any answer (language, tone, a name …); with ``every``, all that hold.
    """
    guests = []
    for seq in looked_at(fold):
        setting, event = fold.kept.standing.get(seq), events.get(seq)
        if setting is None or event is None or event.erased_at is not None:
            continue
        bearing = [one for one in _in_force(setting, event) if every or _bears(one, query)]
        if bearing:
            guests.append(_guest(event, bearing))
    by_event: dict[tuple[str, int], tuple[Reaching, list[Constraint]]] = {}
    for one in reversed(in_force(list(reaching), fold.kept.standing)):
        if every or _bears(one.constraint, query):
            by_event.setdefault((str(one.conversation), one.event.seq), (one, []))[1].append(one.constraint)
    guests += [_guest(one.event, bearing, name) for (name, _), (one, bearing) in by_event.items()]
    return guests


def _bears(constraint: Constraint, query: str | None) -> bool:
    return governs(constraint, query or "") >= (ENOUGH if query else _SURE)


def _in_force(setting: Setting, event: StoredEvent) -> Iterable[Constraint]:
    text, _ = text_and_media(event.content)
    found = stated(text) if event.type == "constraint" else recognise(text, event.role)
    spans = {(rule.first, rule.last) for place, rule in enumerate(setting.rules) if place not in setting.superseded}
    return [one for one in found if (one.first, one.last) in spans]


def _guest(event: StoredEvent, bearing: Sequence[Constraint], conversation: str | None = None) -> Guest:
    why = "constraint: " + ", ".join(dict.fromkeys(one.cue for one in bearing))
    [item] = measure([event])
    spans: tuple[tuple[int, int], ...] = ()
    tokens = item.tokens
    if item.tokens > _WHOLE:
        spans = tuple(sorted((one.first, one.last) for one in bearing))
        tokens = min(item.tokens, span_tokens(event, spans))
    resident = Resident(seq=event.seq, tokens=tokens, whole=item.tokens, why=why, unit=event.seq)
    return Guest(event, resident, spans if tokens < item.tokens else (), conversation)
