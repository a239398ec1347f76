"""What live requests saw of a migration: the load's answers by phase, and how soon servers follow a flip."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import msgspec

from benchmarks.load import percentile
from benchmarks.migration_fleet import Fleet
from benchmarks.migration_load import Answer, Orders
from server.database.ids import parse_conversation_id
from server.embeddings.lifecycle.routing import Routing, Unit, serve
from server.retrieval.plan import DEFAULT

_answer = msgspec.json.Decoder(Answer)


class Load:
    """The process that loads, and what came back of it."""

    def __init__(self, orders: Orders) -> None:
        self._file = Path(orders.file)
        self._file.touch()
        self._process = subprocess.Popen([sys.executable, "-m", "benchmarks.migration_load"], stdin=subprocess.PIPE)
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(orders) + b"\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """End it; what is under way is answered first."""
        assert self._process.stdin is not None
        if self._process.poll() is None:
            self._process.stdin.close()
            self._process.wait(60)

    @property
    def alive(self) -> bool:
        """Whether it still loads."""
        return self._process.poll() is None

    def answers(self, since: float = 0.0, until: float = float("inf")) -> list[Answer]:
        """Return what was sent in a stretch of time, as far as it was answered."""
        with self._file.open("rb") as file:
            read = [_answer.decode(line) for line in file if line.endswith(b"\n")]
        return [one for one in read if since <= one.at < until]


class Latency(NamedTuple):
    """Milliseconds over the searches of users."""

    answers: int
    p50: float
    p99: float
    longest: float

    def __str__(self) -> str:
        return f"p99 {self.p99:.1f} ms, p50 {self.p50:.1f}, longest {self.longest:.0f}, of {self.answers:,}"


def latency(answers: Iterable[Answer]) -> Latency:
    """Return the latency of what users wait for: searches, contexts and appends."""
    ordered = sorted(one.ms for one in answers if one.kind != "wide")
    return Latency(len(ordered), *(percentile(ordered, share) for share in (0.5, 0.99, 1.0)))


class _Era(NamedTuple):
    """A routing: some server may follow it from ``since`` on, and all do from ``done`` on."""

    since: float
    done: float
    routing: Routing


class Timeline:
    """Who was allowed to be answered by which version, and when."""

    def __init__(self, fleet: Fleet, active: str) -> None:
        self._fleet = fleet
        with fleet.database() as connection:
            row = connection.execute("SELECT salt FROM embedding_routing").fetchone()
        assert row is not None
        self._salt = bytes(row[0])
        self._names: dict[int, str] = {}
        self._eras: list[_Era] = [_Era(0.0, 0.0, self._routing({"active": active, "candidate": None, "ramp": 0}))]

    def _routing(self, told: dict[str, Any]) -> Routing:
        numbers = {}
        for name in (told["active"], told["candidate"]):
            if name is not None:
                numbers[name] = self._fleet.number(name)
                self._names[numbers[name]] = name
        return Routing(
            epoch=0,
            active=numbers[told["active"]],
            salt=self._salt,
            candidate=None if told["candidate"] is None else numbers[told["candidate"]],
            ramp=round(told["ramp"] * 100),
            written=tuple(numbers.values()),
            units=tuple(Unit(version=number, plan=DEFAULT) for number in numbers.values()),
        )

    def step(self, action: str, **body: Any) -> dict[str, Any]:
        """Take a step and remember from when on what it allows holds; raises Refused, which changes nothing."""
        since = time.time()
        done = self._fleet.step(action, **body)
        if done.get("behind"):  # a server follows once it has opened the candidate's model
            epoch = done["routing"]["epoch"]
            self._fleet.until(lambda found: all(one["epoch"] >= epoch for one in found["servers"]), "all servers")
        self._eras.append(_Era(since, time.time(), self._routing(done["routing"])))
        return done

    def wrong(self, answers: Iterable[Answer], keys: dict[str, int]) -> list[Answer]:
        """Return the reads that a version answered which was not to; ``keys``: of the users."""
        return [one for one in answers if one.version is not None and one.version.split()[0] not in self._of(one, keys)]

    def _of(self, one: Answer, keys: dict[str, int]) -> set[str]:
        allowed = set()
        key = None if one.kind == "wide" else keys[one.user]
        for number, era in enumerate(self._eras):
            until = self._eras[number + 1].done if number + 1 < len(self._eras) else float("inf")
            if era.since <= one.end and one.at <= until:
                allowed.add(self._names[serve(era.routing, key).unit.version])
        return allowed

    def candidates_users(self, ramp: float, candidate: str, keys: dict[str, int]) -> set[str]:
        """Return which users read a candidate at a ramp."""
        active = self._names[self._eras[0].routing.active]
        routing = self._routing({"active": active, "candidate": candidate, "ramp": ramp})
        return {user for user, key in keys.items() if serve(routing, key).unit.version == routing.candidate}


def user_keys(ids: dict[str, str]) -> dict[str, int]:
    """Return the users' keys; a user is named as its conversation is."""
    found = {}
    for name, text in ids.items():
        parsed = parse_conversation_id(text)
        assert parsed is not None
        found[name] = parsed.user_key
    return found


class Seen(NamedTuple):
    """One polled answer: when it was asked for and was there, and the version that its stamps name."""

    at: float
    end: float
    version: str


_POLL: Final = 0.005  # seconds between two questions


@contextmanager
def polled(fleet: Fleet, user: str, query: str) -> Iterator[list[list[Seen]]]:
    """Ask every server for one user again and again while the block runs; gives what each answered."""
    stop = threading.Event()
    seen: list[list[Seen]] = [[] for _ in fleet.servers]

    def poll(url: str, key: str, into: list[Seen]) -> None:
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            while not stop.is_set():
                at = time.time()
                answer = client.post("/v1/search", json={"query": query, "user": user, "k": 1})
                stamp = answer.json()["stamps"]["embedding"] if answer.is_success else None
                into.append(Seen(at, time.time(), (stamp or "none").split()[0]))
                stop.wait(_POLL)

    threads = [
        threading.Thread(target=poll, args=(server.url, server.key, into), daemon=True)
        for server, into in zip(fleet.servers, seen, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def flipped(seen: Sequence[Sequence[Seen]], new: str, since: float) -> float:
    """Return after how many seconds the last server answered by the new version, and never by another afterwards."""
    last = since
    for of_server in seen:
        others = [one.at for one in of_server if one.version != new and one.at >= since]
        after = [one.end for one in of_server if one.version == new and one.at > max(others, default=since)]
        last = max(last, min(after, default=float("inf")))
    return last - since
