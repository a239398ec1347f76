"""Which version answers whom."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from server.embeddings.lifecycle.routing import WHOLE, Routing, Unit, place, serve
from server.retrieval.plan import PLANS

UNITS = (
    Unit(version=1, plan=PLANS["static"], thresholds={"near": 0.6}),
    Unit(version=2, plan=PLANS["minilm"], thresholds={"near": 0.3}),
)
RAMPING = Routing(epoch=7, active=1, candidate=2, ramp=500, salt=b"salt of sixteen!", written=(1, 2), units=UNITS)
USERS = [int(one) for one in np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 20_000)]


def reading(routing: Routing) -> set[int]:
    return {user for user in USERS if serve(routing, user).unit.version == routing.candidate}


@pytest.mark.parametrize("ramp", [0, 100, 500, 2000, 5000, WHOLE])
def test_a_ramp_takes_its_share_of_the_users(ramp: int) -> None:
    share = len(reading(structs.replace(RAMPING, ramp=ramp))) / len(USERS)
    assert share == pytest.approx(ramp / WHOLE, abs=0.01)
    assert share == ramp / WHOLE or 0 < ramp < WHOLE


def test_the_first_user_of_the_ramp_waits_for_it_to_open() -> None:
    first = next(user for user in range(100_000) if place(RAMPING, user) == 0)
    assert serve(structs.replace(RAMPING, ramp=0), first).unit.version == 1
    assert serve(structs.replace(RAMPING, ramp=1), first).unit.version == 2


def test_a_wider_ramp_keeps_those_whom_a_narrower_one_had() -> None:
    five, twenty = reading(RAMPING), reading(structs.replace(RAMPING, ramp=2000, epoch=9))
    assert five < twenty
    assert reading(structs.replace(RAMPING, epoch=12)) == five


def test_another_migration_or_database_begins_with_other_users() -> None:
    five = reading(RAMPING)
    units = (UNITS[0], structs.replace(UNITS[1], version=3))
    for other in (structs.replace(RAMPING, candidate=3, units=units), structs.replace(RAMPING, salt=b"another")):
        assert len(five & reading(other)) < len(five) / 5


def test_a_user_stands_where_other_releases_put_it() -> None:
    assert [place(RAMPING, user) for user in (0, 1, -1, 2**63 - 1)] == [738, 2412, 2654, 8819]


def test_all_that_belongs_to_a_version_changes_at_once() -> None:
    for user in USERS[:500]:
        epoch, unit = serve(RAMPING, user)
        assert epoch == 7
        assert unit == UNITS[unit.version - 1]


def test_a_search_across_users_is_answered_by_the_version_that_holds_all() -> None:
    assert serve(structs.replace(RAMPING, ramp=9_999), None).unit.version == 1
    assert serve(structs.replace(RAMPING, active=2, candidate=None, ramp=0), None).unit.version == 2


def test_a_version_that_is_not_written_has_no_unit() -> None:
    with pytest.raises(KeyError):
        RAMPING.unit(3)
