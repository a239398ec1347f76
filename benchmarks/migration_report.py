"""What a benchmark of a migration has found: claims with their figures and limits, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psutil
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Claim(msgspec.Struct, kw_only=True):
    """What must hold. ``met`` None: a figure without a limit."""

    part: str
    what: str
    found: str
    limit: str = ""
    met: bool | None = None


class Report(msgspec.Struct, kw_only=True):
    """One run; ``load``: the load average before it. ``figures``: by name, whatever a part has measured."""

    at: datetime
    processors: int
    load: float
    arguments: dict[str, Any]
    claims: list[Claim] = []
    figures: dict[str, Any] = {}
    seconds: dict[str, float] = {}

    @property
    def missed(self) -> list[Claim]:
        """The claims that do not hold."""
        return [claim for claim in self.claims if claim.met is False]


class Notes:
    """Takes down what is found, and says so at once."""

    def __init__(self, console: Console, arguments: dict[str, Any]) -> None:
        self.console = console
        self.part = ""
        self.report = Report(
            at=datetime.now(UTC), processors=psutil.cpu_count() or 1, load=psutil.getloadavg()[0], arguments=arguments
        )

    def claim(self, what: str, found: str, limit: str = "", met: bool | None = None) -> None:
        """Take down a claim."""
        self.report.claims.append(Claim(part=self.part, what=what, found=found, limit=limit, met=met))
        mark = {True: "[green]met[/]", False: "[bold red]MISSED[/]", None: ""}[met]
        self.console.print(f"  {escape(what)}: {escape(found)} {mark}", highlight=False)

    def at_most(self, what: str, value: float, limit: float, show: Callable[[float], str] = "{:.2f}".format) -> None:
        """Take down a figure that must not be larger than a limit."""
        self.claim(what, show(value), f"at most {show(limit)}", value <= limit)

    def none(self, what: str, count: int, of: str = "") -> None:
        """Take down a count that must be zero; ``of``: how many there were to look at."""
        self.claim(what, f"{count:,}{f' of {of}' if of else ''}", "none", count == 0)

    def say(self, text: str) -> None:
        """Say how far it is."""
        self.console.print(f"[dim]{datetime.now(UTC):%H:%M:%S} {escape(text)}[/]", highlight=False)


def show(report: Report, console: Console) -> None:
    """Print all claims."""
    for part in dict.fromkeys(claim.part for claim in report.claims):
        table = Table(box=SIMPLE, pad_edge=False, title=part.capitalize(), title_justify="left", title_style="bold")
        for name, ratio in (("what", 4), ("found", 6), ("limit", 2), ("", 1)):
            table.add_column(name, overflow="fold", ratio=ratio)
        for claim in report.claims:
            if claim.part == part:
                mark = {True: "[green]met[/]", False: "[bold red]MISSED[/]", None: ""}[claim.met]
                table.add_row(escape(claim.what), escape(claim.found), escape(claim.limit), mark)
        console.print(table)
    judged = [claim for claim in report.claims if claim.met is not None]
    console.print(
        f"{len(judged) - len(report.missed)} of {len(judged)} limits are met; load average before it {report.load:.1f} "
        f"on {report.processors} processors",
        highlight=False,
    )


def write(report: Report) -> Path:
    """Write all of it beside the results of the other benchmarks; returns the file."""
    path = Path("bench-results") / f"migration-{report.at:%Y%m%dT%H%M%SZ}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    return path
