"""What ``turnstone embeddings compare`` shows: the gates first, then what they rest on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_WIDEST: Final = 140
_OUTCOMES: Final = {"pass": "green", "warn": "yellow", "fail": "bold red"}
_EXAMPLES: Final = 5
_QUESTION: Final = 200  # characters

Report = Mapping[str, Any]


def show(report: Report, console: Console | None = None) -> None:
    """Print a comparison as `Measured.report` gives it."""
    if console is None:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDEST)
        console.width = min(console.width, _WIDEST)
    for part in parts(report):
        console.print(part)


def parts(report: Report) -> Iterable[RenderableType]:
    """Return what is printed, in order."""
    compared = report["compared"]
    yield Text.assemble(
        (report["new"], "bold"),
        " against ",
        (report["old"], "bold"),
        f": {report['asked']:,} golden questions, {report['shadowed']:,} searches of the shadow",
    )
    yield from _gates(report["gates"])
    if compared["golden"] is not None:
        yield from _recalls(compared["golden"])
    if compared["agreements"] is not None:
        yield from _agreements(compared["agreements"], compared["floor"])
    yield from _latency(compared["latency"], compared["shadowing"])
    yield from _scores(report["scores"], report["thresholds"])
    yield from _examples(report["examples"])


def _gates(gates: Sequence[Report]) -> Iterable[RenderableType]:
    table = _table("Gates", "gate", "segment", "outcome", "why")
    # What fails is what is looked for.
    for one in sorted(gates, key=lambda gate: ("fail", "warn", "pass").index(gate["outcome"])):
        outcome = Text(one["outcome"], _OUTCOMES[one["outcome"]])
        table.add_row(one["name"], escape(one["segment"]), outcome, escape(one["why"]))
    yield table
    failed = sum(one["outcome"] == "fail" for one in gates)
    if failed:
        yield Text(f"{failed} of {len(gates)} gates fail", "bold red")
    else:
        yield Text("All gates pass", "bold green")


def _recalls(golden: Report) -> Iterable[RenderableType]:
    approval = "approved" if golden["approved"] else "not approved"
    title = f"Recall on the golden set {golden['name']} (version {golden['version']}, {approval})"
    table = _table(title, "segment", "questions", "old", "new", "difference", "95 % interval", numbers=range(1, 6))
    for one in golden["recalls"]:
        found = one["interval"]
        table.add_row(
            escape(one["segment"]),
            f"{found['questions']:,}",
            f"{found['old']:.3f}",
            f"{found['new']:.3f}",
            f"{found['difference']:+.3f}",
            f"{found['low']:+.3f} to {found['high']:+.3f}",
        )
    yield table
    if golden["recalls"]:
        first = golden["recalls"][0]
        by = "users or conversations" if first["interval"]["by"] == "group" else "questions"
        yield Text(f"recall@{first['k']}; intervals by drawing {by} anew, in pairs", "dim")


def _agreements(found: Report, floor: Report | None) -> Iterable[RenderableType]:
    for leg, title in (("dense", "Agreement of the vectors alone"), ("final", "Agreement of the final ranking")):
        noise = {} if floor is None else {one["segment"]: one for one in floor[leg]}
        names = ("segment", "searches", "overlap@10", "rank-biased", "swapped", "overlap A/A", "rank-biased A/A")
        table = _table(title, *names, numbers=range(1, 7))
        for one in found[leg]:
            still = noise.get(one["segment"])
            table.add_row(
                escape(one["segment"]),
                f"{one['searches']:,}",
                f"{one['overlap']:.3f}",
                f"{one['rbo']:.3f}",
                f"{one['swaps']:.3f}",
                "-" if still is None else f"{still['overlap']:.3f}",
                "-" if still is None else f"{still['rbo']:.3f}",
            )
        yield table
    yield Text("A/A: the old version against its own indexes, loaded anew", "dim")


def _latency(latency: Report | None, shadowing: Report | None) -> Iterable[RenderableType]:
    if latency is not None:
        yield Text.assemble(
            ("Latency  ", "bold"),
            f"p50 {latency['old_p50']:.1f} → {latency['new_p50']:.1f} ms, "
            f"p95 {latency['old_p95']:.1f} → {latency['new_p95']:.1f} ms over {latency['searches']:,} searches",
        )
    if shadowing is not None:
        yield Text.assemble(
            ("Shadow   ", "bold"),
            f"{shadowing['answered']:,} answered, {shadowing['errors']:,} failed, {shadowing['dropped']:,} left out",
        )


def _scores(scores: Report | None, thresholds: Sequence[Report]) -> Iterable[RenderableType]:
    if scores is not None:
        names = ("cosines of the best", "mean", "deviation", "1 %", "5 %", "25 %", "50 %", "75 %", "95 %", "99 %")
        table = _table("Scores", *names, numbers=range(1, 10))
        for name in ("old", "new"):
            one = scores[name]
            quantiles = [f"{value:.3f}" for value in one["quantiles"]]
            table.add_row(name, f"{one['mean']:.3f}", f"{one['deviation']:.3f}", *quantiles)
        yield table
    if not thresholds:
        yield Text("No threshold is on a model's scale: none is to be recalibrated", "dim")
        return
    table = _table("Thresholds", "threshold", "old", "new", "why", numbers=(1, 2))
    for one in thresholds:
        value = "-" if one["value"] is None else f"{one['value']:.4f}"
        table.add_row(escape(one["name"]), f"{one['old']:.4f}", value, escape(one["why"]))
    yield table


def _examples(examples: Sequence[Report]) -> Iterable[RenderableType]:
    if not examples:
        return
    yield Text("\nThe largest disagreements", "bold")
    for one in examples[:_EXAMPLES]:
        asked = one["question"] or f"{one['id']} (its words are not kept)"
        named = ", ".join(one["segments"])
        yield Text.assemble(
            (f"“{asked[:_QUESTION]}”", "cyan"), f"  overlap {one['overlap']:.2f}, rank-biased {one['rbo']:.2f}"
        )
        yield Text(f"  {named}", "dim")
        right = set(one["evidence"])
        for name in ("old", "new"):
            ids = (Text.assemble(_short(event), (" ✓" if event in right else "", "green")) for event in one[name])
            yield Text.assemble(f"  {name}  ", Text("  ").join(ids))


def _short(event: str) -> str:
    """Return an event's name with the end of its conversation's id only: they begin alike."""
    at, _, seq = event.rpartition(":")
    return f"…{at[-8:]}:{seq}"


def _table(title: str, *names: str, numbers: Iterable[int] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    right = set(numbers)
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place in right else "left", overflow="fold")
    return table
