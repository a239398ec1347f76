"""How much of the evidence each eviction policy has at hand when a question is asked.

Give it LoCoMo's JSON, LongMemEval's, or JSON lines (an export of your own, or one event a line) with `--labels`: lines
of {"conversation": its id, "question": ..., "evidence": [event ids or seqs], "category": ...}.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import eviction_bounds as bounds
from benchmarks import eviction_plots, eviction_report
from benchmarks.eviction_data import Conversation, load
from benchmarks.eviction_replay import FaultPath, FoldRule, MakeRule, Outcome, Rule, Timing, replay
from benchmarks.eviction_search import SearchFaultPath
from server.context.faulting import FOUND
from server.working_set.choice import Choice
from server.working_set.eviction import policies
from server.working_set.features import SCORER
from server.working_set.fold import Fold
from server.working_set.tokens import TOKENIZER

SHARE = round(1 - FOUND, 2)  # as the server shares a budget out
DRAWS = 5  # of the rule `random`
FAULT_PATHS: dict[str, FaultPath] = {
    "bm25": bounds.bm25_fault_path,
    "static": SearchFaultPath("static"),
    "minilm": SearchFaultPath("minilm"),
}


def policy_rule(name: str, parameters: dict[str, object] | None = None) -> MakeRule:
    """Return what makes a policy's rule."""

    def make(conversation: Conversation, budget: int) -> Rule:
        choice = Choice(policy=name, budget_tokens=budget, parameters=parameters or {})
        return FoldRule(conversation, Fold(choice))

    return make


def _random(draw: int) -> MakeRule:
    return lambda conversation, budget: bounds.Random(conversation, budget, draw)


def rules(names: list[str], *, with_bounds: bool) -> dict[str, list[MakeRule]]:
    """Return what to replay; the outcomes of a rule's makers are taken together."""
    found = {name: [policy_rule(name)] for name in names}
    if with_bounds:
        found["random"] = [_random(draw) for draw in range(DRAWS)]
        found["clairvoyant"] = [bounds.Clairvoyant]
        found["belady"] = [bounds.Belady]
    return found


def run(
    conversations: list[Conversation],
    wanted: Mapping[str, list[MakeRule]],
    *,
    fault_path: FaultPath | None = None,
    resident_share: float = 1.0,
    touches: bool = False,
) -> tuple[dict[str, list[Outcome]], dict[str, Timing]]:
    """Replay every conversation under every rule."""
    results: dict[str, list[Outcome]] = {name: [] for name in wanted}
    timings = {name: Timing() for name in wanted}
    for name in track(list(wanted), description="replaying", transient=True, console=Console(stderr=True)):
        for make in wanted[name]:
            for conversation in conversations:
                results[name] += replay(
                    conversation,
                    make,
                    timings[name],
                    fault_path=fault_path,
                    resident_share=resident_share,
                    touches=touches,
                )
    return results, timings


def reproduction(conversations: list[Conversation]) -> dict[str, list[float]]:
    """Return DESIGN's table for these conversations: recall of sets chosen at the end, at 10, 25 and 50 %."""
    recalls: dict[str, list[list[float]]] = {}
    for place, share in enumerate((0.10, 0.25, 0.50)):
        for conversation in conversations:
            chosen = bounds.offline(conversation, share)
            tokens, end = bounds.sizes(conversation), len(conversation.items)
            for question in conversation.questions:
                order = bounds.bm25_order(conversation, question, end)
                searched = bounds.fill(order, tokens, int(share * sum(tokens)))
                for name, found in {**chosen, "BM25 for the question, +-1 turn": searched}.items():
                    name = "random" if name.startswith("random") else name
                    row = recalls.setdefault(name, [[], [], []])
                    row[place].append(sum(seq in found for seq in question.evidence) / len(question.evidence))
    return {name: [float(np.mean(values)) for values in row] for name, row in recalls.items()}


@click.command(help=__doc__)
@click.argument("data", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--corrections", type=click.Path(exists=True, path_type=Path), help="LoCoMo's corrected citations.")
@click.option("--labels", type=click.Path(exists=True, path_type=Path), help="Questions and evidence for JSON lines.")
@click.option("--policy", "names", multiple=True, help="Only these; by default all.")
@click.option(
    "--touches", is_flag=True, help="Name the labelled evidence that was at hand as used, at each lag; see the note."
)
@click.option("--fault-path", type=click.Choice(sorted(FAULT_PATHS)), help="Bring events back for the question.")
@click.option("--resident-share", default=SHARE, show_default=True, help="The residents' share, with a fault path.")
@click.option("--out", default=Path("bench-results"), show_default=True, type=click.Path(path_type=Path))
def main(
    data: Path,
    corrections: Path | None,
    labels: Path | None,
    names: tuple[str, ...],
    touches: bool,
    fault_path: str | None,
    resident_share: float,
    out: Path,
) -> None:
    console = Console(width=None if Console().is_terminal else 160)
    chosen = list(names) or sorted(policies())
    if "fifo" not in chosen:
        chosen.insert(0, "fifo")
    if touches:
        console.print(
            "[bold]Note:[/] the touches name the labelled evidence, and the same questions are asked again later. "
            "These figures show that policies use feedback; they do not compare with those without, nor with `random`."
        )
    report: dict[str, object] = {
        "touches": touches,
        "fault_path": fault_path,
        "resident_share": resident_share,
        "data": data.name,
        "scorer": SCORER,
        "tokenizer": TOKENIZER,
    }
    label_sets = {"raw labels": None, "corrected labels": corrections} if corrections else {"labels as given": None}
    prefix = "eviction" + ("-touches" if touches else "") + (f"-{fault_path}" if fault_path else "")
    for title, corrected in label_sets.items():
        conversations = load(data, labels, corrected)
        unusable = sum(one.unusable for one in conversations)
        questions = sum(len(one.questions) for one in conversations)
        tokens = sum(item.tokens for one in conversations for item in one.items)
        console.print(
            f"\n[bold]{data.name}, {title}[/]: {len(conversations)} conversations, {questions} questions "
            f"({unusable} left out: no evidence that can be resolved), {tokens:,} tokens"
        )
        table = Table(title=f"{title}: sets chosen at the end, by simple rules and by searching for the question")
        for heading in ("rule", "10 %", "25 %", "50 %"):
            table.add_column(heading)
        chosen_sets = reproduction(conversations)
        for name, row in chosen_sets.items():
            table.add_row(name, *(f"{value:.3f}" for value in row))
        console.print(table)
        results, timings = run(
            conversations,
            rules(chosen, with_bounds=fault_path is None),
            fault_path=FAULT_PATHS[fault_path] if fault_path else None,
            resident_share=resident_share if fault_path else 1.0,
            touches=touches,
        )
        eviction_report.print_recall(console, results, title)
        eviction_report.print_costs(console, results, timings)
        report[title] = {
            "questions": questions,
            "unusable": unusable,
            "sets": chosen_sets,
            "rules": eviction_report.as_json(results, timings),
        }
        drawn = eviction_plots.draw(results, out, f"{data.stem}, {title}", f"{prefix}-{title.split()[0]}")
        for path in drawn:
            console.print(f"drawn: {path}")
        if not drawn:
            console.print("no plots: they need matplotlib (pip install 'turnstone[bench]')")
    eviction_report.write_json(out / f"{prefix}.json", report)
    console.print(f"every figure: {out / f'{prefix}.json'}")


if __name__ == "__main__":
    main()
