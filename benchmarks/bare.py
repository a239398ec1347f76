"""Batched INSERTs through bare psycopg: the yardstick of appends in batches. Run as ``python -m benchmarks.bare``."""

from __future__ import annotations

import asyncio
import sys
import time
from uuid import uuid4

import msgspec
import psutil
import psycopg
import uvloop

from benchmarks.load import Figures, percentile

INSERT = """
INSERT INTO event (user_key, conversation, seq, recorded_at, occurred_at, tenant_id, type, role, content)
SELECT %s, %s, e.seq, clock_timestamp(), clock_timestamp(), 1, e.type, e.role, e.content
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[]) AS e(seq, type, role, content)
"""


class Orders(msgspec.Struct):
    """How to insert: ``contents`` is one batch, in JSON text as the event table holds it."""

    conninfo: str
    connections: int
    seconds: float
    contents: list[str]


async def _insert(orders: Orders, number: int, latencies: list[float], until: float) -> None:
    options = "-c turnstone.tenant=1 -c timezone=UTC"
    async with await psycopg.AsyncConnection.connect(
        orders.conninfo, options=options, autocommit=True, prepare_threshold=0
    ) as connection:
        seq, conversation, count = 1, uuid4(), len(orders.contents)
        types, roles = ["message"] * count, ["user"] * count
        while (began := time.perf_counter()) < until:
            seqs = list(range(seq, seq + count))
            await connection.execute(INSERT, (number, conversation, seqs, types, roles, orders.contents))
            latencies.append(time.perf_counter() - began)
            seq += count


async def run(orders: Orders) -> Figures:
    """Insert batches over every connection at once; the rate counts batches."""
    latencies: list[float] = []
    began = time.perf_counter()
    until = began + orders.seconds
    await asyncio.gather(*(_insert(orders, n, latencies, until) for n in range(orders.connections)))
    seconds = time.perf_counter() - began
    latencies.sort()
    times = psutil.Process().cpu_times()
    return Figures(
        rate=len(latencies) / seconds,
        p50=percentile(latencies, 0.50) * 1000,
        p99=percentile(latencies, 0.99) * 1000,
        longest=latencies[-1] * 1000,
        answers=len(latencies),
        total=len(latencies),
        errors=0,
        cpu=(times.user + times.system) / seconds,
    )


def main() -> None:
    """Obey the orders on standard input."""
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=Orders)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(run(orders))
    sys.stdout.buffer.write(msgspec.json.encode(figures))


if __name__ == "__main__":
    main()
