"""Choose how much newness counts in a context on all conversations but one, and judge it on that one, for each in turn.

It prints recall with the fault path by lag: without newness, with what was chosen without the conversation, and with
what the server has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import click
from msgspec import structs
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.eviction import SHARE, policy_rule
from benchmarks.eviction_data import Conversation, Question, load
from benchmarks.eviction_figures import compare, figure
from benchmarks.eviction_replay import END, LAGS, Outcome, Timing, replay
from benchmarks.eviction_report import at
from benchmarks.eviction_search import SearchFaultPath
from benchmarks.eviction_tuning import Scores, leave_one_out
from server.retrieval.newness import NEWNESS, Newness
from server.retrieval.ranking import Ranking
from server.retrieval.turns import Key

GRID = [Newness(weight, half_life) for weight, half_life in product((1.0, 1.5, 2.0), (10.0, 20.0, 40.0))]
SHARES = (0.05, 0.10, 0.25)
Outcomes = dict[str, list[Outcome]]  # by conversation


class _Kept(SearchFaultPath):
    """Searches once for all values of newness."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._rankings: dict[tuple[str, int], tuple[Ranking, list[Key]]] = {}

    def with_newness(self, newness: Newness | None) -> None:
        """Go on with another value."""
        self._newness = newness
        self._orders.clear()

    def forget(self) -> None:
        """Go on with another conversation."""
        self._rankings.clear()

    def _ranking(self, conversation: Conversation, question: Question, head: int) -> tuple[Ranking, list[Key]]:
        asked = (question.text, head)
        if asked not in self._rankings:
            ranking, first = super()._ranking(conversation, question, head)
            evidence = structs.replace(ranking.evidence, features={})  # what takes the room
            self._rankings[asked] = structs.replace(ranking, evidence=evidence), first
        return self._rankings[asked]


def outcomes(conversations: list[Conversation], model: str, share: float) -> dict[Newness | None, Outcomes]:
    """Replay every conversation with every value, None among them."""
    path = _Kept(model)
    found: dict[Newness | None, Outcomes] = {newness: {} for newness in (None, *GRID)}
    steps = list(product(conversations, found))
    for conversation, newness in track(steps, console=Console(stderr=True), transient=True):
        if newness is None:
            path.forget()
        path.with_newness(newness)
        rows = replay(conversation, policy_rule("fifo"), Timing(), fault_path=path, resident_share=share)
        found[newness][conversation.name] = [row for row in rows if row.share in SHARES]
    return found


def score(rows: Sequence[Outcome]) -> float:
    """Return the mean recall over budgets and lags alike, those that have questions."""
    cells = [at(rows, share, lag) for share in SHARES for lag in (*LAGS, END)]
    recalls = [sum(one.found / one.wanted for one in cell) / len(cell) for cell in cells if cell]
    return sum(recalls) / len(recalls)


def held_out(found: Mapping[Newness | None, Outcomes]) -> tuple[list[tuple[str, Newness]], list[Outcome]]:
    """Return what is chosen without each conversation, and the outcomes with that."""
    by_name = {newness.name: newness for newness in GRID}
    scores: dict[str, Scores] = {
        name: {key: score(rows) for key, rows in found[newness].items()} for name, newness in by_name.items()
    }
    chosen = [(conversation, by_name[best]) for conversation, best, _ in leave_one_out(scores)]
    return chosen, [row for conversation, best in chosen for row in found[best][conversation]]


@click.command(help=__doc__)
@click.argument("data", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", type=click.Choice(["static", "minilm"]), default="static", show_default=True)
@click.option("--resident-share", default=SHARE, show_default=True)
def main(data: Path, model: str, resident_share: float) -> None:
    found = outcomes(load(data), model, resident_share)
    console = Console(width=None if Console().is_terminal else 160)
    without = [row for rows in found[None].values() for row in rows]
    judged = {"without newness": without}
    if len(found[None]) > 1:
        chosen, judged["held out"] = held_out(found)
        for conversation, best in chosen:
            console.print(f"chosen without {conversation}: {best.name}")
    judged[f"{NEWNESS.name}, as the server has it"] = [row for rows in found[NEWNESS].values() for row in rows]
    for share in SHARES:
        table = Table(title=f"Recall at {share:.0%} of the tokens, against none with its 95 % interval")
        table.add_column("")
        for lag in (*LAGS, END):
            table.add_column("end" if lag == END else f"+{lag}", justify="right")
        for name, rows in judged.items():
            cells = []
            for lag in (*LAGS, END):
                ours, theirs = at(rows, share, lag), at(without, share, lag)
                against = compare(ours, theirs) if ours else None
                cells.append(
                    "-"
                    if against is None
                    else f"{figure(ours).fractional:.3f} [dim]{against.low:+.3f} {against.high:+.3f}[/]"
                )
            table.add_row(name, *cells)
        console.print(table)


if __name__ == "__main__":
    main()
