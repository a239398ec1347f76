"""The default load generator: one process, one thread, raw sockets, keep-alive.

Each connection sends its own prebuilt request again as soon as the answer is whole, and reads of the answer only the
status and the Content-Length. Run as ``python -m benchmarks.load``: orders as JSON on standard input, figures on
standard output. In a process of its own, so that its share of the processors can be told from the server's.
"""

from __future__ import annotations

import asyncio
import sys
import time
from array import array
from typing import cast

import msgspec
import psutil
import uvloop

TEXT = (
    "I moved to Lisbon in the spring, and the first thing I did was to look for a climbing gym near the river; "
    "do you remember which one you told me about?"
)


class Orders(msgspec.Struct):
    """What to send: connection ``i`` repeats ``requests[i % len(requests)]``; times are in seconds."""

    host: str
    port: int
    connections: int
    warm_up: float
    seconds: float
    requests: list[bytes]


class Figures(msgspec.Struct):
    """What came back: latencies in milliseconds, ``cpu`` in cores used by the generator, ``errors`` answers not 2xx.

    ``answers`` counts those that were measured, ``total`` all, those of the warm-up too.
    """

    rate: float
    p50: float
    p99: float
    longest: float
    answers: int
    total: int
    errors: int
    cpu: float
    sample: str = ""


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, latencies: array[float]) -> None:
        self._request = request
        self._latencies = latencies
        self._buffer = b""
        self._sent = 0.0
        self.closed = asyncio.get_running_loop().create_future()
        self.stopping = False
        self.errors = 0
        self.sample = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        end = data.find(b"\r\n\r\n")
        at = data.find(b"content-length: ", 0, end)
        if end < 0 or at < 0 or len(data) < end + 4 + int(data[at + 16 : data.index(b"\r\n", at)]):
            self._buffer = data
            return
        self._buffer = b""
        self._latencies.append(time.perf_counter() - self._sent)
        if data[9:10] != b"2":
            self.errors += 1
            self.sample = data
        if self.stopping:
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.stopping:
            self.errors += 1
            self.sample = b"the server closed the connection"
        self.closed.set_result(None)


async def run(orders: Orders) -> Figures:
    """Send for ``warm_up + seconds`` and return the figures of the latter part."""
    loop = asyncio.get_running_loop()
    latencies: array[float] = array("d")
    connections = [_Connection(orders.requests[i % len(orders.requests)], latencies) for i in range(orders.connections)]
    for connection in connections:
        await loop.create_connection(lambda c=connection: c, orders.host, orders.port)  # type: ignore[misc]
    await asyncio.sleep(orders.warm_up)
    skipped, began, cpu = len(latencies), time.perf_counter(), _cpu()
    await asyncio.sleep(orders.seconds)
    measured = sorted(latencies[skipped:])
    seconds, cpu = time.perf_counter() - began, _cpu() - cpu
    for connection in connections:
        connection.stopping = True
    await asyncio.wait([connection.closed for connection in connections], timeout=10)
    samples = [connection.sample for connection in connections if connection.sample]
    return Figures(
        rate=len(measured) / seconds,
        p50=percentile(measured, 0.50) * 1000,
        p99=percentile(measured, 0.99) * 1000,
        longest=percentile(measured, 1.0) * 1000,
        answers=len(measured),
        total=len(latencies),
        errors=sum(connection.errors for connection in connections),
        cpu=cpu / seconds,
        sample=samples[0][:500].decode(errors="replace") if samples else "",
    )


def percentile(ordered: list[float], share: float) -> float:
    """Return the value below which ``share`` of the sorted values lie; 0 when there are none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def _cpu() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Obey the orders on standard input."""
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=Orders)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(run(orders))
    sys.stdout.buffer.write(msgspec.json.encode(figures))


if __name__ == "__main__":
    main()
