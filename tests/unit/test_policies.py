"""``turnstone policies``: every policy with its sentence and parameters, readable on a terminal and by programs."""

from __future__ import annotations

import msgspec
import pytest
from click.testing import CliRunner

from server.cli.policies import policies as command
from server.errors import InvalidInput
from server.working_set.choice import Choice, make_policy, parameters_in_force
from server.working_set.described import PolicyDescription, described
from server.working_set.eviction import policies


def run(*arguments: str, width: int = 80) -> str:
    done = CliRunner(env={"COLUMNS": str(width)}).invoke(command, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_every_policy_is_described() -> None:
    assert [policy.name for policy in described()] == sorted(policies())
    for policy in described():
        assert policy.summary.endswith(".")
        defaults = {one.name: one.default for one in policy.parameters}
        assert parameters_in_force(Choice(policy=policy.name)) == defaults
        for one in policy.parameters:
            assert one.description.endswith(".")
            assert one.bounds


def test_bounds_are_those_that_are_checked() -> None:
    for policy in described():
        for one in policy.parameters:
            for bound, fits in ((one.minimum, True), (one.maximum, True), (one.above, False), (one.below, False)):
                if bound is None:
                    continue
                value = int(bound) if one.type == "integer" else float(bound)
                choice = Choice(policy=policy.name, parameters={one.name: value})
                if fits:
                    make_policy(choice)
                else:
                    with pytest.raises(InvalidInput, match=one.name):
                        make_policy(choice)


@pytest.mark.parametrize("width", [80, 120])
def test_a_person_can_read_the_list(width: int) -> None:
    shown = run(width=width)
    lines = [line.rstrip() for line in shown.splitlines()]
    assert max(map(len, lines)) <= 80, "a pipe is as wide as a common terminal"
    assert "importance  version 1, the default" in lines
    assert "    half_life = 2000  (above 0, up to 1,000,000,000)" in lines
    words = " ".join(shown.split())
    for policy in described():
        assert f"{policy.name} version {policy.version}" in words
        assert policy.summary in words


def test_a_program_can_read_the_list() -> None:
    read = [msgspec.json.decode(line, type=PolicyDescription) for line in run("--json").splitlines()]
    assert read == described()
    [one] = run("--json", "lru").splitlines()
    assert msgspec.json.decode(one)["name"] == "lru"


def test_some_policies_by_name() -> None:
    shown = run("sieve", "fifo")
    assert shown.index("sieve") < shown.index("fifo")
    assert "importance" not in shown
    wrong = CliRunner().invoke(command, ["best"])
    assert wrong.exit_code == 2
    assert "'best'; there are fifo" in wrong.output
