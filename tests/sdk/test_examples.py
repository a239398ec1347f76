"""The examples are short, and the README's commands run them and print what it shows."""

from __future__ import annotations

import re
from pathlib import Path

from tests.operations.readme import README, run
from tests.operations.running import Serve, free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
_SECTION = re.compile(r"(?<=## With OpenAI's SDKs\n).*?(?=\n## )", re.DOTALL)
_BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)


def test_examples_are_under_40_lines() -> None:
    for example in EXAMPLES.glob("*.py"):
        assert len(example.read_text().splitlines()) < 40, example.name


def test_the_readme_runs_every_example(tmp_path: Path) -> None:
    section = _SECTION.search(README.read_text())
    assert section is not None
    commands, shown = [], []
    for part in re.split(r"^\$ ", "".join(_BLOCK.findall(section[0])), flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        commands.append(command.replace(". .venv/bin/activate", ":").replace("examples/", f"'{EXAMPLES}'/"))
        shown.append(output)
    assert {name.name for name in EXAMPLES.glob("*.py")} - {"langchain_history.py"} == {
        name for command in commands for name in re.findall(r"\w+\.py", command)
    }
    port = free_port()
    serve = Serve(tmp_path / "data", port)
    try:
        serve.wait_ready()
        # What the tests need is installed; the network is not theirs.
        outputs = run(
            [":" if "pip install" in command else command for command in commands], serve.data_dir, port, tmp_path
        )
    finally:
        serve.end()
    assert outputs == shown
