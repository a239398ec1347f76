"""Retrieval in process: how good the plan is, what each ingredient is worth, and how its weights are fitted.

    python -m benchmarks.retrieval_tuning locomo.json [longmemeval.json …] --model static

LoCoMo questions are judged by turns, LongMemEval's by sessions. Weights are fitted on LoCoMo only and reported on
conversations that they were not fitted on (one left out at a time).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import numpy.typing as npt
from msgspec import structs
from rich.console import Console
from rich.table import Table

from benchmarks.retrieval_tuning_data import Asked, Chat, read
from benchmarks.retrieval_tuning_figures import Figures, Scored, figures
from benchmarks.retrieval_tuning_fit import Example, fit
from benchmarks.retrieval_tuning_models import Embed, embedder
from server.retrieval.budget import fill
from server.retrieval.index import Index
from server.retrieval.plan import PLANS, Plan, Weights
from server.retrieval.ranking import Ranking

_EVERYTHING = 1_000_000
_SHARES = (0.05, 0.10)
_LEGS = {
    "words alone": ("lexical", "lexical_session", "coverage", "coverage_turn"),
    "vectors alone": ("dense", "dense_session"),
}

Floats = npt.NDArray[np.float64]


class Judged(NamedTuple):
    """A question with its answer."""

    chat: Chat
    asked: Asked
    ranking: Ranking


@click.command(help=__doc__)
@click.argument("data", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1, required=True)
@click.option("--corrections", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Of LoCoMo's labels.")
@click.option("--model", type=click.Choice(["static", "minilm"]), default="static", show_default=True)
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Where vectors are kept between runs.")
@click.option("--fit", "fitting", is_flag=True, help="Fit the weights anew, leaving one conversation out at a time.")
@click.option("--ablate", is_flag=True, help="With --fit: the same with each signal off.")
def main(
    data: tuple[Path, ...], corrections: Path | None, model: str, cache: Path | None, fitting: bool, ablate: bool
) -> None:
    console = Console(width=140)
    embed = embedder(model, cache)
    plan = PLANS[model]
    turns: list[Judged] = []
    sessions: list[Judged] = []
    for path in data:
        for chat in read(path, corrections):
            judged = list(_ask(chat, embed, plan))
            speakers = {entry.speaker for entry in chat.entries} - {None}
            (turns if speakers else sessions).extend(judged)
    if turns:
        _print_turns(console, turns, plan)
        if fitting:
            _print_fit(console, turns, ablate)
    if sessions:
        _print_sessions(console, sessions, plan)


def _ask(chat: Chat, embed: Embed, plan: Plan) -> Iterator[Judged]:
    index = Index()
    spoken = [entry for entry in chat.entries if entry.text]
    index.add(spoken, embed([entry.text for entry in spoken]))
    vectors = embed([asked.text for asked in chat.questions])
    for asked, vector in zip(chat.questions, vectors, strict=True):
        yield Judged(chat, asked, index.search(asked.text, vector, plan, _EVERYTHING))


def _score(one: Judged, evidence: frozenset[int]) -> Scored:
    place = {hit.key.seq: rank for rank, hit in enumerate(one.ranking.hits)}
    whole = sum(entry.tokens for entry in one.chat.entries)
    filled = [{key.seq for key in fill(one.ranking, int(share * whole)).keys} for share in _SHARES]
    return Scored(
        fold=one.chat.name,
        category=one.asked.category,
        ranks=tuple(place.get(seq, _EVERYTHING) for seq in evidence),
        filled=tuple(len(evidence & seqs) / len(evidence) for seqs in filled),
    )


def _print_turns(console: Console, judged: Sequence[Judged], plan: Plan) -> None:
    raw = [_score(one, one.asked.evidence) for one in judged]
    corrected = [_score(one, one.asked.corrected or one.asked.evidence) for one in judged]
    unusable = {one.chat.name: one.chat.unusable for one in judged}
    table = _table(f"Turns found: plan {plan.version} for {plan.model}; {sum(unusable.values())} questions unusable")
    for category in sorted({row.category for row in raw}):
        _row(table, category, figures(row for row in raw if row.category == category))
    table.add_section()
    for fold in sorted({row.fold for row in raw}):
        _row(table, fold, figures(row for row in raw if row.fold == fold))
    table.add_section()
    _row(table, "all, raw labels", figures(raw))
    _row(table, "all, corrected labels", figures(corrected))
    _row(table, "all but adversarial, raw", figures(row for row in raw if row.category != "adversarial"))
    console.print(table)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("n", justify="right")
    for name in ("R@5", "R@10", "R@25", "R@50", "any@10", "all@10", "nDCG@10", "5 % tokens", "10 %"):
        table.add_column(name, justify="right")
    return table


def _row(table: Table, name: str, one: Figures) -> None:
    values = [*one.fractional, one.any[1], one.all[1], one.ndcg[1], *one.filled]
    table.add_row(name, str(one.questions), *(f"{value:.3f}" for value in values))


def _examples(judged: Sequence[Judged], names: Sequence[str]) -> list[Example]:
    found = []
    for one in judged:
        evidence = one.ranking.evidence

        places = [
            place
            for place in range(len(evidence.pool))
            if evidence.key(int(evidence.pool[place])).seq in one.asked.evidence
        ]
        features = np.column_stack([evidence.features[name] for name in names])
        found.append(Example(one.chat.name, features, np.array(places)))
    return found


def _held_out(judged: Sequence[Judged], names: Sequence[str]) -> tuple[list[Scored], Floats]:
    """Return each question's ranks under weights fitted without its conversation, and those weights, one row a fold."""
    examples = _examples(judged, names)
    scored: list[Scored] = []
    fitted = []
    for fold in sorted({example.fold for example in examples}):
        weights = fit([example for example in examples if example.fold != fold])
        fitted.append(weights)
        for one, example in zip(judged, examples, strict=True):
            if example.fold == fold:
                order = np.argsort(-np.round(example.features @ weights, 6), kind="stable")
                ranks = np.argsort(order)[example.evidence]
                scored.append(Scored(fold, one.asked.category, tuple(int(rank) for rank in ranks)))
    return scored, np.array(fitted)


def _print_fit(console: Console, judged: Sequence[Judged], ablate: bool) -> None:
    usable = [one for one in judged if one.asked.evidence]
    names = [name for name in usable[0].ranking.evidence.features if name != "recency"]
    table = _table("Held out: weights fitted on the other conversations")
    _held_row(table, "all signals", _held_out(usable, names)[0])
    if ablate:
        for off in names:
            _held_row(table, f"without {off}", _held_out(usable, [name for name in names if name != off])[0])
        for leg, kept in _LEGS.items():
            _held_row(table, leg, _held_out(usable, kept)[0])
    console.print(table)
    weights = fit(_examples(usable, names))
    spread = _held_out(usable, names)[1]
    console.print("Fitted on all (and the range over the folds):")
    for name, value, low, high in zip(names, weights, spread.min(axis=0), spread.max(axis=0), strict=True):
        console.print(f"  {name:16s} {value:6.2f}   ({low:.2f} to {high:.2f})")


def _held_row(table: Table, name: str, scored: Sequence[Scored]) -> None:
    _row(table, name, figures(scored))
    folds = [figures(row for row in scored if row.fold == fold) for fold in sorted({row.fold for row in scored})]
    lows, highs = ([f"{choose(fold.fractional[at] for fold in folds):.3f}" for at in range(4)] for choose in (min, max))
    hop = figures(row for row in scored if row.category == "multi-hop")
    note = f"  multi-hop R@10 {hop.fractional[1]:.3f}; folds"
    table.add_row(note, "", *(f"{low[1:]}-{high[1:]}" for low, high in zip(lows, highs, strict=True)))


def _print_sessions(console: Console, judged: Sequence[Judged], plan: Plan) -> None:
    table = Table(title="Sessions found (assistant chats)", title_justify="left")
    for name in ("", "n", "all@5", "any@5", "fractional@5", "all@1", "all@10"):
        table.add_column(name, justify="right" if name else "left")
    plans = {"the plan": plan} | {name: _only(plan, kept) for name, kept in _LEGS.items()}
    for name, one_plan in plans.items():
        ranks = [_session_ranks(one, one_plan) for one in judged]
        table.add_row(
            name,
            str(len(ranks)),
            *(
                f"{np.mean(values):.3f}"
                for values in (
                    [max(row) < 5 for row in ranks],
                    [min(row) < 5 for row in ranks],
                    [np.mean([rank < 5 for rank in row]) for row in ranks],
                    [max(row) < 1 for row in ranks],
                    [max(row) < 10 for row in ranks],
                )
            ),
        )
    console.print(table)


def _only(plan: Plan, kept: Sequence[str]) -> Plan:
    """Return a plan of some signals."""
    weights = {name: value for name, value in structs.asdict(plan.weights).items() if name in kept}
    return structs.replace(plan, weights=Weights(**weights))


def _session_ranks(one: Judged, plan: Plan) -> list[int]:
    """Return the rank of each session with evidence, sessions being ranked by their best event."""
    evidence = one.ranking.evidence
    weights = structs.asdict(plan.weights)
    scores = sum((weights[name] * values for name, values in evidence.features.items()), np.zeros(len(evidence.pool)))
    order: dict[str, int] = {}
    for place in np.argsort(-np.round(scores, 6), kind="stable"):
        seq = evidence.key(int(evidence.pool[place])).seq
        session = one.chat.entries[seq - 1].session or ""
        order.setdefault(session, len(order))
    return [order.get(session, _EVERYTHING) for session in one.asked.sessions]


if __name__ == "__main__":
    main()
