"""What would stay of a working set under a smaller budget; and copies, to be looked at."""

from __future__ import annotations

import copy

import msgspec

from server.working_set.fold import Fold


def under(fold: Fold, budget: int) -> Fold:
    """Return a fold with the residents that the same policy keeps under ``budget`` tokens; ``fold`` stays as it is.

    It is there to be looked at, not to be folded on: it counts no words. Raises InvalidInput, saying how much is
    needed, when the pins do not fit.
    """
    choice = msgspec.structs.replace(fold.choice, budget_tokens=budget)
    fold.check_choice(choice)
    smaller = copied(fold)
    smaller.kept.choose(choice)
    return smaller


def copied(fold: Fold) -> Fold:
    """Return a fold with the same residents, which stays as it is while the other is folded on; it counts no words."""
    kept = fold.kept
    same = Fold(fold.choice)
    same.kept.head, same.kept.step = kept.head, kept.step
    same.kept.pins, same.kept.newest_user = set(kept.pins), kept.newest_user
    same.kept.deleted = set(kept.deleted)
    same.kept.constraints, same.kept.departures = list(kept.constraints), list(kept.departures)
    same.kept.standing = kept.standing.copy()
    same.kept.restore(copy.copy(unit) for unit in kept.residents)
    same.kept.policy.load(kept.policy.dump())
    return same
