"""The command line: one file for each group of commands."""

from __future__ import annotations

from typing import Any

import click

from server.cli.backup import backup, restore
from server.cli.doctor import doctor
from server.cli.embeddings import embeddings
from server.cli.explain import explain
from server.cli.golden import golden
from server.cli.keys import keys
from server.cli.migrate import migrate
from server.cli.policies import policies
from server.cli.serve import serve
from server.cli.tenants import tenants
from server.cli.transfer import export, import_
from server.errors import TurnstoneError


class _Commands(click.Group):
    """Tells an error that the user can act on in one line, without a traceback, and ends with status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TurnstoneError as error:
            raise click.ClickException(error.message) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="turnstone", prog_name="turnstone")
def main() -> None:
    """Turnstone: a conversation memory database server.

    Every setting is a flag, or a variable TURNSTONE_NAME; `turnstone serve --help` lists them.
    """


for command in (
    *(serve, migrate, keys, tenants, embeddings, golden, policies),
    *(explain, doctor, backup, restore, import_, export),
):
    main.add_command(command)
