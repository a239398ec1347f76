"""Lists on a terminal as tables, and for programs as JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

as_json = click.option("--json", "json_lines", is_flag=True, help="Print one JSON object on each line, for programs.")


def show(rows: Iterable[Mapping[str, Any]], columns: Iterable[str], *, json_lines: bool) -> None:
    """Print rows with the named columns, or whole as JSON lines."""
    if json_lines:
        for row in rows:
            click.echo(msgspec.json.encode(row).decode())
        return
    names = list(columns)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(escape(_cell(row[name])) for name in names))
    # Through a pipe there is no width to keep to, and a folded id is of no use to whoever reads it.
    console = Console(width=None if sys.stdout.isatty() else 500)
    console.print(table)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
