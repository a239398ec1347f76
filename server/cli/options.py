"""Options of commands, made from the settings table."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from server.settings import CHOICES, TABLE, Setting, load

F = TypeVar("F", bound=Callable[..., Any])
DATABASE = ("data_dir", "database_url")


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for each named setting, and the Settings in force as its first argument ``settings``."""
    rows = [row for row in TABLE if row.name in names]
    assert len(rows) == len(names), "every name is in the settings table"

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            flags = {name: arguments.pop(name) for name in names}
            command(settings=load(flags), **arguments)

        decorated: Callable[..., None] = run
        for row in reversed(rows):
            decorated = _option(row)(decorated)
        return decorated

    return decorate


def _option(row: Setting) -> Callable[[F], F]:
    kind: click.ParamType[Any] = click.STRING
    if row.name in CHOICES:
        kind = click.Choice(CHOICES[row.name])
    elif row.kind is int:
        kind = click.INT
    elif row.kind is Path:
        kind = click.Path(file_okay=False, path_type=Path)
    default = "" if row.default is None else f" Default: {row.default}."
    return click.option(row.flag, row.name, type=kind, default=None, help=f"{row.help}{default} [{row.variable}]")
