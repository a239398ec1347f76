"""The README says what is: its tour prints what it shows, its settings are those there are."""

from __future__ import annotations

from pathlib import Path

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
