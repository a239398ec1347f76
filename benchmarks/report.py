"""The figures of a benchmark of appends, as tables and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Measured


class Report(msgspec.Struct, kw_only=True):
    """Everything measured in one run; memory in MiB (PSS), starts in seconds, ``load`` the load average before it."""

    at: datetime
    processors: int
    load: float
    generator: str
    workers: int
    seconds: float
    rounds: int
    loaded: int
    cold_start: float = 0.0
    second_start: float = 0.0
    idle_python: float = 0.0
    idle_postgres: float = 0.0
    runs: dict[str, list[Measured]] = {}

    def of(self, name: str, connections: int, value: Callable[[Measured], float]) -> float:
        """Return the median over the rounds."""
        return statistics.median(value(measured) for measured in self.runs[f"{name} x{connections}"])

    def ratio(self, name: str, yardstick: str, connections: int, value: Callable[[Measured], float]) -> float:
        """Return the median, over the rounds, of one figure relative to the yardstick's in the same round."""
        pairs = zip(self.runs[f"{name} x{connections}"], self.runs[f"{yardstick} x{connections}"], strict=True)
        return statistics.median(value(own) / value(other) for own, other in pairs)

    def connections(self, name: str) -> list[int]:
        """Return the numbers of connections that it was measured at."""
        return sorted(int(key.rsplit(" x", 1)[1]) for key in self.runs if key.rsplit(" x", 1)[0] == name)


def rate(measured: Measured) -> float:
    return measured.figures.rate


def p99(measured: Measured) -> float:
    return measured.figures.p99


_COLUMNS: dict[str, Callable[[Measured], float]] = {
    "per s": rate,
    "p50 ms": lambda measured: measured.figures.p50,
    "p99 ms": p99,
    "python us": lambda measured: measured.python,
    "postgres us": lambda measured: measured.postgres,
    "load cores": lambda measured: measured.figures.cpu,
    "MiB after": lambda measured: measured.memory,
}


def show(console: Console, report: Report) -> None:
    """Print the tables."""
    console.print(
        f"\n{report.processors} processors (load average {report.load:.1f} at the start), {report.workers} server "
        f"process(es), {report.rounds} rounds of {report.seconds:g} s; load generator: "
        f"{'benchmarks/load.py' if report.generator == 'own' else report.generator}, which shares the processors.",
        highlight=False,
    )
    console.print(
        f"First answer after {report.cold_start:.2f} s on an empty disk, {report.second_start:.2f} s the second time. "
        f"Idle memory (PSS): Python {report.idle_python:.0f} + PostgreSQL {report.idle_postgres:.0f} = "
        f"{report.idle_python + report.idle_postgres:.0f} MiB.",
        highlight=False,
    )
    _table(
        console,
        report,
        "Single events, each connection to its own conversation",
        "append",
        "bare_insert",
        "pgbench: bare INSERT",
    )
    _table(console, report, "The whole append in SQL (pgbench), for orientation", "pgbench_full")
    _table(console, report, "Single events, all connections to one conversation", "append_shared")
    _table(console, report, "Batches of 100 events", "append_batch", "bare_batch", "psycopg: the same INSERT")
    _table(console, report, "Last 50 events", "read_last", "pgbench_read", "pgbench: plain SQL")
    _table(console, report, "Last 50 events", "read_last", "static", "GET /healthz")
    if report.loaded:
        for name, title in (("append", "Single events"), ("read_last", "Last 50 events")):
            _table(
                console,
                report,
                f"{title}, {report.loaded:,} events loaded",
                f"loaded {name}",
                f"empty {name}",
                "the same, empty database",
            )


def _table(console: Console, report: Report, title: str, name: str, yardstick: str = "", against: str = "") -> None:
    connections = report.connections(name)
    if not connections:
        return
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    table.add_column("connections", justify="right")
    table.add_column("", no_wrap=True)
    for column in (*_COLUMNS, "ratio", "p99 x"):
        table.add_column(column, justify="right")
    for count in connections:
        own = [_figure(report.of(name, count, value)) for value in _COLUMNS.values()]
        if yardstick:
            ratios = [report.ratio(name, yardstick, count, value) for value in (rate, p99)]
            own += [f"{ratio:.2f}" for ratio in ratios]
        table.add_row(str(count), name.split()[-1], *own)
        if yardstick:
            table.add_row(
                "",
                f"[dim]{against}[/]",
                *(f"[dim]{_figure(report.of(yardstick, count, value))}[/]" for value in _COLUMNS.values()),
            )
    console.print()
    console.print(table)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def write(report: Report) -> Path:
    """Write the report as JSON into bench-results/ and return the file."""
    directory = Path("bench-results")
    directory.mkdir(exist_ok=True)
    path = directory / f"append-{report.at:%Y%m%dT%H%M%SZ}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    return path
