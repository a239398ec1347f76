"""`turnstone embeddings`: what a person types, and what they see."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from click.testing import CliRunner, Result

from server.cli import main
from server.database.connections import Database
from tests.operator_steps import BAD, Operator


class Terminal:
    """Runs commands against a server."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        key = client.headers["authorization"].removeprefix("Bearer ")
        self._options = ("--url", str(client.base_url), "--key", key)

    async def run(self, *words: str, status: int = 0, typed: str | None = None) -> Result:
        options = self._options
        command, *rest = words
        result = await asyncio.to_thread(
            CliRunner().invoke, main, ["embeddings", command, *options, *rest], input=typed
        )
        assert result.exit_code == status, result.output
        return result


@pytest.fixture
def terminal(client: httpx.AsyncClient) -> Terminal:
    return Terminal(client)


async def test_the_whole_way_on_a_terminal(terminal: Terminal, client: httpx.AsyncClient, database: Database) -> None:
    operator = Operator(client, database)
    cheap = ("--provider", "wordllama", "--model", "l2_supercat_256", "--query-prefix", "question: ")
    added = await terminal.run("add", "new", *cheap)
    assert "add: added 'new'" in added.stdout
    assert "next: turnstone embeddings plan new" in added.stderr
    listed = await terminal.run("list")
    assert [line.split()[:2] for line in listed.stdout.splitlines()[1:]] == [
        ["wordllama-256", "active"],
        ["new", "draft"],
    ]
    planned = await terminal.run("plan", "new")
    assert "texts to embed" in planned.stdout
    assert "next: turnstone embeddings start new" in planned.stdout
    started = await terminal.run("start", "new")
    assert "every writer covers 'new' beside 'wordllama-256'" in started.stdout
    shown = await terminal.run("status")
    assert "migrates to  new (writing)" in shown.stdout
    assert "`backfill` comes next" in shown.stdout
    begun = await terminal.run("backfill")
    assert "0 waiting" in begun.stdout
    paused = await terminal.run("pause", "--reason", "the sale")
    assert "pause: the sale" in paused.stdout
    assert "paused" in (await terminal.run("status")).stdout
    await terminal.run("resume")
    verified = await terminal.run("verify")
    assert "fingerprint" in verified.stdout
    await terminal.run("shadow", "10")
    compared = await terminal.run("compare", status=3)
    assert "there is no golden set" in compared.stdout
    refused = await terminal.run("ramp", "5", status=1)
    assert "Error: `ramp` is refused" in refused.stderr
    assert "recall" in refused.stdout, "the gates are shown beside the refusal"
    ramped = json.loads((await terminal.run("ramp", "5", "--force", "a test", "--json")).stdout)
    assert (ramped["routing"]["ramp"], ramped["record"]["forced"]) == (5.0, "a test")
    stale = await terminal.run("cutover", "--force", "a test", "--epoch", "1", status=1)
    assert "somebody else is at work on this migration" in stale.stderr
    await terminal.run("cutover", "--force", "a test")
    early = await terminal.run("contract", "wordllama-256", "--yes", "wordllama-256", status=1)
    assert "is kept for 72 hours" in early.stderr
    back = await terminal.run("rollback", "--reason", "enough")
    assert "everybody reads 'wordllama-256' again: enough" in back.stdout
    wrong = await terminal.run("contract", "new", typed="old\n", status=1)
    assert "'old' was typed" in wrong.stderr
    dropped = await terminal.run("contract", "new", typed="new\n")
    assert "the vectors of 'new' are dropped" in dropped.stdout
    told = await terminal.run("history")
    assert "forced: a test" in told.stdout
    lines = [
        json.loads(line) for line in (await terminal.run("history", "--json", "--newest", "2")).stdout.splitlines()
    ]
    assert [line["action"] for line in lines] == ["rollback", "contract"]
    assert await operator.states() == {"wordllama-256": "active", "new": "dropped"}


async def test_a_gate_that_fails_is_shown_and_the_others_are_counted(
    terminal: Terminal, client: httpx.AsyncClient, database: Database
) -> None:
    operator = Operator(client, database)
    await operator.to("shadowing")
    await operator.compared(BAD)
    refused = await terminal.run("ramp", "5", status=1)
    rows = [line for line in refused.stdout.splitlines() if line.split()[1:2] in (["fail"], ["pass"])]
    assert [row.split()[:2] for row in rows] == [["recall", "fail"]]
    assert "of 2 gates 1 fail, 0 warn, 1 pass" in refused.stdout


async def test_options_of_a_provider(terminal: Terminal) -> None:
    for option, problem in (("device", "'device' is not NAME=VALUE"), ("device=cpu", "options of the embedding")):
        wrong = ("add", "x", "--provider", "wordllama", "--model", "l2_supercat_256", "--option", option)
        refused = await terminal.run(*wrong, status=1 if "=" in option else 2)
        assert problem in refused.stderr
