"""The query types, one file each; a new file is found by itself."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Final, cast

from server.errors import InvalidInput
from server.retrieval.query_types.query_type import QueryType

_NO_TYPES: Final = ("query_type", "wish")


@cache
def query_types() -> dict[str, QueryType]:
    """Return every type by its name, which is also its file's, the one that wins over others first."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        if module.name in _NO_TYPES:
            continue
        one = cast("QueryType", importlib.import_module(f"{__name__}.{module.name}").TYPE)
        if one.name != module.name:
            raise ImportError(f"the query type in {module.name}.py calls itself {one.name!r}")
        found.append(one)
    return {one.name: one for one in sorted(found, key=lambda one: (one.precedence, one.name))}


def find(name: str) -> QueryType:
    """Return a type by its name; raises InvalidInput that lists what exists."""
    try:
        return query_types()[name]
    except KeyError:
        known = sorted(query_types())
        raise InvalidInput(
            f"there is no query type {name!r}; there are {', '.join(known)}",
            param="type",
            details={"types": known},
        ) from None
