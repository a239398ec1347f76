"""What an operator does over REST, and the evidence that tests put in its way without measuring anything."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import httpx

from server.database.connections import Database
from server.embeddings.lifecycle import commands
from server.embeddings.lifecycle.commands import Command
from server.embeddings.lifecycle.facts import Rules
from server.embeddings.lifecycle.gates.gate import Gate
from server.embeddings.lifecycle.records import Transition
from server.embeddings.lifecycle.states import decide
from server.embeddings.migration import facts, ledger

PATH: Final = "/v1/embeddings/migration"
PATIENCE: Final = 30.0  # seconds
OWNER: Final = "turnstone_owner"
GOOD: Final = (Gate(name="coverage", outcome="pass", why="all is well"),)
BAD: Final = (Gate(name="recall", outcome="fail", why="it finds less", value=-0.2, limit=-0.02),)
# The default model, asked with another prefix: another version that costs nothing.
CHEAP: Final = {"provider": "wordllama", "model": "l2_supercat_256", "query_prefix": "question: "}


class Operator:
    """Takes the steps of a migration with a client's key."""

    def __init__(self, client: httpx.AsyncClient, database: Database) -> None:
        self.client = client
        self._database = database

    async def post(self, action: str, **body: Any) -> httpx.Response:
        return await self.client.post(f"{PATH}/{action}", json=body, timeout=60)

    async def step(self, action: str, **body: Any) -> dict[str, Any]:
        """Take a step that is let through; what was being read a moment ago may be dropped in a moment."""
        async with asyncio.timeout(15):
            while (answer := await self.post(action, **body)).status_code == 409:
                if answer.json()["error"]["code"] != "still_read":
                    break
                await asyncio.sleep(0.1)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def refused(self, action: str, **body: Any) -> dict[str, Any]:
        """Take a step that is refused; returns the error."""
        answer = await self.post(action, **body)
        assert answer.status_code == 409, answer.text
        error: dict[str, Any] = answer.json()["error"]
        return error

    async def add(self, name: str = "new", **fields: Any) -> dict[str, Any]:
        answer = await self.client.post("/v1/embeddings/versions", json={"name": name, **CHEAP, **fields})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def status(self) -> dict[str, Any]:
        answer = await self.client.get(PATH)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def history(self, **query: Any) -> list[dict[str, Any]]:
        answer = await self.client.get(f"{PATH}/history", params=query)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["data"]
        return found

    async def states(self) -> dict[str, str]:
        answer = await self.client.get("/v1/embeddings/versions")
        return {one["name"]: one["state"] for one in answer.json()["data"]}

    async def give(self, command: Command) -> None:
        """Store a command's outcome without measuring what it says."""
        async with self._database.transaction(None, role=OWNER) as connection:
            stored = await ledger.read(connection, lock=True)
            known = await facts.read(connection, stored.history, 0, rules=Rules())
            answer = decide(stored.routing, stored.versions, command, known, stored.now, "a test")
            assert isinstance(answer, Transition), answer
            assert await ledger.apply(connection, stored, answer) is None

    async def epoch(self) -> int:
        return int((await self.status())["routing"]["epoch"])

    async def verified(self) -> None:
        await self.give(commands.Verify(since=await self.epoch(), gates=GOOD))

    async def compared(self, gates: tuple[Gate, ...] = GOOD) -> None:
        await self.give(commands.Compare(since=await self.epoch(), gates=gates))

    async def to(self, state: str, name: str = "new") -> Operator:
        """Bring a new version to a state; what must be measured is taken as measured."""
        await self.add(name)
        for reached, action, body in (
            ("writing", "start", {"name": name}),
            ("backfilling", "backfill", {}),
            ("verified", None, {}),
            ("shadowing", "shadow", {"percent": 0}),
            ("compared", None, {}),
            ("ramping", "ramp", {"percent": 50}),
            ("holding", "cutover", {}),
        ):
            if action is not None:
                await self.step(action, **body)
            elif reached == "verified":
                await self.verified()  # the servers embed by themselves from here on what a backfill has left
                await self.followed()
            else:
                await self.compared()
            if reached == state:
                break
        return self

    async def backfilled(self) -> None:
        """Wait until the candidate lacks nothing."""
        await self.until(lambda status: status["backfill"] is None or not status["backfill"]["waiting"])

    async def followed(self) -> None:
        """Wait until every server follows."""
        await self.until(lambda status: all(one["epoch"] == status["routing"]["epoch"] for one in status["servers"]))

    async def until(self, condition: Any) -> dict[str, Any]:
        """Wait until something is so of the status."""
        deadline = time.monotonic() + PATIENCE
        while not condition(found := await self.status()):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.05)
        return found
