"""Items as OpenAI's SDK asks for them, against the same calls in our own words, on one server in turns.

What is compared is the server's work for one request: the SDK's own (building and parsing its models) is left out.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from benchmarks import generators
from benchmarks.load import TEXT, Orders
from benchmarks.measure import Measured, measure
from benchmarks.serving import Serving, scratch

CONNECTIONS: Final = (1, 8)
HELD: Final = 200  # events of the conversations that are read
_SDK: Final = b"x-stainless-retry-count: 0\r\n"  # a first attempt, which is written down
# Each call in our words, and as an item.
CALLS: Final = ("append", "list", "list_first", "one")


class Items:
    """One server and its conversations, of one event in turns with its item."""

    def __init__(self, serving: Serving, seconds: float) -> None:
        self.serving = serving
        self.seconds = seconds
        self.written = {view: serving.conversations(max(CONNECTIONS)) for view in ("events", "items")}
        self.read = serving.conversations(max(CONNECTIONS))
        self.last: dict[str, str] = {}
        for name in self.read:
            body = {"events": [{"role": "user", "content": TEXT}] * HELD}
            answer = serving.client.post(f"/v1/conversations/{name}/events", json=body).raise_for_status()
            self.last[name] = answer.json()["events"][-1]["id"]

    def requests(self, call: str, view: str, connections: int) -> list[bytes]:
        """Return one request for each connection."""
        if call == "append":
            body = {view: [{"role": "user", "content": TEXT}]}
            posts = [
                self.serving.request("POST", f"/v1/conversations/{name}/{view}", body)
                for name in self.written[view][:connections]
            ]
            return (
                posts if view == "events" else [post.replace(b"Content-Type", _SDK + b"Content-Type") for post in posts]
            )
        ending = {"list": "?order=desc&limit=20", "list_first": "?order=asc&limit=20"}.get(call)
        return [
            self.serving.request("GET", f"/v1/conversations/{name}/{view}{ending or self._one(name, view)}")
            for name in self.read[:connections]
        ]

    def _one(self, name: str, view: str) -> str:
        last = self.last[name]
        return f"/{last if view == 'events' else last.replace('evt', 'msg', 1)}"

    def run(self, call: str, view: str, connections: int) -> Measured:
        """Repeat a call over a number of connections."""
        requests = self.requests(call, view, connections)
        orders = Orders(self.serving.host, self.serving.port, connections, 0.3, self.seconds, requests)
        return measure(self.serving, lambda: generators.own(orders))


def median(runs: Sequence[Measured], of: str) -> float:
    """Return the median of a figure over runs; ``cost`` is the server's processor time, in microseconds."""
    return statistics.median(run.python + run.postgres if of == "cost" else getattr(run.figures, of) for run in runs)


Compared = Mapping[tuple[str, int, str], list[Measured]]


def compare(directory: Path, seconds: float, rounds: int, flags: Sequence[str] = ()) -> Compared:
    """Measure each call in both words, in turns, on a server of its own: by call, connections, and words."""
    runs: defaultdict[tuple[str, int, str], list[Measured]] = defaultdict(list)
    with Serving(directory / "items", flags=list(flags)) as serving:
        items = Items(serving, seconds)
        for number in range(rounds):
            for call in CALLS:
                for connections in CONNECTIONS:
                    for view in ("events", "items") if number % 2 else ("items", "events"):
                        runs[call, connections, view].append(items.run(call, view, connections))
    return runs


def table(runs: Compared) -> Table:
    """Return the figures; costs are the server's processor time for one call, in microseconds."""
    shown = Table(title="\nItems (OpenAI's Conversations API) against events", title_justify="left", title_style="bold")
    for column in ("", "events/s", "items/s", "rate", "cost of an event", "of an item", "cost"):
        shown.add_column(column, justify="right")
    for call in CALLS:
        for connections in CONNECTIONS:
            events, seen = runs[call, connections, "events"], runs[call, connections, "items"]
            rates, costs = ([median(one, of) for one in (events, seen)] for of in ("rate", "cost"))
            shown.add_row(
                f"{call} x{connections}",
                *(f"{rate:,.0f}" for rate in rates),
                f"{rates[1] / rates[0]:.2f}",
                *(f"{cost:,.0f} us" for cost in costs),
                f"{costs[1] / costs[0]:.2f}",
            )
    return shown


@click.command()
@click.option("--seconds", default=2.0, show_default=True, help="How long each run lasts.")
@click.option("--rounds", default=5, show_default=True, help="How often everything is repeated; figures are medians.")
def main(seconds: float, rounds: int) -> None:
    """Measure items against events, and nothing else of benchmarks/append.py."""
    with scratch() as directory:
        compared = compare(directory, seconds, rounds)
    Console(width=120).print(table(compared))


if __name__ == "__main__":
    main()
