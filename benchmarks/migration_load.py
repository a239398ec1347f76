"""The constant load of a migration's benchmark: ``python -m benchmarks.migration_load``, in a process of its own.

Requests go out at fixed times, whatever becomes of those before: a server that stands still has many that wait, and
each counts from when it should have been sent. Orders come as one line of JSON on standard input; it ends when that
does. Every answer becomes a line in a file.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import uvloop

_TIMEOUT: Final = 30.0  # seconds
_FLUSH: Final = 0.25  # seconds
_BUDGET: Final = 2_000  # tokens of a context

Kind = Literal["search", "wide", "context", "append"]


class Asked(msgspec.Struct, frozen=True):
    """A question, its user, and the conversation that it is about."""

    user: str
    conversation: str
    query: str


class Orders(msgspec.Struct, kw_only=True):
    """``searches``, ``appends``: a second, over all servers. Of the searches, one in ``wide`` asks the whole tenant.

    One in ``contexts`` is a context with the question instead. ``appended``: conversations that events are appended to.
    """

    key: str
    servers: list[tuple[str, int]]
    searches: float
    appends: float
    wide: int
    contexts: int
    asked: list[Asked]
    appended: list[str]
    texts: list[str]
    file: str


class Answer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``at``, ``end``: by the clock. ``ms``: from when it should have been sent. ``version``: that the stamps name."""

    kind: Kind
    server: int
    at: float
    end: float
    ms: float
    status: int
    user: str = ""
    found: int = 0
    version: str | None = None
    degraded: bool = False
    problem: str = ""


class _Stamps(msgspec.Struct):
    embedding: str | None = None
    search: Any = None


class _Reply(msgspec.Struct):
    data: list[Any] = []
    messages: list[Any] = []
    stamps: _Stamps = msgspec.field(default_factory=_Stamps)
    degraded: Any = None


_reply = msgspec.json.Decoder(_Reply)


class _Server:
    """One server's idle connections; a request takes one, or opens one more."""

    def __init__(self, host: str, port: int, key: str) -> None:
        self._host, self._port = host, port
        self._head = f"Host: {host}:{port}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, body: object) -> tuple[int, bytes]:
        content = msgspec.json.encode(body)
        request = f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        while self._idle and self._idle[-1][0].at_eof():  # closed by the server, since it was idle for long
            self._idle.pop()
        pair = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        reader, writer = pair
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
            answer = await reader.readexactly(int(fields[b"content-length"]))
        except BaseException:
            writer.close()
            raise
        self._idle.append(pair)
        return int(head[9:12]), answer


class Load:
    """Sends, and keeps what came back until it is written."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._servers = [_Server(host, port, orders.key) for host, port in orders.servers]
        self._chance = random.Random(0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines: list[bytes] = []
        self._numbers = {"search": 0, "append": 0}

    async def run(self, until: asyncio.Event) -> None:
        """Load until told to stop; what is under way is waited for."""
        ticking = [
            asyncio.create_task(self._tick(self._search, self._orders.searches)),
            asyncio.create_task(self._tick(self._append, self._orders.appends)),
            asyncio.create_task(self._write()),
        ]
        await until.wait()
        for task in ticking:
            task.cancel()
        await asyncio.gather(*ticking, return_exceptions=True)
        await asyncio.gather(*self._tasks)
        self._flush()

    async def _tick(self, send: Any, rate: float) -> None:
        if not rate:
            return
        due = time.perf_counter()
        while True:
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.create_task(send(due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _search(self, due: float) -> None:
        number = self._numbers["search"] = self._numbers["search"] + 1
        one = self._chance.choice(self._orders.asked)
        kind: Kind = "search"
        path, body = "/v1/search", {"query": one.query, "user": one.user, "k": 10}
        if number % self._orders.wide == 0:
            kind, body = "wide", {"query": one.query, "scope": "tenant", "k": 10}
        elif number % self._orders.contexts == 0:
            kind, path = "context", f"/v1/conversations/{one.conversation}/context"
            body = {"query": one.query, "budget_tokens": _BUDGET}
        await self._send(kind, path, body, due, one.user)

    async def _append(self, due: float) -> None:
        number = self._numbers["append"] = self._numbers["append"] + 1
        # Conversations in turns: appends to one and the same would wait for each other.
        at = self._orders.appended[number % len(self._orders.appended)]
        event = {"role": "user", "content": f"{self._chance.choice(self._orders.texts)} ({number})"}
        await self._send("append", f"/v1/conversations/{at}/events", {"events": [event]}, due, "")

    async def _send(self, kind: Kind, path: str, body: object, due: float, user: str) -> None:
        server = self._chance.randrange(len(self._servers))
        at, problem, status, reply = time.time(), "", 0, _Reply()
        try:
            async with asyncio.timeout(_TIMEOUT):
                status, answer = await self._servers[server].post(path, body)
            if status >= 300:
                problem = answer[:300].decode(errors="replace")
            elif kind != "append":
                reply = _reply.decode(answer)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        stamps = reply.stamps
        if kind == "context" and isinstance(stamps.search, dict):
            stamps = msgspec.convert(stamps.search, _Stamps)
        answered = Answer(
            kind=kind,
            server=server,
            at=at,
            end=time.time(),
            ms=1000 * (time.perf_counter() - due),
            status=status,
            user=user,
            found=len(reply.data) or len(reply.messages),
            version=stamps.embedding,
            degraded=reply.degraded is not None,
            problem=problem,
        )
        self._lines.append(msgspec.json.encode(answered) + b"\n")

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH)
            self._flush()

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            with Path(self._orders.file).open("ab") as file:
                file.write(b"".join(lines))


async def _run() -> None:
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    until = asyncio.Event()
    loop = asyncio.get_running_loop()
    waiting = loop.run_in_executor(None, sys.stdin.buffer.read)
    waiting.add_done_callback(lambda _: until.set())
    await Load(orders).run(until)


def main() -> None:
    """Obey the orders on standard input."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run())


if __name__ == "__main__":
    main()
