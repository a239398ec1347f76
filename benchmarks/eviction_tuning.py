"""Choose a policy's parameters on all conversations but one, and judge them on that one, for each in turn.

What a benchmark reports for parameters chosen on all of its conversations flatters them; this says by how much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.eviction import FAULT_PATHS, policy_rule
from benchmarks.eviction_data import Conversation, load
from benchmarks.eviction_figures import group
from benchmarks.eviction_replay import END, LAGS, Outcome, Timing, replay

GRIDS: dict[str, dict[str, list[float]]] = {
    "importance": {"window": [0.0, 0.1, 0.2, 0.3, 0.5], "half_life": [300, 2000, 1e6], "question": [0.5, 0.7, 1.0]},
    "recoverable": {
        "window": [0.0, 0.3],
        "enough": [8, 30, 60, 10_000],
        "cue": [0.0, 1.0],
        "half_life": [300, 2000, 1e6],
    },
}
SHARES = (0.10, 0.25)
Scores = dict[str, float]  # conversation -> what is maximised


def scores(outcomes: Sequence[Outcome]) -> Scores:
    """Return each conversation's mean fractional recall, over budgets and lags alike."""
    by_cell = group(outcomes, lambda one: (one.conversation, one.share, one.lag))
    found: dict[str, list[float]] = {}
    for rows in by_cell.values():
        if rows[0].share in SHARES:
            found.setdefault(rows[0].conversation, []).append(float(np.mean([one.found / one.wanted for one in rows])))
    return {name: float(np.mean(cells)) for name, cells in found.items()}


def leave_one_out(by_choice: Mapping[str, Scores]) -> list[tuple[str, str, float]]:
    """Return, for each conversation, the choice that is best on the others and its score on this one."""
    names = sorted(next(iter(by_choice.values())))
    rows = []
    for held_out in names:
        others = [name for name in names if name != held_out]
        best = max(by_choice, key=lambda choice: float(np.mean([by_choice[choice][name] for name in others])))
        rows.append((held_out, best, by_choice[best][held_out]))
    return rows


def evaluate(
    conversations: list[Conversation],
    policy: str,
    parameters: dict[str, Any],
    lags: Sequence[int],
    fault_path: str | None,
    share: float,
) -> Scores:
    """Score one choice of parameters."""
    outcomes: list[Outcome] = []
    for conversation in conversations:
        outcomes += replay(
            conversation,
            policy_rule(policy, parameters),
            Timing(),
            lags=lags,
            fault_path=FAULT_PATHS[fault_path] if fault_path else None,
            resident_share=share if fault_path else 1.0,
        )
    return scores(outcomes)


@click.command(help=__doc__)
@click.argument("data", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--policy", type=click.Choice(sorted(GRIDS)), default="importance", show_default=True)
@click.option("--fault-path", type=click.Choice(sorted(FAULT_PATHS)))
@click.option("--resident-share", default=0.5, show_default=True)
@click.option("--all-lags", is_flag=True, help="Judge by all lags, not by the end of the conversation alone.")
def main(data: Path, policy: str, fault_path: str | None, resident_share: float, all_lags: bool) -> None:
    conversations = load(data)
    lags = (*LAGS, END) if all_lags else (END,)
    baseline = evaluate(conversations, "fifo", {}, lags, fault_path, resident_share)
    grid = GRIDS[policy]
    by_choice: dict[str, Scores] = {}
    for values in track(list(product(*grid.values())), console=Console(stderr=True), transient=True):
        parameters = dict(zip(grid, values, strict=True))
        name = ", ".join(f"{key} {value:g}" for key, value in parameters.items())
        by_choice[name] = evaluate(conversations, policy, parameters, lags, fault_path, resident_share)
    console = Console(width=None if Console().is_terminal else 160)
    table = Table(title=f"{policy}: mean recall at 10 and 25 %, by choices made without the conversation")
    for heading in ("conversation", "chosen on the others", "recall", "fifo", "ratio"):
        table.add_column(heading)
    held_out = leave_one_out(by_choice)
    for name, best, score in held_out:
        table.add_row(name, best, f"{score:.3f}", f"{baseline[name]:.3f}", f"{score / baseline[name]:.2f}")
    ours, theirs = np.mean([score for _, _, score in held_out]), np.mean(list(baseline.values()))
    table.add_row("mean", "", f"{ours:.3f}", f"{theirs:.3f}", f"{ours / theirs:.2f}")
    console.print(table)
    order = sorted(by_choice, key=lambda name: -float(np.mean(list(by_choice[name].values()))))
    for name in [*order[:8], "…", *order[-3:]]:
        console.print(name, f"{np.mean(list(by_choice[name].values())):.3f}" if name in by_choice else "")


if __name__ == "__main__":
    main()
