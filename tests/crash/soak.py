"""Kills the server and PostgreSQL under load and then looks at what is left: ``python -m tests.crash.soak``.

Sixteen writers append to four conversations and retry, each until it is told that its events are stored: with
Idempotency-Keys, or with ids of their own. Each round kills something with SIGKILL at a random moment, starts the
server again if it was the one, waits until every writer is served again, and then holds the log against what was
acknowledged: each event exactly once where the answer said, each writer's events in its order, no gaps.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from tests.operations.running import Serve, free_port, wait_gone

WRITERS: Final = 16
CONVERSATIONS: Final = 4
PATIENCE: Final = 60.0  # seconds within which a writer must be served again
VICTIMS: Final = ("server", "postmaster", "both", "backend", "server")


class Writers:
    """The writers, and what they were told."""

    def __init__(self, client: httpx.AsyncClient, conversations: list[str], random_: random.Random) -> None:
        self.client = client
        self.conversations = conversations
        self.random = random_
        self.acknowledged: dict[tuple[str, int], str] = {}
        self.done = [0] * WRITERS
        self.retries = 0
        self.stopping = False

    async def write(self, writer: int) -> None:
        """Append until told to stop; a request that was begun is seen through."""
        conversation = self.conversations[writer % CONVERSATIONS]
        named = writer % 5 == 4  # these are known by their own ids, the others by an Idempotency-Key
        while not self.stopping:
            number = self.done[writer]
            texts = [f"{writer}:{number}:{part}" for part in range(self.random.choice((1, 1, 1, 3)))]
            events = [{"role": "user", "content": text} | ({"id": text} if named else {}) for text in texts]
            headers = {} if named else {"idempotency-key": f"{writer}:{number}"}
            answer = await self.insist(f"/v1/conversations/{conversation}/events", {"events": events}, headers)
            for text, event in zip(texts, answer["events"], strict=True):
                place = (conversation, event["seq"])
                assert place not in self.acknowledged, f"{place} was given to {text} and {self.acknowledged[place]}"
                self.acknowledged[place] = text
            self.done[writer] += 1

    async def insist(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        """Send the same request until it is answered with 201; only a lost connection and 503 are reasons to retry."""
        while True:
            try:
                answer = await self.client.post(path, json=body, headers=headers)
            except httpx.TransportError:
                pass
            else:
                if answer.status_code == 201:
                    result: dict[str, Any] = answer.json()
                    return result
                assert answer.status_code == 503, f"{answer.status_code}: {answer.text}"
                assert answer.headers["retry-after"]
            self.retries += 1
            await asyncio.sleep(self.random.uniform(0.02, 0.1))

    async def check(self) -> int:
        """Hold the log against what was acknowledged before we looked; returns how many events there are."""
        acknowledged = dict(self.acknowledged)
        stored: dict[tuple[str, int], str] = {}
        for conversation in self.conversations:
            more, last = True, 0
            while more:
                answer = await self.client.get(
                    f"/v1/conversations/{conversation}/events", params={"after_seq": last, "limit": 1000}
                )
                assert answer.status_code == 200, answer.text
                page = answer.json()
                for event in page["data"]:
                    assert event["seq"] == last + 1, f"a gap after {last} in {conversation}"
                    last = event["seq"]
                    stored[conversation, last] = event["content"]
                more = page["has_more"]
        for place, text in acknowledged.items():
            assert stored.get(place) == text, f"{text} was acknowledged at {place}; there is {stored.get(place)}"
        twice = [text for text, times in Counter(stored.values()).items() if times > 1]
        assert not twice, f"stored more than once: {twice[:5]}"
        order: dict[str, list[tuple[int, int]]] = {}
        for _, text in sorted(stored.items()):
            writer, number, part = text.split(":")
            order.setdefault(writer, []).append((int(number), int(part)))
        for writer, numbers in order.items():
            assert numbers == sorted(numbers), f"writer {writer} finds its events out of order"
        return len(stored)


def postmaster(data_dir: Path) -> psutil.Process:
    return psutil.Process(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]))


def strike(server: Serve, victim: str, random_: random.Random) -> None:
    """Kill with SIGKILL; a victim that is not there at this moment is a miss, and that is fine."""
    try:
        if victim in ("postmaster", "both"):
            postmaster(server.data_dir).kill()
        if victim == "backend":
            backends = [child for child in postmaster(server.data_dir).children() if child.cmdline()]
            random_.choice(backends).kill()
    except (psutil.NoSuchProcess, FileNotFoundError, IndexError, ValueError):
        pass
    if victim in ("server", "both"):
        family = server.children("python")
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        wait_gone(*family)


async def soak(data_dir: Path, *, rounds: int, seed: int, say: Callable[[str], None] = print) -> int:
    """Run the rounds; returns how many events were stored. Raises AssertionError for what must not be."""
    random_ = random.Random(seed)
    port = free_port()
    server = Serve(data_dir, port, durable=True)
    tasks: list[asyncio.Task[None]] = []
    try:
        await asyncio.to_thread(server.wait_ready)
        key = (data_dir / "admin-key").read_text().strip()
        async with httpx.AsyncClient(
            base_url=server.url,
            headers={"authorization": f"Bearer {key}"},
            timeout=30,
            limits=httpx.Limits(max_connections=WRITERS + 4),
        ) as client:
            made = [(await client.post("/v1/conversations", json={})).json()["id"] for _ in range(CONVERSATIONS)]
            writers = Writers(client, made, random_)
            tasks = [asyncio.create_task(writers.write(number)) for number in range(WRITERS)]
            for number in range(1, rounds + 1):
                await asyncio.sleep(random_.uniform(0.1, 1.5))
                victim = VICTIMS[(number - 1) % len(VICTIMS)] if number <= len(VICTIMS) else random_.choice(VICTIMS)
                began, before = time.monotonic(), list(writers.done)
                strike(server, victim, random_)
                if server.process.poll() is not None:
                    server = Serve(data_dir, port, f"--workers={random_.choice((1, 2))}", durable=True)
                    await asyncio.to_thread(server.wait_ready)
                # Two more each: the first may have been on its way already.
                while any(now < then + 2 for now, then in zip(writers.done, before, strict=True)):
                    for task in tasks:
                        if task.done():
                            task.result()
                    assert time.monotonic() - began < PATIENCE, f"not served again after the death of {victim}"
                    assert server.process.poll() is None, server.log.read_text()[-5000:]
                    await asyncio.sleep(0.02)
                served = time.monotonic() - began
                stored = await insist_on(writers.check)
                say(
                    f"round {number}: killed {victim}; all served again after {served:.1f} s; {stored} events are right"
                )
            writers.stopping = True
            await asyncio.gather(*tasks)
            stored = await writers.check()
            assert stored == len(writers.acknowledged), "something is stored that nobody was told of"
            assert server.stop() == 0
            server = Serve(data_dir, port, durable=True)
            await asyncio.to_thread(server.wait_ready)
            assert await insist_on(writers.check) == stored
            say(f"{stored} events, each acknowledged and stored once; {writers.retries} retries")
            return stored
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.end()


async def insist_on(check: Callable[[], Any]) -> int:
    """Run a check that another connection's death may interrupt."""
    while True:
        try:
            return int(await check())
        except httpx.TransportError:
            await asyncio.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="turnstone-soak-", ignore_cleanup_errors=True) as directory:
        asyncio.run(soak(Path(directory) / "data", rounds=arguments.rounds, seed=arguments.seed))


if __name__ == "__main__":
    main()
