"""The load generators by name: ours in Python, which needs nothing, and ``wrk`` in C, lighter where it is installed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from benchmarks.bare import Orders as BareOrders
from benchmarks.load import Figures, Orders

Generator = Callable[[Orders], Figures]

# wrk asks for a request each time a connection is free, so with n requests each connection takes all of them in turn.
_SCRIPT = """
local requests, n, errors = {{{requests}}}, 0, 0
function request() n = n + 1; return requests[(n - 1) % #requests + 1] end
function done(summary, latency)
    local e = summary.errors
    io.write(string.format('\\n{{"p50": %f, "p99": %f, "longest": %f, "answers": %d, "seconds": %f, "errors": %d}}\\n',
        latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000, summary.requests,
        summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def own(orders: Orders) -> Figures:
    """Generate load with benchmarks/load.py in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"], input=msgspec.json.encode(orders), stdout=subprocess.PIPE, check=True
    )
    return msgspec.json.decode(done.stdout, type=Figures)


def wrk(orders: Orders) -> Figures:
    """Generate load with wrk, one thread; its warm-up is a run of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        literals = (_lua(request) for request in orders.requests)
        file.write(_SCRIPT.format(requests=", ".join(literals)))
        file.flush()
        warming = _run_wrk(orders, Path(file.name), orders.warm_up)
        figures = _run_wrk(orders, Path(file.name), orders.seconds)
        figures.total += warming.total
        return figures


def _lua(data: bytes) -> str:
    return '"' + "".join(f"\\{byte:03d}" for byte in data) + '"'


def _run_wrk(orders: Orders, script: Path, seconds: float) -> Figures:
    command = [
        *("wrk", "--threads=1", f"--connections={orders.connections}", f"--duration={max(1, round(seconds))}s"),
        *(f"--script={script}", f"http://{orders.host}:{orders.port}/"),
    ]
    process = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
    cpu = 0.0
    while process.poll() is None:
        try:
            times = process.cpu_times()
            cpu = times.user + times.system
        except psutil.Error:
            break
        time.sleep(0.02)
    output = process.stdout.read()
    if process.wait():
        raise SystemExit(f"wrk failed: {output}")
    told = json.loads(output.strip().splitlines()[-1])
    taken = told.pop("seconds")
    return Figures(rate=told["answers"] / taken, cpu=cpu / taken, total=told["answers"], **told)


BY_NAME: dict[str, Generator] = {"own": own, "wrk": wrk}


def bare(orders: BareOrders) -> Figures:
    """Insert batches with benchmarks/bare.py in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bare"], input=msgspec.json.encode(orders), stdout=subprocess.PIPE, check=True
    )
    return msgspec.json.decode(done.stdout, type=Figures)
