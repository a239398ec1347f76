"""Units: what enters and leaves the working set together, and what it is charged."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schema.vocabulary import EventType, Role
from server.working_set.features import Features


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event of a unit. ``rarity``: of its words when it arrived, see rarity.py; its words are not kept."""

    seq: int
    type: EventType
    role: Role | None
    tokens: int
    call_id: str | None
    rarity: float
    features: Features
    first_covered: int | None = None
    last_covered: int | None = None


class Unit(msgspec.Struct, kw_only=True):
    """An event, or a tool call with its results.

    ``charge``: the tokens that it takes of the budget, at most ``tokens``. ``entered``, ``used``: the fold's steps when
    it came in or grew, and when it was last touched (or came in). ``touches``: since it came in. ``faulted``: it came
    in by a touch, after it had been evicted or covered.
    """

    parts: list[Part]
    charge: int = 0
    entered: int = 0
    used: int = 0
    touches: int = 0
    faulted: bool = False
    placeholder: int | None = None

    @property
    def id(self) -> int:
        """The first seq."""
        return self.parts[0].seq

    @property
    def last(self) -> int:
        """The last seq."""
        return self.parts[-1].seq

    @property
    def call_id(self) -> str | None:
        """The call that holds it together, if it is one."""
        return self.parts[0].call_id

    @property
    def tokens(self) -> int:
        """The tokens of its events, whole."""
        return sum(part.tokens for part in self.parts)

    @property
    def is_tool(self) -> bool:
        """Whether it is a tool call."""
        return self.parts[0].type == "tool_call"

    @property
    def is_complete(self) -> bool:
        """Whether it may be shown to a model as it is: a tool call may not without a result."""
        return not self.is_tool or any(part.type == "tool_result" for part in self.parts)

    def limit(self, tokens: int) -> None:
        """Charge what its events take when they are cut to ``tokens`` together."""
        self.charge = sum(self.charges(tokens))

    def charges(self, limit: int | None = None) -> list[int]:
        """Return each event's tokens: placeholders for results that are gone, then the longest cut first."""
        whole = [
            part.tokens
            if self.placeholder is None or part.type != "tool_result"
            else min(part.tokens, self.placeholder)
            for part in self.parts
        ]
        return cut(whole, self.charge if limit is None else limit)


def cut(sizes: Sequence[int], limit: int) -> list[int]:
    """Lower the largest sizes to a common level until they sum to at most ``limit``; whole numbers, earlier ones first.

    Sizes below the level stay whole.
    """
    if sum(sizes) <= limit:
        return list(sizes)
    left, count = limit, len(sizes)
    given = [0] * count
    for place, (size, index) in enumerate(sorted((size, index) for index, size in enumerate(sizes))):
        given[index] = min(size, left // (count - place))
        left -= given[index]
    return given
