"""Which policy keeps a conversation's working set, within how many tokens, and what of that is held for pins."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from server.errors import InvalidInput
from server.working_set import eviction
from server.working_set.policy import EvictionPolicy

MAX_BUDGET: Final = 1_000_000  # about as many residents at the most, of 2.6 kB each


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a ``working_set`` event; a field that is left out takes its default."""

    policy: Annotated[str, Meta(description="The eviction policy, one of `turnstone policies`.")] = "importance"
    budget_tokens: Annotated[int, Meta(description="What the residents may take together, in tokens.")] = 8000
    parameters: Annotated[dict[str, Any], Meta(description="The policy's own parameters; others are refused.")] = {}


def make_policy(choice: Choice) -> EvictionPolicy:
    """Make the policy of a choice; raises InvalidInput that lists what exists."""
    kind = eviction.find(choice.policy)
    try:
        parameters = msgspec.convert(choice.parameters, kind.parameters_type, strict=True)
    except msgspec.ValidationError as error:
        known = ", ".join(kind.parameters_type.__struct_fields__) or "none"
        raise InvalidInput(
            f"parameters of the policy {choice.policy}: {error}; it has: {known}",
            param="parameters",
            details={"parameters": list(kind.parameters_type.__struct_fields__)},
        ) from None
    return kind(parameters, choice.budget_tokens)


def parameters_in_force(choice: Choice) -> dict[str, Any]:
    """Return all parameters of a choice that has been checked, those that were left out with their defaults."""
    parameters: dict[str, Any] = msgspec.to_builtins(
        msgspec.convert(choice.parameters, eviction.find(choice.policy).parameters_type)
    )
    return parameters


def pin_quota(budget: int) -> int:
    """Return how many of a budget's tokens pins may take: half.

    No single event takes more than the other half, so pins and the newest user event always fit together.
    """
    return budget // 2


def event_limit(budget: int) -> int:
    """Return what one event, or one tool call with its results, may take: half of the budget; the rest is cut."""
    return budget - pin_quota(budget)


def check(choice: Choice, *, pinned: int = 0) -> None:
    """Raise InvalidInput for an unknown policy or parameter, or a budget that is too small for ``pinned`` tokens."""
    make_policy(choice)
    if not 1 <= choice.budget_tokens <= MAX_BUDGET:
        raise InvalidInput(
            f"budget_tokens is 1 to {MAX_BUDGET}, not {choice.budget_tokens}"
            + (f"; the pins need at least {2 * pinned}" if pinned else ""),
            param="budget_tokens",
        )
    if pinned > pin_quota(choice.budget_tokens):
        raise InvalidInput(
            f"the pins take {pinned} tokens, and may take half of the budget: it needs at least {2 * pinned}, "
            f"not {choice.budget_tokens}; or unpin something",
            param="budget_tokens",
            details={"needed": 2 * pinned},
        )
