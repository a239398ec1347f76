"""The eviction policies, one file each; a new file is found by itself."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import cast

from server.errors import InvalidInput
from server.working_set.policy import EvictionPolicy


@cache
def policies() -> dict[str, type[EvictionPolicy]]:
    """Return every policy by its name, which is also its file's."""
    found: dict[str, type[EvictionPolicy]] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        policy = cast("type[EvictionPolicy]", importlib.import_module(f"{__name__}.{module.name}").Policy)
        if policy.name != module.name:
            raise ImportError(f"the policy in {module.name}.py calls itself {policy.name!r}")
        found[policy.name] = policy
    return found


def find(name: str) -> type[EvictionPolicy]:
    """Return a policy by its name; raises InvalidInput that lists what exists."""
    try:
        return policies()[name]
    except KeyError:
        known = list(policies())
        raise InvalidInput(
            f"there is no eviction policy {name!r}; there are {', '.join(known)}",
            param="policy",
            details={"policies": known},
        ) from None
