"""How well questions are classified and standing instructions recognised, and how fast.

    python -m benchmarks.query_types FILE … [--examples]

FILE is LoCoMo, LongMemEval or anything that ``eviction_data`` reads. LoCoMo's categories are weak labels of the query
types: "temporal" questions ask for or name a time, "multi-hop" ones have evidence in several sessions.
"""

from __future__ import annotations

import statistics
import sys
from argparse import ArgumentParser
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter_ns
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from benchmarks.eviction_data import Conversation, load
from server.constraints import Constraint, recognise
from server.retrieval.classify import classify
from server.retrieval.query_types import query_types
from server.retrieval.times import states_time, warm

OUT = Console(soft_wrap=True)
T = TypeVar("T")


def main(arguments: Sequence[str]) -> None:
    """Print the figures of some files."""
    parser = ArgumentParser(description=__doc__, prog="python -m benchmarks.query_types")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--examples", action="store_true", help="print every question with its cues, every constraint")
    chosen = parser.parse_args(arguments)
    warm()
    for file in chosen.files:
        conversations = load(file)
        OUT.print(f"\n[bold]{file.name}[/bold]: {len(conversations)} conversations")
        confusion(conversations)
        named_times(conversations)
        stated_times(conversations)
        constraints(conversations, examples=chosen.examples)
        speed(conversations)
        if chosen.examples:
            questions(conversations)


def clock(conversation: Conversation) -> datetime:
    """Return the time of a conversation's newest event."""
    return datetime.fromtimestamp(max(item.at for item in conversation.items), UTC)


def confusion(conversations: list[Conversation]) -> None:
    """Print how often each type was predicted in each category."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for conversation in conversations:
        now = clock(conversation)
        for question in conversation.questions:
            counts[classify(question.text, now=now).type][question.category] += 1
    categories = sorted({category for counter in counts.values() for category in counter})
    table = Table("predicted", *categories, "all", title="Questions by predicted type and category")
    for name in query_types():
        if name in counts:
            row = [counts[name][category] for category in categories]
            table.add_row(name, *map(str, row), str(sum(row)))
    OUT.print(table)


def named_times(conversations: list[Conversation]) -> None:
    """Print how much of the evidence lies inside the times that questions name, and just behind them."""
    table = Table("named", "questions", "evidence inside", "with slack", "events inside", title="Times in questions")
    found: dict[bool, list[tuple[float, float, float]]] = defaultdict(list)
    for conversation in conversations:
        now = clock(conversation)
        at = [datetime.fromtimestamp(item.at, UTC) for item in conversation.items]
        for question in conversation.questions:
            wish = classify(question.text, now=now).wish
            if not wish.ranges:
                continue
            slack = timedelta(days=wish.range_slack_days)
            inside = {seq for seq, one in enumerate(at, 1) if any(range_.holds(one) for range_ in wish.ranges)}
            near = inside | {
                seq
                for seq, one in enumerate(at, 1)
                if any(range_.end is not None and range_.end <= one < range_.end + slack for range_ in wish.ranges)
            }
            evidence = set(question.evidence)
            found[wish.ranges[0].explicit].append(
                (len(evidence & inside) / len(evidence), len(evidence & near) / len(evidence), len(inside) / len(at))
            )
    for explicit, rows in sorted(found.items(), reverse=True):
        means = [f"{statistics.fmean(column):.3f}" for column in zip(*rows, strict=True)]
        table.add_row("date, month or year" if explicit else "relative", str(len(rows)), *means)
    if found:
        OUT.print(table)


def stated_times(conversations: list[Conversation]) -> None:
    """Print how often turns state a time: all, those that answer a question that asks for one, and other evidence."""
    shares: dict[str, list[float]] = defaultdict(list)
    for conversation in conversations:
        now = clock(conversation)
        stated = [states_time(text) for text in conversation.texts]
        shares["all turns"].append(statistics.fmean(stated))
        for question in conversation.questions:
            asks = classify(question.text, now=now).wish.asks_time
            share = statistics.fmean(stated[seq - 1] for seq in question.evidence)
            shares["evidence, a time is asked for" if asks else "other evidence"].append(share)
    OUT.print("turns that state a time:", {name: round(statistics.fmean(one), 3) for name, one in shares.items()})


def constraints(conversations: list[Conversation], *, examples: bool) -> None:
    """Print what share of turns, and of their text, is recognised as a standing instruction."""
    turns = letters = 0
    firm_turns = any_turns = 0
    found: list[Constraint] = []
    for conversation in conversations:
        for item, text in zip(conversation.items, conversation.texts, strict=True):
            if item.role != "user":
                continue
            turns, letters = turns + 1, letters + len(text)
            here = recognise(text, item.role)
            found += here
            any_turns += bool(here)
            firm_turns += any(one.strength == "firm" for one in here)
    for name, count, some in (
        ("firm", firm_turns, [one for one in found if one.strength == "firm"]),
        ("firm and loose", any_turns, found),
    ):
        share = sum(len(one.text) for one in some) / max(1, letters)
        OUT.print(f"constraints, {name}: {count}/{turns} user turns ({count / max(1, turns):.2%}), {share:.2%} of text")
    if examples:
        for one in found:
            OUT.print(f"  {one.strength} {one.kind} ({one.cue}): {one.text}", markup=False)


def speed(conversations: list[Conversation]) -> None:
    """Print how long a question takes to classify, and a user turn to be searched for constraints."""
    timed(
        "classify", [(q.text, clock(c)) for c in conversations for q in c.questions], lambda q: classify(q[0], now=q[1])
    )
    texts = [t for c in conversations for i, t in zip(c.items, c.texts, strict=True) if i.role == "user"]
    timed("recognise, up to 200 characters", [t for t in texts if len(t) <= 200], lambda text: recognise(text, "user"))
    timed("recognise, longer", [t for t in texts if len(t) > 200], lambda text: recognise(text, "user"))


def timed(name: str, inputs: Sequence[T], run: Callable[[T], object]) -> None:
    """Run each input twice and print the median and the 95th percentile of the second run, in microseconds."""
    if not inputs:
        return
    taken = []
    for one in inputs:
        run(one)
        start = perf_counter_ns()
        run(one)
        taken.append((perf_counter_ns() - start) / 1000)
    taken.sort()
    middle, high = statistics.median(taken), taken[int(0.95 * (len(taken) - 1))]
    OUT.print(f"{name}: median {middle:.0f} µs, p95 {high:.0f} µs over {len(taken)}")


def questions(conversations: list[Conversation]) -> None:
    """Print every question with its category, type and cues."""
    for conversation in conversations:
        now = clock(conversation)
        for question in conversation.questions:
            got = classify(question.text, now=now)
            cues = "; ".join(f"{cue.cue}: {cue.text}" for cue in got.cues)
            OUT.print(f"  {question.category} | {got.type} | {question.text} | {cues}", markup=False)


if __name__ == "__main__":
    main(sys.argv[1:])
