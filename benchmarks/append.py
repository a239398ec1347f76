"""Appends and reads over HTTP against pgbench and bare psycopg, on the same database with the same durability; and
items, as OpenAI's SDK asks for them, against the same calls in our own words.

Each ratio compares two runs of the same round, moments apart, and the tables show medians over the rounds: on a shared
machine absolute rates come and go, ratios much less.
"""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import click
import msgspec
import psutil
import psycopg
from rich.console import Console

from benchmarks import bulk, generators, items, pgbench, report
from benchmarks.bare import Orders as BareOrders
from benchmarks.load import TEXT, Orders
from benchmarks.measure import Measured, measure
from benchmarks.serving import Serving, scratch

CONNECTIONS = (1, 8, 16, 32)
BATCHING = (1, 8)
READING = (1, 8, 32)
BATCH = 100
READ_LENGTH = 200  # events of the conversations that are read


class Bench:
    """One server, and what is measured on it."""

    def __init__(self, serving: Serving, generate: generators.Generator, seconds: float, directory: Path) -> None:
        self.serving = serving
        self.postgres = serving.postgres()
        self.generate = generate
        self.seconds = seconds
        self.directory = directory
        self.uuid = uuid4()
        most = max(CONNECTIONS)
        self.appended = serving.conversations(most)
        self.batched = serving.conversations(8)
        self.shared = serving.conversations(1)
        self.read = self._readable(most)

    def bare_insert(self, clients: int) -> Measured:
        """Insert single events with pgbench, and nothing else."""
        return self.pgbench(pgbench.BARE_INSERT, clients)

    def superuser(self) -> psycopg.Connection:
        """Connect to the server's database as its superuser."""
        return psycopg.connect(self.postgres.conninfo("postgres"))

    def _readable(self, count: int) -> list[str]:
        made = self.serving.conversations(count)
        event = {"role": "user", "content": TEXT}
        for name in made:
            body = {"events": [event] * READ_LENGTH}
            self.serving.client.post(f"/v1/conversations/{name}/events", json=body).raise_for_status()
        with self.superuser() as connection:
            content = msgspec.json.encode(TEXT).decode()
            bulk.fixed(connection, uuid=self.uuid, keys=count, length=READ_LENGTH, text=content)
        return made

    def http(self, connections: int, requests: list[bytes]) -> Measured:
        """Repeat requests over a number of connections."""
        orders = Orders(self.serving.host, self.serving.port, connections, 0.5, self.seconds, requests)
        return measure(self.serving, lambda: self.generate(orders))

    def append(self, connections: int) -> Measured:
        """Append single events, each connection to its own conversation."""
        return self.http(connections, self._appends(self.appended[:connections], 1))

    def append_shared(self, connections: int) -> Measured:
        """Append single events, all connections to one conversation."""
        return self.http(connections, self._appends(self.shared, 1))

    def append_batch(self, connections: int) -> Measured:
        """Append batches of events."""
        return self.http(connections, self._appends(self.batched[:connections], BATCH))

    def _appends(self, conversations: list[str], count: int) -> list[bytes]:
        body = {"events": [{"role": "user", "content": TEXT}] * count}
        return [self.serving.request("POST", f"/v1/conversations/{name}/events", body) for name in conversations]

    def read_last(self, connections: int) -> Measured:
        """Read the last 50 events."""
        paths = [f"/v1/conversations/{name}/events?order=desc&limit=50" for name in self.read]
        return self.http(connections, [self.serving.request("GET", path) for path in paths])

    def static(self, connections: int) -> Measured:
        """Fetch /healthz, which asks nobody."""
        return self.http(connections, [self.serving.request("GET", "/healthz")])

    def pgbench(self, script: str, clients: int) -> Measured:
        """Run a pgbench script."""
        content = pgbench.quoted(msgspec.json.encode(TEXT).decode())
        filled = script.format(uuid=uuid4(), content=content)
        return self._pgbench(filled, clients)

    def pgbench_full(self, clients: int) -> Measured:
        """Run the whole append in pgbench, on fresh conversations."""
        uuid, text = uuid4(), msgspec.json.encode(TEXT).decode()
        with self.superuser() as connection:
            bulk.fixed(connection, uuid=uuid, keys=clients, length=0, text=text)
        return self._pgbench(pgbench.FULL_APPEND.format(uuid=uuid, content=pgbench.quoted(text)), clients)

    def pgbench_read(self, clients: int) -> Measured:
        """Run the plain SQL of a read of the last 50 in pgbench."""
        return self._pgbench(pgbench.LAST_50.format(uuid=self.uuid, count=max(CONNECTIONS)), clients)

    def _pgbench(self, script: str, clients: int) -> Measured:
        run = pgbench.run
        return measure(
            self.serving,
            lambda: run(self.postgres, script, clients=clients, seconds=self.seconds, directory=self.directory),
        )

    def bare_batch(self, connections: int) -> Measured:
        """Insert the same batches through psycopg."""
        contents = [msgspec.json.encode(TEXT).decode()] * BATCH
        conninfo = self.postgres.conninfo("turnstone_runtime")
        orders = BareOrders(conninfo, connections, self.seconds, contents)
        return measure(self.serving, lambda: generators.bare(orders))


Runs = defaultdict[tuple[str, int], list[Measured]]


def compare(bench: Bench, runs: Runs, console: Console, *, first: bool) -> None:
    """Run everything once, what is compared side by side."""
    plan: list[tuple[str, tuple[int, ...]]] = []
    for connections in CONNECTIONS:
        plan += [("bare_insert", (connections,)), ("append", (connections,))]
        if first:
            plan.append(("pgbench_full", (connections,)))
    plan.append(("append_shared", CONNECTIONS[-1:]))
    for connections in BATCHING:
        plan += [("bare_batch", (connections,)), ("append_batch", (connections,))]
    for connections in READING:
        plan += [(name, (connections,)) for name in ("pgbench_read", "static", "read_last")]
    run(bench, runs, console, plan)


def run(bench: Bench, runs: Runs, console: Console, plan: list[tuple[str, tuple[int, ...]]], label: str = "") -> None:
    """Run benchmarks by name, each over some numbers of connections."""
    for name, several in plan:
        for connections in several:
            measured: Measured = getattr(bench, name)(connections)
            runs[label + name, connections].append(measured)
            console.print(f"[dim]{label}{name} x{connections}: {measured.figures.rate:,.0f}/s[/]", highlight=False)


@click.command()
@click.option("--seconds", default=2.0, show_default=True, help="How long each run lasts.")
@click.option("--rounds", default=3, show_default=True, help="How often everything is repeated; figures are medians.")
@click.option("--loaded", default=200_000, show_default=True, help="Events in the loaded database; 0 leaves it out.")
@click.option("--workers", default=1, show_default=True, help="Server processes.")
@click.option("--generator", type=click.Choice(sorted(generators.BY_NAME)), default="own", show_default=True)
def main(seconds: float, rounds: int, loaded: int, workers: int, generator: str) -> None:
    """Measure appends and reads over HTTP against PostgreSQL's own pgbench and bare psycopg."""
    console = Console(width=132)
    generate = generators.BY_NAME[generator]
    flags = ["--workers", str(workers)]
    runs: Runs = defaultdict(list)
    result = report.Report(
        at=datetime.now(UTC),
        processors=psutil.cpu_count() or 0,
        load=psutil.getloadavg()[0],
        generator=generator,
        workers=workers,
        seconds=seconds,
        rounds=rounds,
        loaded=loaded,
    )
    with scratch() as directory:
        data = directory / "main"
        with Serving(data, flags=flags) as serving:
            result.cold_start = serving.first_answer
        with Serving(data, flags=flags) as serving:
            result.second_start = serving.first_answer
            time.sleep(2)
            memory = serving.memory()
            result.idle_python, result.idle_postgres = memory
            bench = Bench(serving, generate, seconds, directory)
            for number in range(rounds):
                compare(bench, runs, console, first=number == 0)
        if loaded:
            _compare_loaded(directory, generate, seconds, rounds, loaded, flags, runs, console)
        compared = items.compare(directory, seconds, rounds, flags)
    result.runs = {f"{name} x{connections}": several for (name, connections), several in runs.items()}
    report.show(console, result)
    console.print(items.table(compared))
    result.runs |= {f"{call} {view} x{connections}": several for (call, connections, view), several in compared.items()}
    console.print(f"\nwritten: {report.write(result)}", highlight=False)


def _compare_loaded(
    directory: Path,
    generate: generators.Generator,
    seconds: float,
    rounds: int,
    events: int,
    flags: list[str],
    runs: Runs,
    console: Console,
) -> None:
    """Run an empty server and a loaded one in turns, so that both meet the same disturbances."""
    with Serving(directory / "empty", flags=flags) as empty, Serving(directory / "loaded", flags=flags) as full:
        began = time.perf_counter()
        with psycopg.connect(full.postgres().conninfo("postgres")) as connection:
            salt = connection.execute("SELECT salt FROM tenant WHERE id = 1").fetchone()
            assert salt is not None
            bulk.load(connection, salt=bytes(salt[0]), events=events)
        console.print(f"[dim]loaded {events:,} events in {time.perf_counter() - began:.0f} s[/]", highlight=False)
        benches = {
            "empty ": Bench(empty, generate, seconds, directory),
            "loaded ": Bench(full, generate, seconds, directory),
        }
        plan = [("append", (1, 32)), ("read_last", (32,))]
        for number in range(rounds + 1):
            order = sorted(benches, reverse=number % 2 == 1)
            for label in order:
                # The first round only warms up: a database that was just filled has cold caches.
                run(benches[label], runs if number else defaultdict(list), console, plan, label)


if __name__ == "__main__":
    main()
