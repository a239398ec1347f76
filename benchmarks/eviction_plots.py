"""Two plots that a person reads at a glance: recall against budget, and recall against lag."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.eviction_figures import figure
from benchmarks.eviction_replay import END, LAGS, SHARES, Outcome
from benchmarks.eviction_report import BASELINE, Results, at, merged, ranked

# Okabe and Ito's colours, which the colour-blind can tell apart; chance and foresight are grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#5D3A9B")
_BOUNDS = ("random", "clairvoyant", "belady")


def draw(results: Results, directory: Path, title: str, prefix: str) -> list[Path]:
    """Write both plots as PNG; nothing without matplotlib, which `make install` leaves out."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return []
    mpl.use("Agg")
    joined = merged(results)
    by_budget = [(share * 100, share, END) for share in SHARES]
    by_lag = [(float(place), 0.10, lag) for place, lag in enumerate((*LAGS, END))]
    return [
        _draw(
            joined,
            by_budget,
            directory / f"{prefix}-budget.png",
            title=f"{title}: recall at the end of the conversation",
            label="budget, % of the conversation's tokens (bands: 95 % intervals)",
            ticks=[f"{share * 100:.0f}" for share in SHARES],
            logarithmic=True,
        ),
        _draw(
            joined,
            by_lag,
            directory / f"{prefix}-lag.png",
            title=f"{title}: recall at 10 % of the tokens seen so far",
            label="events since the last evidence (bands: 95 % intervals)",
            ticks=[*(str(lag) for lag in LAGS), "end"],
            logarithmic=False,
        ),
    ]


def _draw(
    results: dict[str, Sequence[Outcome]],
    points: list[tuple[float, float, int]],
    path: Path,
    *,
    title: str,
    label: str,
    ticks: list[str],
    logarithmic: bool,
) -> Path:
    from matplotlib import pyplot as plt

    shown, axes = plt.subplots(figsize=(10, 6), dpi=110, layout="constrained")
    colours = iter(_COLOURS * 4)
    ends: list[tuple[float, str, str]] = []
    best = next(name for name in ranked(results) if name not in _BOUNDS)
    for name, outcomes in results.items():
        figures = [figure(rows) for _, share, lag in points if (rows := at(outcomes, share, lag))]
        places = [place for place, share, lag in points if at(outcomes, share, lag)]
        bound, base = name in _BOUNDS, name.split(" = ")[0] == BASELINE
        colour = "#888888" if bound else "#000000" if base else next(colours)
        style = ":" if bound else "--" if base else "-"
        values = [one.fractional for one in figures]
        # The end is no lag: conversations differ in how long ago it makes the evidence.
        joined = len(places) if logarithmic else len([place for place in places if place < points[-1][0]])
        width = 1.4 if bound else 2.2
        axes.plot(places[:joined], values[:joined], style, color=colour, lw=width, marker="o", ms=3.5)
        axes.plot(places[joined:], values[joined:], "o", color=colour, ms=5)
        if base or name == best:  # bands of all would hide each other
            lows, highs = [one.low for one in figures], [one.high for one in figures]
            axes.fill_between(places[:joined], lows[:joined], highs[:joined], color=colour, alpha=0.12, lw=0)
        ends.append((figures[-1].fractional, _wrapped(name), colour))
    _label_ends(axes, points[-1][0], ends)
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xticks([place for place, _, _ in points], ticks)
    axes.minorticks_off()
    axes.set(ylim=(0, 1.02), xlabel=label, ylabel="share of the evidence at hand")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    shown.savefig(path)
    plt.close(shown)
    return path


def _wrapped(name: str) -> str:
    """Break the name of joined rules after every third."""
    names = name.split(" = ")
    return " =\n".join(" = ".join(names[start : start + 3]) for start in range(0, len(names), 3))


def _label_ends(axes: Any, place: float, ends: list[tuple[float, str, str]]) -> None:
    """Write each name at the end of its line, far enough apart to be read; a thin line leads to it when it moved."""
    line = 0.036
    heights = [line * (1 + name.count("\n")) for _, name, _ in sorted(ends)]
    positions: list[float] = []
    for (value, _, _), height in zip(sorted(ends), heights, strict=True):
        lowest = positions[-1] + (heights[len(positions) - 1] + height) / 2 if positions else height / 2
        positions.append(max(value, lowest))
    excess = positions[-1] + heights[-1] / 2 - 1.02
    if excess > 0:  # push down from the top what was pushed above it
        ceiling = 1.02
        for index in range(len(positions) - 1, -1, -1):
            positions[index] = min(positions[index], ceiling - heights[index] / 2)
            ceiling = positions[index] - heights[index] / 2
    for (value, name, colour), position in zip(sorted(ends), positions, strict=True):
        axes.annotate(
            name,
            (place, value),
            xytext=(1.04, position / 1.02),
            textcoords=axes.transAxes,
            color=colour,
            va="center",
            fontsize=9,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "relpos": (0.0, 0.5), "color": colour, "lw": 0.6, "alpha": 0.5},
        )
