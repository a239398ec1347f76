"""``turnstone policies``: the eviction policies there are, what each is good for, and its parameters."""

from __future__ import annotations

import sys

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from server.working_set.described import PolicyDescription, described

_WIDEST = 100  # columns: prose is no easier to read on wider lines


@click.command()
@click.option("--json", "json_lines", is_flag=True, help="Print one JSON object on each line, for programs.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def policies(names: tuple[str, ...], json_lines: bool) -> None:
    """List the eviction policies, or those with these NAMEs: when each wins and loses, and its parameters.

    Needs no server. Choose one with PUT /v1/conversations/{id}/working-set.
    """
    known = {policy.name: policy for policy in described()}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r}; there are {', '.join(known)}", param_hint="NAME")
    chosen = [known[name] for name in names or known]
    if json_lines:
        for policy in chosen:
            click.echo(msgspec.json.encode(policy).decode())
        return
    # A list is read whole, so that through a pipe it is as wide as on a common terminal.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 80)
    console.width = min(console.width, _WIDEST)
    for number, policy in enumerate(chosen):
        if number:
            console.print()
        console.print(_shown(policy))


def _shown(policy: PolicyDescription) -> RenderableType:
    title = Text.assemble((policy.name, "bold cyan"), (f"  version {policy.version}", "dim"))
    if policy.default:
        title.append(", the default", "dim")
    parts: list[RenderableType] = [title, Padding(Text(policy.summary), (0, 0, 0, 2), expand=False)]
    for one in policy.parameters:
        value = Text.assemble((one.name, "green"), f" = {one.default:g}", (f"  ({one.bounds})", "dim"))
        parts.append(Padding(value, (0, 0, 0, 4), expand=False))
        parts.append(Padding(Text(one.description), (0, 0, 0, 8), expand=False))
    return Group(*parts)
