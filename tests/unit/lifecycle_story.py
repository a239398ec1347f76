"""A database's migration in memory: applies transitions as the transaction that stores them must."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import structs

from server.embeddings.lifecycle.commands import (
    Add,
    Backfill,
    Command,
    Compare,
    Cutover,
    Ramp,
    Shadow,
    Start,
    Verify,
)
from server.embeddings.lifecycle.facts import Facts, Rules, Server, Version
from server.embeddings.lifecycle.gates.gate import Gate
from server.embeddings.lifecycle.records import Record, Refused, Transition, apply
from server.embeddings.lifecycle.routing import Routing, Unit
from server.embeddings.lifecycle.states import decide
from server.retrieval.plan import PLANS

BEGIN: Final = datetime(2026, 3, 1, 9, tzinfo=UTC)
GOOD: Final = (Gate(name="coverage", outcome="pass", why="all texts have a vector"),)
BAD: Final = (Gate(name="recall", outcome="fail", why="it finds less"),)


class Story:
    """One active version, and what operators do to it."""

    def __init__(self, thresholds: dict[str, float] | None = None) -> None:
        unit = Unit(version=1, plan=PLANS["static"], thresholds=thresholds or {})
        self.routing = Routing(epoch=1, active=1, salt=b"0123456789abcdef", written=(1,), units=(unit,))
        self.versions = [Version(1, "old", "space-1", "active", BEGIN)]
        self.facts = Facts(release="1.0", waiting=0, rules=Rules(grace=timedelta(hours=72)))
        self.now = BEGIN
        self.dropped: set[int] = set()

    @property
    def states(self) -> dict[str, str]:
        return {version.name: version.state for version in self.versions}

    @property
    def history(self) -> tuple[Record, ...]:
        return self.facts.history

    def decide(self, command: Command, *, epoch: int | None = None) -> Transition | Refused:
        return decide(self.routing, self.versions, command, self.facts, self.now, "ada", epoch=epoch)

    def store(self, transition: Transition, command: Command) -> Refused | None:
        stored = apply(self.routing, transition)
        if isinstance(stored, Refused):
            return stored
        self.routing = stored
        if isinstance(command, Add):
            self.versions.append(Version(command.number, command.name, command.space, "draft", self.now))
        self.versions = [
            version._replace(state=transition.states[version.id], since=self.now)
            if version.id in transition.states
            else version
            for version in self.versions
        ]
        if transition.drops is not None:
            self.dropped.add(transition.drops)
        self.remember(transition.record)
        return None

    def remember(self, record: Record | None) -> None:
        if record is not None:
            self.facts = structs.replace(self.facts, history=(*self.facts.history, record))

    def run(self, command: Command) -> Refused | None:
        """Decide and store; also keeps what a refusal wants kept."""
        decision = self.decide(command)
        if isinstance(decision, Refused):
            self.remember(decision.record)
            return decision
        return self.store(decision, command)

    def do(self, *commands: Command) -> Story:
        for command in commands:
            refused = self.run(command)
            assert refused is None, refused
        return self

    def code(self, command: Command) -> str:
        """Return the code that a command is refused with."""
        refused = self.run(command)
        assert refused is not None, f"{command} was not refused"
        return refused.code

    def verify(self, gates: tuple[Gate, ...] = GOOD) -> Verify:
        return Verify(since=self.routing.epoch, gates=gates)

    def compare(self, gates: tuple[Gate, ...] = GOOD, **thresholds: float) -> Compare:
        return Compare(since=self.routing.epoch, gates=gates, thresholds=thresholds)

    def serving(self, *servers: tuple[str, str, int]) -> None:
        self.facts = structs.replace(self.facts, servers=tuple(Server(*one) for one in servers))

    def to(self, state: str) -> Story:
        """Bring a new version to a state."""
        steps: dict[str, Callable[[], Command]] = {
            "draft": lambda: Add(number=2, name="new", space="space-2"),
            "writing": lambda: Start(name="new", plan=PLANS["minilm"]),
            "backfilling": Backfill,
            "verified": self.verify,
            "shadowing": lambda: Shadow(sample=1000),
            "compared": lambda: self.compare(near=0.3),
            "ramping": lambda: Ramp(share=500),
            "holding": Cutover,
        }
        for name, step in steps.items():
            self.do(step())
            if name == state:
                return self
        raise ValueError(state)
