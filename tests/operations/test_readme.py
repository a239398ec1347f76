"""The README says what is: its tour prints what it shows, its settings are those there are."""

from __future__ import annotations

import re
from pathlib import Path

import click

from server.cli import main
from server.embeddings.lifecycle import gates
from tests.operations.migration_guide import GUIDE
from tests.operations.readme import README, plain, run, settings_shown, settings_table, tour
from tests.operations.running import Serve, free_port


def test_the_tour_prints_what_the_readme_shows(tmp_path: Path) -> None:
    shown = tour(README.read_text())
    port = free_port()
    serve = Serve(tmp_path / "data", port)
    try:
        serve.wait_ready()
        commands = [command.replace(". .venv/bin/activate", ":") for command, _ in shown]
        outputs = run(commands, serve.data_dir, port, tmp_path)
    finally:
        serve.end()
    assert len(outputs) == len(shown)
    for (command, expected), output in zip(shown, outputs, strict=True):
        assert plain(output) == plain(expected), command


def test_every_setting_is_in_the_readme() -> None:
    assert settings_shown(README.read_text()) == settings_table()


def test_the_guide_to_a_migration_names_commands_and_gates_that_there_are() -> None:
    """Its transcript takes minutes and a large model; tests/operations/migration_guide.py makes it anew."""
    text = README.read_text()
    section = GUIDE.search(text)
    assert section is not None
    embeddings = main.commands["embeddings"]
    assert isinstance(embeddings, click.Group)
    used = {found for command, _ in tour(text, GUIDE) for found in re.findall(r"turnstone embeddings (\w+)", command)}
    assert used - embeddings.commands.keys() == set()
    table = section[0].split("### What each command guarantees")[1].split("###")[0]
    told = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert told == embeddings.commands.keys() - {"list", "status", "history"}
    files = Path(str(gates.__file__)).parent.glob("*.py")
    names = {name for file in files for name in re.findall(r'(?:name=|at_most\(|at_least\()"(\w+)"', file.read_text())}
    table = section[0].split("### When a gate fails")[1].split("###")[0]
    known = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert names - known - {"shadow_dropped"} == set()
