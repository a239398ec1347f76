"""What a person sees of a migration: where it stands, what a step has done, its gates, the history."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_WIDEST: Final = 140
_OUTCOMES: Final = {"pass": "green", "warn": "yellow", "fail": "bold red"}
_ORDER: Final = ("fail", "warn", "pass")
_SIZES: Final = ("B", "kB", "MB", "GB", "TB")

Members = Mapping[str, Any]


def show_status(found: Members) -> None:
    """Print where a migration stands."""
    console, routing = _console(), found["routing"]
    running = found["running"]
    line = Text.assemble(("serves  ", "dim"), (found["active"]["name"], "bold"))
    if running is not None:
        line.append_text(
            Text.assemble(("   migrates to  ", "dim"), (running["name"], "bold"), f" ({running['state']})")
        )
    line.append(f"   epoch {routing['epoch']}", "dim")
    console.print(line)
    if routing["candidate"] is not None:
        console.print(f"ramp {routing['ramp']:g} % of the users, shadow {routing['shadow']:g} % of the searches")
    if routing["paused"]:
        console.print("[bold yellow]paused[/]: `turnstone embeddings resume` lets it go on")
    if found["backfill"] is not None:
        _backfill(console, found["backfill"])
    for name in ("verified", "compared"):
        if found[name] is not None:
            record = found[name]
            outcome = ("pass", "green") if record["done"] else ("fail", "bold red")
            console.print(Text.assemble(f"{name} {_when(record['at'])} by {record['who']}: ", outcome))
    console.print(Text.assemble(("next    ", "dim"), found["hint"]))
    _steps(console, found["steps"])
    _servers(console, found["servers"], routing["epoch"])


def _backfill(console: Console, backfill: Members) -> None:
    done = backfill["events"] - backfill["waiting"]
    left = "" if not backfill["waiting"] or backfill["seconds"] is None else f", {_duration(backfill['seconds'])} left"
    dead = f", {backfill['dead']:,} dead letters" if backfill["dead"] else ""
    console.print(f"embedded {done:,} of {backfill['events']:,} events{left}{dead}")
    for worker in backfill["workers"]:
        name = f"{worker['hostname']}:{worker['pid']}"
        console.print(f"  [dim]{escape(name)}[/] {worker['rate']:,.0f}/s, {escape(worker['why'])}")


def _steps(console: Console, steps: Iterable[Members]) -> None:
    table = _table("command", "now", "why not")
    for step in steps:
        now = Text("yes", "green") if step["allowed"] else Text("no", "dim")
        table.add_row(step["command"], now, escape(step["why"] or ""))
    console.print(table)


def _servers(console: Console, servers: Sequence[Members], epoch: int) -> None:
    table = _table("server", "release", "follows", "p99", "late vectors")
    for one in servers:
        follows = Text(f"epoch {one['epoch']}", "green" if one["epoch"] >= epoch else "bold red")
        p99 = "-" if one["p99_ms"] is None else f"{one['p99_ms']:.1f} ms"
        table.add_row(escape(one["name"]), one["release"], follows, p99, f"{one['waiting']:,}")
    console.print(table)


def show_done(done: Members) -> None:
    """Print what a step has done, with the gates that it rested on."""
    console, record = _console(), done["record"]
    show_gates(record["gates"], whole=record["action"] == "verify")
    console.print(Text.assemble((record["action"], "bold"), f": {record['note']}"))
    routing = done["routing"]
    told = f"epoch {routing['epoch']}; {routing['active']} serves, written: {', '.join(routing['written'])}"
    console.print(told, style="dim")
    if done["behind"]:
        console.print(f"[yellow]not all servers follow yet:[/] {escape(', '.join(done['behind']))}")
    if record["action"] == "contract" and not done["dropped"]:
        console.print("[yellow]the vectors are dropped as soon as every server follows[/]")


def show_plan(done: Members) -> None:
    """Print what a migration would take."""
    console, figures = _console(), done["record"]["figures"]
    table = _table("what", "how much")
    table.add_row("texts to embed", f"{figures['texts']:,.0f}")
    table.add_row("rate, measured now", f"{figures['rate']:,.0f} texts/s")
    table.add_row("time at that rate", _duration(figures["seconds"]))
    table.add_row("disk", _size(figures["bytes"]))
    console.print(table)
    console.print(f"next: turnstone embeddings start {done['record']['version']}", style="dim")


def show_gates(gates: Iterable[Members], *, whole: bool = True) -> None:
    """Print gates, those that fail first; without ``whole`` only these, and how many there are of the others."""
    rows = sorted(gates, key=lambda gate: _ORDER.index(gate["outcome"]))
    if not rows:
        return
    if not whole:
        counts = [sum(gate["outcome"] == outcome for gate in rows) for outcome in _ORDER]
        _console().print(f"of {len(rows)} gates {counts[0]} fail, {counts[1]} warn, {counts[2]} pass", style="dim")
        rows = rows[: counts[0]]
        if not rows:
            return
    table = _table("gate", "outcome", "why")
    for gate in rows:
        segment = "" if gate.get("segment", "all") == "all" else f" [{gate['segment']}]"
        table.add_row(
            escape(gate["name"] + segment), Text(gate["outcome"], _OUTCOMES[gate["outcome"]]), escape(gate["why"])
        )
    _console().print(table)


def show_history(rows: Iterable[Members]) -> None:
    """Print the history, the oldest first."""
    table = _table("when", "who", "step", "version", "epoch", "what")
    for row in rows:
        failed = [gate["name"] for gate in row["gates"] if gate["outcome"] == "fail"]
        what = row["note"] + (f" ({', '.join(dict.fromkeys(failed))})" if failed else "")
        what += f"; forced: {row['forced']}" if row["forced"] else ""
        step = Text(row["action"], "" if row["done"] else "bold red")
        table.add_row(_when(row["at"]), escape(_who(row["who"])), step, row["version"], str(row["epoch"]), escape(what))
    _console().print(table)


def _who(who: str) -> str:
    """Return a key's name with the end of its id, which tells it from another of that name; JSON has all of it."""
    name, sign, key = who.partition(" (key_")
    return f"{name} …{key[-7:-1]}" if sign else who


def _when(at: str) -> str:
    return f"{datetime.fromisoformat(at):%Y-%m-%d %H:%M:%S}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, _ = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _size(count: float) -> str:
    for unit in _SIZES:
        if count < 1000 or unit == _SIZES[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def _console() -> Console:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDEST)
    console.width = min(console.width, _WIDEST)
    return console


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name, overflow="fold")
    return table
