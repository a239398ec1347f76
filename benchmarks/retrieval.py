"""Retrieval recall through the REST API: the question as asked, its type predicted, on LoCoMo or LongMemEval files.

Each file is imported as a user imports it, each question is asked of its conversation, and what comes back is compared
with the labelled evidence: turn by turn for chats between people, session by session for chats with an assistant.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import numpy as np
from msgspec import structs
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.retrieval_tuning_data import Asked, Chat, read
from benchmarks.retrieval_tuning_figures import Figures, Scored, figures
from benchmarks.serving import Serving, scratch
from server.retrieval.plan import DEFAULT

_EVERYTHING: Final = 1000
_MISSING: Final = 10**6
_SHARES: Final = (0.05, 0.10)  # of a conversation's tokens
_RESAMPLES: Final = 2_000
_LATENCIES: Final = 300
_SIGNALS: Final = tuple(name for name, weight in structs.asdict(DEFAULT.weights).items() if weight)


class Answered(NamedTuple):
    """A question with the seqs that came back, best first, and their scores."""

    chat: Chat
    asked: Asked
    seqs: list[int]
    scores: list[float]
    type: str


@click.command()
@click.argument("data", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1, required=True)
@click.option("--corrections", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Of LoCoMo's labels.")
@click.option("--model", type=click.Choice(["static", "minilm"]), default="static", show_default=True)
@click.option("--ablate", is_flag=True, help="Also with each signal off.")
def main(data: tuple[Path, ...], corrections: Path | None, model: str, ablate: bool) -> None:
    """Import DATA into a server of its own, ask its questions, and print what was found."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    program = ("benchmarks.searched", "--model", model)
    with scratch() as directory, Serving(directory / "data", program=program) as serving:
        turns: list[Chat] = []
        sessions: list[Chat] = []
        for path in data:
            chats = read(path, corrections)
            spoken = any(entry.speaker for chat in chats for entry in chat.entries)
            (turns if spoken else sessions).extend(chats)
            _import(serving, path, "locomo" if spoken else "longmemeval")
        ids = _conversations(serving)
        for chat in (*turns, *sessions):
            _embedded(serving, ids[chat.name], len(chat.entries))
        if turns:
            _turns(console, serving, ids, turns, ablate)
        if sessions:
            _sessions(console, serving, ids, sessions)
        _latency(console, serving, ids, [*turns, *sessions])


def _import(serving: Serving, path: Path, form: str) -> None:
    command = [sys.executable, "-m", "server.cli", "import", form, str(path), "--url", serving.url]
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env={"TURNSTONE_KEY": serving.key, "PATH": "/usr/bin:/bin"}
    )


def _conversations(serving: Serving) -> dict[str, str]:
    found: dict[str, str] = {}
    after: dict[str, str] = {}
    while True:
        page = serving.client.get("/v1/conversations", params={"limit": 100, **after}).raise_for_status().json()
        found |= {one["origin_id"].partition(":")[2]: one["id"] for one in page["data"] if one["origin_id"]}
        if not page["has_more"]:
            return found
        after = {"after": page["last_id"]}


def _embedded(serving: Serving, conversation: str, head: int) -> None:
    """Wait until both legs know a whole conversation."""
    body = {"query": "ready", "conversation_id": conversation, "min_seq": head, "k": 1}
    until = time.monotonic() + 600
    while True:
        answer = serving.client.post("/v1/search", json=body)
        if answer.is_success and "degraded" not in answer.json():
            return
        if time.monotonic() > until:
            raise SystemExit(f"{conversation} was not embedded within 10 minutes: {answer.text[:300]}")
        time.sleep(0.5)


def _ask(
    serving: Serving, ids: dict[str, str], chats: Iterable[Chat], *, kind: str | None = None, k: int = _EVERYTHING
) -> list[Answered]:
    found = []
    for chat in chats:
        for asked in chat.questions:
            body: dict[str, Any] = {"query": asked.text, "conversation_id": ids[chat.name], "k": k}
            body |= {"type": kind} if kind else {}
            answer = serving.client.post("/v1/search", json=body).raise_for_status().json()
            seqs = [one["seq"] for one in answer["data"]]
            scores = [float("inf") if one["score"] is None else one["score"] for one in answer["data"]]
            found.append(Answered(chat, asked, seqs, scores, answer["type"]))
    return found


def _score(one: Answered, evidence: frozenset[int]) -> Scored:
    place = {seq: rank for rank, seq in enumerate(one.seqs)}
    whole = sum(entry.tokens for entry in one.chat.entries)
    filled = [_fill(one, int(share * whole)) for share in _SHARES]
    return Scored(
        fold=one.chat.name,
        category=one.asked.category,
        ranks=tuple(place.get(seq, _MISSING) for seq in evidence),
        filled=tuple(len(evidence & seqs) / len(evidence) for seqs in filled),
    )


def _fill(one: Answered, budget: int) -> set[int]:
    """Take what fits best first, short events before long ones of the same score: evidence per token."""
    tokens = {entry.seq: entry.tokens for entry in one.chat.entries}
    worth = {
        seq: score - DEFAULT.density * np.log(tokens[seq]) for seq, score in zip(one.seqs, one.scores, strict=True)
    }
    best = sorted(one.seqs, key=lambda seq: (-worth[seq], seq))
    taken: set[int] = set()
    spent = 0
    for number, seq in enumerate(best):
        for near in (seq, seq - 1, seq + 1) if number < DEFAULT.neighbours else (seq,):
            if near in tokens and near not in taken and spent + tokens[near] <= budget:
                taken.add(near)
                spent += tokens[near]
    return taken


def _turns(console: Console, serving: Serving, ids: dict[str, str], chats: Sequence[Chat], ablate: bool) -> None:
    routed = _ask(serving, ids, chats)
    raw = [_score(one, one.asked.evidence) for one in routed]
    corrected = [_score(one, one.asked.corrected or one.asked.evidence) for one in routed]
    table = _table(f"Turns found, the type predicted; {sum(chat.unusable for chat in chats)} questions unusable")
    for category in sorted({row.category for row in raw}):
        _row(table, category, figures(row for row in raw if row.category == category))
    table.add_section()
    for fold in sorted({row.fold for row in raw}):
        _row(table, fold, figures(row for row in raw if row.fold == fold))
    table.add_section()
    _row(table, "all, raw labels", figures(raw))
    _row(table, "  95 % interval", *_interval(raw))
    _row(table, "all, corrected labels", figures(corrected))
    _row(table, "all but adversarial, raw", figures(row for row in raw if row.category != "adversarial"))
    console.print(table)

    plain = _ask(serving, ids, chats, kind="default")
    table = _table("By the predicted type: the routed plan beside the default")
    for kind in sorted({one.type for one in routed}):
        places = [place for place, one in enumerate(routed) if one.type == kind]
        _row(table, f"{kind}: routed", figures(raw[place] for place in places))
        _row(table, f"{kind}: default", figures(_score(plain[p], plain[p].asked.evidence) for p in places))
        table.add_section()
    console.print(table)

    if ablate:
        table = _table("With one ingredient off, the type predicted")
        _row(table, "none", figures(raw))
        for names in (*((name,) for name in _SIGNALS), ("dense", "dense_session"), ("lexical", "lexical_session")):
            serving.client.put("/bench/without", json=list(names)).raise_for_status()
            scored = [_score(one, one.asked.evidence) for one in _ask(serving, ids, chats)]
            _row(table, " and ".join(names), figures(scored))
        serving.client.put("/bench/without", json=[]).raise_for_status()
        console.print(table)


def _sessions(console: Console, serving: Serving, ids: dict[str, str], chats: Sequence[Chat]) -> None:
    table = Table(title="Sessions found (chats with an assistant)", title_justify="left", box=SIMPLE, pad_edge=False)
    for name in ("", "n", "all@5", "any@5", "fractional@5", "all@1", "all@10"):
        table.add_column(name, justify="right" if name else "left")
    for name, kind, off in (
        ("routed", None, []),
        ("default", "default", []),
        ("words only", "default", ["dense", "dense_session"]),
        ("vectors only", "default", ["lexical", "lexical_session", "coverage", "coverage_turn"]),
    ):
        serving.client.put("/bench/without", json=off).raise_for_status()
        answered = _ask(serving, ids, chats, kind=kind)
        ranks = [ranks for one in answered if (ranks := _session_ranks(one))]
        measures: tuple[Callable[[list[int]], float], ...] = (
            lambda row: max(row) < 5,
            lambda row: min(row) < 5,
            lambda row: float(np.mean([rank < 5 for rank in row])),
            lambda row: max(row) < 1,
            lambda row: max(row) < 10,
        )
        shown = [f"{np.mean([measure(row) for row in ranks]):.3f}" for measure in measures]
        table.add_row(name, str(len(ranks)), *shown)
    serving.client.put("/bench/without", json=[]).raise_for_status()
    console.print(table)


def _session_ranks(one: Answered) -> list[int]:
    """Return the rank of each session with evidence, sessions being ranked by their best event."""
    order: dict[str, int] = {}
    for seq in one.seqs:
        order.setdefault(one.chat.entries[seq - 1].session or "", len(order))
    return [order.get(session, _MISSING) for session in one.asked.sessions]


def _latency(console: Console, serving: Serving, ids: dict[str, str], chats: Sequence[Chat]) -> None:
    taken = []
    questions = [(chat, asked) for chat in chats for asked in chat.questions][:_LATENCIES]
    for chat, asked in questions:
        body = {"query": asked.text, "conversation_id": ids[chat.name], "k": 10}
        began = time.perf_counter()
        serving.client.post("/v1/search", json=body).raise_for_status()
        taken.append((time.perf_counter() - began) * 1000)
    taken.sort()
    console.print(
        f"Latency over HTTP, one connection, k=10, {len(taken)} questions: "
        f"p50 {statistics.median(taken):.1f} ms, p95 {taken[int(len(taken) * 0.95)]:.1f} ms"
    )


def _interval(rows: Sequence[Scored]) -> tuple[Figures, Figures]:
    """Return the ends of the 95 % interval, by bootstrap over questions."""
    random = np.random.default_rng(0)
    means = []
    singles = [figures([row]) for row in rows]
    columns = [np.array([getattr(one, name) for one in singles]) for name in Figures._fields[1:]]
    for _ in range(_RESAMPLES):
        chosen = random.integers(0, len(rows), len(rows))
        means.append([column[chosen].mean(axis=0) for column in columns])
    ends = []
    for share in (2.5, 97.5):
        values = [np.percentile([mean[place] for mean in means], share, axis=0) for place in range(len(columns))]
        ends.append(Figures(len(rows), *(tuple(float(v) for v in value) for value in values)))
    return ends[0], ends[1]


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("")
    table.add_column("n", justify="right")
    for name in ("R@5", "R@10", "R@25", "R@50", "any@10", "all@10", "nDCG@10", "5 % tokens", "10 %"):
        table.add_column(name, justify="right")
    return table


def _row(table: Table, name: str, one: Figures, to: Figures | None = None) -> None:
    def values(figures: Figures) -> list[float]:
        return [*figures.fractional, figures.any[1], figures.all[1], figures.ndcg[1], *figures.filled]

    shown = [f"{value:.3f}" for value in values(one)]
    if to is not None:
        shown = [f"{low:.2f}-{high:.2f}" for low, high in zip(values(one), values(to), strict=True)]
    table.add_row(name, str(one.questions), *shown)


if __name__ == "__main__":
    main()
