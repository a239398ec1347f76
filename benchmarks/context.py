"""Working sets and contexts over HTTP, against a static route of the same server that returns the same bytes.

Two servers run side by side: one as it is, one that writes no snapshots and keeps nothing of appends in memory. Each
ratio compares two runs of the same round, moments apart; the table shows medians over the rounds. Last, a conversation
of a million events is loaded, checkpointed by the server, and read first thing after a restart.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
import psutil
import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks import bulk, generators
from benchmarks.load import TEXT, Orders
from benchmarks.measure import Measured, measure
from benchmarks.serving import Serving, scratch
from server.database.ids import ConversationId, uuid7

CONNECTIONS = (1, 8, 32)
EVENTS = 400  # of each conversation that is read
_BARE = ("--without", "snapshots", "--without", "write-through")
_SERVED = "benchmarks.served"


class Report(msgspec.Struct, kw_only=True):
    """Everything measured in one run: runs by ``name xCONNECTIONS``; first reads in milliseconds, sizes in bytes."""

    at: datetime
    processors: int
    load: float
    seconds: float
    rounds: int
    sizes: dict[str, int] = {}
    runs: dict[str, list[Measured]] = {}
    events: int = 0
    checkpointed: float = 0.0
    first_reads: list[float] = []

    def ratio(self, name: str, yardstick: str, connections: int, value: Callable[[Measured], float]) -> float:
        """Return the median, over the rounds, of one figure relative to the yardstick's in the same round."""
        pairs = zip(self.runs[f"{name} x{connections}"], self.runs[f"{yardstick} x{connections}"], strict=True)
        return statistics.median(value(own) / value(other) for own, other in pairs)

    def of(self, name: str, connections: int, value: Callable[[Measured], float]) -> float:
        """Return the median over the rounds."""
        return statistics.median(value(measured) for measured in self.runs[f"{name} x{connections}"])


def _rate(measured: Measured) -> float:
    return measured.figures.rate


def _python(measured: Measured) -> float:
    return measured.python


def _p50(measured: Measured) -> float:
    return measured.figures.p50


class Bench:
    """One server with conversations to read and to append to."""

    def __init__(self, serving: Serving, seconds: float) -> None:
        self.serving = serving
        self.seconds = seconds
        self.read = serving.conversations(max(CONNECTIONS))
        self.appended = serving.conversations(max(CONNECTIONS))
        contents = bulk.contents(random.Random(1), EVENTS)
        events = [
            {"role": ("user", "assistant")[number % 2], "content": msgspec.Raw(content.encode())}
            for number, content in enumerate(contents)
        ]
        body = msgspec.json.encode({"events": events})
        for name in [*self.read, *self.appended]:
            serving.client.post(f"/v1/conversations/{name}/events", content=body).raise_for_status()
        self.working_set = self._kept("working_set", serving.client.get(self._path("working-set")).content)
        self.context = self._kept("context", serving.client.post(self._path("context"), json={}).content)
        for name in self.appended:  # an append costs more where somebody reads
            serving.client.get(f"/v1/conversations/{name}/working-set").raise_for_status()
            serving.client.get(f"/v1/conversations/{name}/events?order=desc").raise_for_status()

    def _path(self, what: str) -> str:
        return f"/v1/conversations/{self.read[0]}/{what}"

    def _kept(self, name: str, body: bytes) -> int:
        self.serving.client.put(f"/bench/{name}", content=body).raise_for_status()
        return len(body)

    def runs(self) -> Iterator[tuple[str, Callable[[int], Measured]]]:
        """Return what is measured on this server, what is compared side by side."""
        request = self.serving.request
        head = f"?min_seq={EVENTS}"

        def paths(what: str) -> list[str]:
            return [f"/v1/conversations/{name}/{what}" for name in self.read]

        asked = [request("POST", path, {}) for path in paths("context")]
        asked_seq = [request("POST", path, {"min_seq": EVENTS}) for path in paths("context")]
        event = {"events": [{"role": "user", "content": TEXT}]}
        appends = [request("POST", f"/v1/conversations/{name}/events", event) for name in self.appended]
        yield "static working set", lambda count: self._load(count, [request("GET", "/bench/working_set")])
        yield "working set", lambda count: self._load(count, [request("GET", path) for path in paths("working-set")])
        yield (
            "working set, min_seq",
            lambda count: self._load(count, [request("GET", path + head) for path in paths("working-set")]),
        )
        yield "static context", lambda count: self._load(count, [request("GET", "/bench/context")])
        yield "context", lambda count: self._load(count, asked)
        yield "context, min_seq", lambda count: self._load(count, asked_seq)
        yield "append", lambda count: self._load(count, appends[:count])

    def _load(self, connections: int, requests: list[bytes]) -> Measured:
        orders = Orders(self.serving.host, self.serving.port, connections, 0.3, self.seconds, requests)
        return measure(self.serving, lambda: generators.own(orders))


def compare(benches: dict[str, Bench], rounds: int, console: Console) -> dict[str, list[Measured]]:
    """Run everything, the servers in turns."""
    runs: defaultdict[str, list[Measured]] = defaultdict(list)
    plans = {label: dict(bench.runs()) for label, bench in benches.items()}
    for number in range(rounds + 1):
        for name in plans[""]:
            for connections in CONNECTIONS:
                for label in sorted(plans, reverse=number % 2 == 1):
                    if label and not name.startswith(("context", "append")):
                        continue
                    measured = plans[label][name](connections)
                    if number:  # the first round warms up
                        runs[f"{label}{name} x{connections}"].append(measured)
                    rate = f"{measured.figures.rate:,.0f}/s"
                    console.print(f"[dim]{label}{name} x{connections}: {rate}[/]", highlight=False)
    return runs


def first_reads(directory: Path, events: int, console: Console) -> tuple[float, list[float]]:
    """Load one long conversation, wait for its checkpoints, and read it first thing after a restart, a few times.

    Returns the seconds that the checkpoints took, and the milliseconds of the reads.
    """
    at = ConversationId(1, uuid7())
    data = directory / "long"
    with Serving(data) as serving, psycopg.connect(serving.postgres().conninfo("postgres")) as connection:
        _load(connection, at, events)
        console.print(f"[dim]loaded one conversation of {events:,} events[/]", highlight=False)
    began = time.perf_counter()
    with Serving(data) as serving, psycopg.connect(serving.postgres().conninfo("postgres")) as connection:
        connection.autocommit = True
        while (newest := _newest(connection, at)) < events - 1000:
            console.print(f"[dim]checkpointed up to {newest:,}[/]", highlight=False)
            time.sleep(10)
    checkpointed = time.perf_counter() - began
    found = []
    for _ in range(3):
        with Serving(data) as serving:
            serving.client.get("/v1/policies").raise_for_status()  # the connection and the key are no part of it
            sent = time.perf_counter()
            serving.client.get(f"/v1/conversations/{at}/working-set").raise_for_status()
            found.append((time.perf_counter() - sent) * 1000)
    return checkpointed, found


def _newest(connection: psycopg.Connection, at: ConversationId) -> int:
    row = connection.execute("SELECT coalesce(max(head), 0) FROM checkpoint WHERE conversation = %s", (at.uuid,))
    (newest,) = row.fetchone() or (0,)
    return int(newest)


def _load(connection: psycopg.Connection, at: ConversationId, events: int) -> None:
    texts = bulk.contents(random.Random(1), 5000)
    with connection.cursor() as cursor:
        with cursor.copy(bulk.CONVERSATION) as copy:
            copy.write(f"{at.user_key}\t{at.uuid}\t1\tlong\t{events}\t2026-01-01\t2026-01-01\n")
        with cursor.copy(bulk.EVENT) as copy:
            for seq in range(1, events + 1):
                role, text = ("user", "assistant")[seq % 2], texts[seq % len(texts)]
                row = f"{at.user_key}\t{at.uuid}\t{seq}\t2026-01-01\t2026-01-01\t1\tmessage\t{role}\t{text}\n"
                copy.write(row)
    connection.commit()
    connection.autocommit = True
    for statement in ("VACUUM (ANALYZE, FREEZE) event", "CHECKPOINT"):
        connection.execute(statement)


def show(console: Console, report: Report) -> None:
    """Print the figures."""
    console.print(
        f"\n{report.processors} processors (load average {report.load:.1f} at the start), one server process, "
        f"{report.rounds} rounds of {report.seconds:g} s; conversations of {EVENTS} events; the load generator shares "
        f"the processors. A working set is {report.sizes['working_set']:,} bytes, a context "
        f"{report.sizes['context']:,}.",
        highlight=False,
    )
    reads = (
        ("working set", "static working set"),
        ("working set, min_seq", "static working set"),
        ("bare context", "static context"),
        ("bare context, min_seq", "static context"),
        ("context", "static context"),
        ("context, min_seq", "static context"),
        ("append", "bare append"),
    )
    table = Table("", "connections", "per s", "p50 ms", "p99 ms", "python us", "against", "rate x", "p50 x", "python x")
    for column in table.columns[1:6]:
        column.justify = "right"
    for name, yardstick in reads:
        for connections in CONNECTIONS:
            table.add_row(
                name.replace("bare context", "context, no snapshot"),
                str(connections),
                f"{report.of(name, connections, _rate):,.0f}",
                f"{report.of(name, connections, _p50):.2f}",
                f"{report.of(name, connections, lambda measured: measured.figures.p99):.2f}",
                f"{report.of(name, connections, _python):,.0f}",
                yardstick.replace("bare append", "append, no write-through"),
                f"{report.ratio(name, yardstick, connections, _rate):.2f}",
                f"{report.ratio(name, yardstick, connections, _p50):.2f}",
                f"{report.ratio(name, yardstick, connections, _python):.2f}",
            )
        table.add_section()
    console.print(table)
    if report.first_reads:
        console.print(
            f"A conversation of {report.events:,} events: checkpointed in {report.checkpointed:.0f} s by an idle "
            f"server; first read after a restart in {', '.join(f'{one:.0f}' for one in report.first_reads)} ms.",
            highlight=False,
        )


@click.command()
@click.option("--seconds", default=2.0, show_default=True, help="How long each run lasts.")
@click.option("--rounds", default=3, show_default=True, help="How often everything is repeated; figures are medians.")
@click.option("--events", default=1_000_000, show_default=True, help="Of the long conversation; 0 leaves it out.")
def main(seconds: float, rounds: int, events: int) -> None:
    """Measure working sets and contexts against a static route of the same server."""
    console = Console(width=132)
    report = Report(
        at=datetime.now(UTC),
        processors=psutil.cpu_count() or 0,
        load=psutil.getloadavg()[0],
        seconds=seconds,
        rounds=rounds,
    )
    with scratch() as directory, ExitStack() as stack:
        programs = {"": (_SERVED,), "bare ": (_SERVED, *_BARE)}
        benches = {
            label: Bench(stack.enter_context(Serving(directory / (label.strip() or "full"), program=program)), seconds)
            for label, program in programs.items()
        }
        report.sizes = {"working_set": benches[""].working_set, "context": benches[""].context}
        report.runs = compare(benches, rounds, console)
        stack.close()
        if events:
            report.events = events
            report.checkpointed, report.first_reads = first_reads(directory, events, console)
    show(console, report)
    path = Path("bench-results") / f"context-{report.at:%Y%m%dT%H%M%SZ}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    console.print(f"\nwritten: {path}", highlight=False)


if __name__ == "__main__":
    main()
