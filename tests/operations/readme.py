"""The README's tour and settings, run and compared: ``python -m tests.operations.readme`` writes them anew.

A block of ```console holds commands after ``$ `` (further lines after ``> ``), each followed by what it prints.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from server.settings import CHOICES, TABLE

README = Path(__file__).parents[2] / "README.md"
TOUR = re.compile(r"(?<=## Five minutes\n).*?(?=\n## )", re.DOTALL)
_BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
_SETTINGS = re.compile(r"(?<=### Settings\n\n).*?(?=\n## )", re.DOTALL)
_VARIABLE = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"(?<=[_\" /])[0-9a-f]{32,48}"), "ID"),
    (re.compile(r"[\d,]+ events/s"), "RATE"),
    (re.compile(r"(?<=\"created_at\":)\d+"), "TIME"),
)
_MARK = "--- the next command ---"


def tour(text: str, section: re.Pattern[str] = TOUR) -> list[tuple[str, str]]:
    """Return the tour's commands, or another section's, each with the output that the README shows."""
    found = []
    for block in _BLOCK.findall(section.search(text)[0]):  # type: ignore[index]
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines(keepends=True)
            size = 1
            while size < len(lines) and lines[size].startswith("> "):
                size += 1
            found.append(("".join([lines[0], *(line[2:] for line in lines[1:size])]), "".join(lines[size:])))
    return found


def run(
    commands: list[str], data_dir: Path, port: int, directory: Path, *, prelude: str = "", timeout: float = 60
) -> list[str]:
    """Run the commands in one shell, as a reader would, and return what each printed.

    ``prelude``: shell that comes before them and prints nothing.
    """
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TURNSTONE_DATA_DIR": str(data_dir),
        "TURNSTONE_PORT": str(port),
    }
    here = [
        command.replace("127.0.0.1:8420", f"127.0.0.1:{port}").replace("~/.local/share/turnstone", f"'{data_dir}'")
        for command in commands
    ]
    script = prelude + "".join(f"{command}\necho '{_MARK}'\n" for command in here)
    done = subprocess.run(
        ["bash"],
        input=script,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=True,
    )
    return [part.removeprefix("\n") for part in done.stdout.split(_MARK)[:-1]]


def plain(output: str) -> str:
    """Return output without what differs from run to run."""
    for pattern, name in _VARIABLE:
        output = pattern.sub(name, output)
    return output


def settings_table() -> str:
    """Return the settings as the README shows them."""
    rows = ["| variable | default | |", "|---|---|---|"]
    for row in TABLE:
        default = "" if row.default is None else f"`{row.default}`"
        choices = f" One of {', '.join(f'`{choice}`' for choice in CHOICES[row.name])}." if row.name in CHOICES else ""
        rows.append(f"| `{row.variable}` | {default} | {row.help}{choices} |")
    return "\n".join(rows) + "\n"


def settings_shown(text: str) -> str:
    """Return the settings that the README shows."""
    return _SETTINGS.search(text)[0]  # type: ignore[index]


def rewritten(text: str, outputs: list[str], section: re.Pattern[str] = TOUR) -> str:
    """Return the README with these outputs in the tour or another section, and the settings as they are."""
    left = iter(outputs)

    def block(match: re.Match[str]) -> str:
        shown = []
        for part in re.split(r"^\$ ", match[0], flags=re.MULTILINE)[1:]:
            lines = part.splitlines(keepends=True)
            size = 1
            while size < len(lines) and lines[size].startswith("> "):
                size += 1
            shown.append("$ " + "".join(lines[:size]) + next(left))
        return "".join(shown)

    text = section.sub(lambda match: _BLOCK.sub(block, match[0]), text)
    return _SETTINGS.sub(lambda _: settings_table(), text)


def main() -> None:
    """Run the tour on a server of its own and write what it prints into the README."""
    import tempfile

    from tests.operations.running import Serve, free_port

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        port = free_port()
        serve = Serve(Path(directory) / "data", port)
        try:
            serve.wait_ready()
            text = README.read_text()
            commands = [command for command, _ in tour(text)]
            README.write_text(rewritten(text, run(commands, serve.data_dir, port, README.parent)))
        finally:
            serve.end()


if __name__ == "__main__":
    main()
