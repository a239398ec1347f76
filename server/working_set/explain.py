"""Why each event near the line is in the working set, or no longer."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from server.working_set.choice import make_policy
from server.working_set.features import SCORER
from server.working_set.fold import Fold
from server.working_set.residents import Hold
from server.working_set.units import Unit

_HELD: Final[dict[Hold, str]] = {
    "pin": "pinned",
    "newest_user": "the newest user message",
    "constraint": "a constraint",
}


class Resident(msgspec.Struct, frozen=True, kw_only=True):
    """A resident event."""

    seq: Annotated[int, Meta(description="Its place in the conversation.")]
    tokens: Annotated[int, Meta(description="What it takes of the budget.")]
    whole: Annotated[int, Meta(description="What it would take uncut; more than `tokens` when it is rendered cut.")]
    why: Annotated[str, Meta(description="What keeps it.")]
    unit: Annotated[int, Meta(description="The first seq of what enters and leaves with it.")]
    placeholder: Annotated[bool, Meta(description="A tool result that is rendered as a placeholder.")] = False
    complete: Annotated[bool, Meta(description="False for a tool call without a result as yet.")] = True


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why an event near the line stays or went; the versions are those that the decision rested on."""

    seqs: Annotated[tuple[int, ...], Meta(description="The events, which enter and leave together.")]
    resident: Annotated[bool, Meta(description="Whether they are in the working set now, if only by a placeholder.")]
    why: Annotated[str, Meta(description="When and why they left, or how close they stand to leaving.")]
    policy: Annotated[str, Meta(description="The policy that decided.")]
    policy_version: Annotated[int, Meta(description="Its version.")]
    scorer: Annotated[str, Meta(description="What read the features of texts.")]


def residents(fold: Fold) -> list[Resident]:
    """Return the resident events in order."""
    found = []
    for unit in fold.kept.residents:
        why = _why(fold, unit)
        for part, charge in zip(unit.parts, unit.charges(), strict=True):
            found.append(
                Resident(
                    seq=part.seq,
                    tokens=charge,
                    whole=part.tokens,
                    why=why,
                    unit=unit.id,
                    placeholder=unit.placeholder is not None and part.type == "tool_result",
                    complete=unit.is_complete,
                )
            )
    return sorted(found, key=lambda resident: resident.seq)


def _why(fold: Fold, unit: Unit) -> str:
    hold = fold.kept.residents.held.get(unit.id)
    if hold == "constraint":
        setting = fold.kept.standing.get(unit.id)
        return f"constraint: {setting.cues}" if setting is not None else _HELD[hold]
    if hold is not None:
        return _HELD[hold]
    return "faulted in" if unit.faulted else f"kept by {fold.kept.policy.name}"


def explain(fold: Fold, near: int = 10) -> list[Explanation]:
    """Return the last ``near`` departures, latest first, then the ``near`` units that would leave next."""
    gone = [
        Explanation(
            seqs=departure.seqs,
            resident=departure.placeholder,
            why=f"left at head {departure.head}: {departure.why}"
            if not departure.placeholder
            else f"a placeholder stands for it since head {departure.head}: {departure.why}",
            policy=departure.policy,
            policy_version=departure.policy_version,
            scorer=SCORER,
        )
        for departure in reversed(fold.kept.departures[-near:] if near else [])
    ]
    trial = make_policy(fold.choice)
    trial.load(fold.kept.policy.dump())
    staying: list[Explanation] = []
    while len(staying) < near and (eviction := trial.evict()) is not None:
        unit = fold.kept.residents[eviction.id]
        place = "next to leave" if not staying else f"number {len(staying) + 1} to leave"
        staying.append(
            Explanation(
                seqs=tuple(part.seq for part in unit.parts),
                resident=True,
                why=f"{place}: {eviction.standing}" + (" (a placeholder stays)" if eviction.placeholder else ""),
                policy=fold.kept.policy.name,
                policy_version=fold.kept.policy.version,
                scorer=SCORER,
            )
        )
    return gone + staying
