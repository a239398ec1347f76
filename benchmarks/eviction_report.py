"""The benchmark's outcomes as tables, JSON and two plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.eviction_figures import Figure, Ratio, compare, figure, group
from benchmarks.eviction_replay import END, LAGS, SHARES, Outcome, Timing

Results = Mapping[str, Sequence[Outcome]]
BASELINE = "fifo"


def at(outcomes: Sequence[Outcome], share: float, lag: int, category: str | None = None) -> list[Outcome]:
    """Return the outcomes at one budget and lag."""
    return [
        one
        for one in outcomes
        if one.share == share and one.lag == lag and (category is None or one.category == category)
    ]


def _lag(lag: int) -> str:
    return "end" if lag == END else f"+{lag}"


def _share(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _ratio(one: Ratio) -> str:
    """Format a ratio; against almost nothing it has no upper bound, and says little."""
    high = f"{one.ratio_high:.2f}" if one.ratio_high < float("inf") else "∞"
    return f"{one.ratio:.2f} [dim]{one.ratio_low:.2f}-{high}[/]"


def _cell(one: Figure) -> str:
    return f"{one.fractional:.3f} [dim]{one.low:.2f}-{one.high:.2f}[/]"


def ranked(results: Results) -> list[str]:
    """Return the rules by their recall at the end and 10 %, best first."""
    return sorted(results, key=lambda name: -figure(at(results[name], 0.10, END)).fractional)


def merged(results: Results) -> dict[str, Sequence[Outcome]]:
    """Join the rules that did the same throughout, as most caching policies do when nothing is touched."""
    groups: dict[tuple[tuple[float, ...], ...], list[str]] = {}
    for name in sorted(results, key=lambda name: (name != BASELINE, name)):
        groups.setdefault(tuple((one.found, one.tokens) for one in results[name]), []).append(name)
    return {" = ".join(names): results[names[0]] for names in groups.values()}


def print_recall(console: Console, results: Results, title: str) -> None:
    """Print recall at the end by budget, and by lag."""
    table = Table(title=f"{title}: fractional recall at the end, with 95 % interval")
    table.add_column("rule", overflow="fold", max_width=34)
    for share in SHARES:
        table.add_column(_share(share), justify="right")
    table.add_column("x fifo at 10 %", justify="right")
    table.add_column("x fifo at 25 %", justify="right")
    table.add_column("any / all at 10 %", justify="right")
    joined = merged(results)
    for name in ranked(joined):
        outcomes = joined[name]
        ratios = [compare(at(outcomes, share, END), at(results[BASELINE], share, END)) for share in (0.10, 0.25)]
        tenth = figure(at(outcomes, 0.10, END))
        table.add_row(
            name,
            *(_cell(figure(at(outcomes, share, END))) for share in SHARES),
            *(_ratio(one) for one in ratios),
            f"{tenth.any:.3f} / {tenth.all:.3f}",
        )
    console.print(table)
    for share in (0.10, 0.25):
        table = Table(title=f"{title}: fractional recall so many events after the last evidence, at {_share(share)}")
        table.add_column("rule", overflow="fold", max_width=34)
        for lag in (*LAGS, END):
            table.add_column(_lag(lag), justify="right")
        for name in ranked(joined):
            cells = [at(joined[name], share, lag) for lag in (*LAGS, END)]
            table.add_row(name, *(_cell(figure(rows)) if rows else "-" for rows in cells))
        console.print(table)
    categories = sorted({one.category for one in results[BASELINE]})
    table = Table(title=f"{title}: fractional recall at the end by category, at 10 % / 25 %")
    table.add_column("rule", overflow="fold", max_width=34)
    for category in categories:
        count = len(at(results[BASELINE], 0.10, END, category))
        table.add_column(f"{category} ({count})", justify="right")
    for name in ranked(joined):
        cells_ = [
            [figure(at(joined[name], share, END, one)).fractional for share in (0.10, 0.25)] for one in categories
        ]
        table.add_row(name, *(f"{tenth:.3f} / {quarter:.3f}" for tenth, quarter in cells_))
    console.print(table)


def print_costs(console: Console, results: Results, timings: Mapping[str, Timing]) -> None:
    """Print what each rule used of its budget, and its time."""
    table = Table(title="Cost (times are noisy; a bound's append or assembly is not a policy's)")
    table.add_column("rule")
    for heading in ("tokens at 10 %, end", "µs an append", "µs an assembly"):
        table.add_column(heading, justify="right")
    for name in ranked(results):
        tokens = figure(at(results[name], 0.10, END)).tokens
        table.add_row(name, f"{tokens:,.0f}", f"{timings[name].append_us:.1f}", f"{timings[name].assembly_us:.1f}")
    console.print(table)


def as_json(results: Results, timings: Mapping[str, Timing]) -> dict[str, Any]:
    """Return every figure: rule -> rows of share, lag and category."""
    found: dict[str, Any] = {}
    for name, outcomes in results.items():
        rows = []
        for (share, lag), part in sorted(group(outcomes, lambda one: (one.share, one.lag)).items()):
            by_category = {"all": part, **group(part, lambda one: one.category)}
            rows += [
                {"share": share, "lag": _lag(lag), "category": category, **figure(some)._asdict()}
                for category, some in by_category.items()
            ]
        found[name] = {
            "figures": rows,
            "append_us": timings[name].append_us,
            "assembly_us": timings[name].assembly_us,
            "against_fifo": {
                _share(share): compare(at(outcomes, share, END), at(results[BASELINE], share, END))._asdict()
                for share in SHARES
            },
        }
    return found


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write a report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
