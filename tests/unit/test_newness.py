"""What being new counts in a context: in its order, in its reasons, and not in a search."""

from __future__ import annotations

import numpy as np

from benchmarks import newness_tuning
from benchmarks.eviction_replay import LAGS, Outcome
from server.context.faulting import SHARE
from server.retrieval import planner
from server.retrieval.budget import preference
from server.retrieval.index import Index
from server.retrieval.newness import NEWNESS, Newness, ages, newer_first
from server.retrieval.plan import DEFAULT
from server.retrieval.planner import Planned, Replanned
from server.retrieval.query_types.wish import Wish
from server.retrieval.ranking import Ranking
from server.retrieval.turns import Entry
from server.search.preferred import Preferred, preferred

SAID = "The lantern hangs in the shed."
LENGTH = 200


def chat(said_at: tuple[int, ...], conversation: str = "c", minutes: float = 0.0) -> list[Entry]:
    """Return chatter in which the same is said at some places."""
    return [
        Entry(
            conversation=conversation,
            seq=seq,
            text=SAID if seq in said_at else f"The weather of day {seq} was rather dull.",
            at=60.0 * (seq + minutes),
            tokens=10,
        )
        for seq in range(1, LENGTH + 1)
    ]


def searched(*logs: list[Entry]) -> Ranking:
    index = Index()
    for log in logs:
        index.add(log)
    return index.search("Where does the lantern hang?", None, DEFAULT, 5)


def wanted(ranking: Ranking, *, whole: bool = True) -> list[Preferred]:
    replanned: Replanned = planner.replan(ranking, Planned(plan=DEFAULT, wish=Wish()), 5)
    return preferred(Wish(), replanned, 1000, whole=whole)


def best(ranking: Ranking) -> tuple[str, int]:
    key, _ = next(preference(ranking, 0))
    return key.conversation, key.seq


def test_of_the_same_words_the_newer_come_first_in_a_context_and_not_in_a_search() -> None:
    ranking = searched(chat((20, 190)))
    newer = newer_first(ranking)
    assert [hit.key.seq for hit in ranking.hits][:2] == [hit.key.seq for hit in newer.hits][:2]
    assert best(ranking) == ("c", 20)
    assert best(newer) == ("c", 190)
    assert wanted(ranking)[0].key.seq == 190


def test_the_newest_gains_the_weight_and_half_of_it_after_the_half_life() -> None:
    ranking = searched(chat((20,)))
    newer = newer_first(ranking, Newness(weight=2.0, half_life=10.0))
    gained = dict(
        zip(ranking.evidence.pool.tolist(), (newer.evidence.scores - ranking.evidence.scores).tolist(), strict=True)
    )
    assert round(gained[LENGTH - 1], 4) == 2.0
    assert round(gained[LENGTH - 11], 4) == 1.0
    assert gained[0] < 1e-3


def test_what_is_old_and_says_it_stands_before_what_is_new_and_does_not() -> None:
    assert wanted(searched(chat((5,))))[0].key.seq == 5


def test_several_conversations_have_one_order_by_time() -> None:
    ranking = searched(chat((190,), "later", minutes=1000), chat((190,), "sooner"))
    assert best(newer_first(ranking)) == ("later", 190)
    numbers = ages(ranking.evidence.view)
    assert sorted(numbers.tolist()) == list(range(2 * LENGTH))
    assert numbers[LENGTH - 1] == 0


def test_of_the_same_moment_the_later_in_the_log_is_newer() -> None:
    index = Index()
    index.add([Entry(conversation="c", seq=seq, text=SAID) for seq in (1, 2, 3)])
    ranking = index.search("lantern", None, DEFAULT, 3)
    assert np.array_equal(ages(ranking.evidence.view), [2, 1, 0])


def test_the_reason_says_how_new_it_is() -> None:
    reasons = {one.key.seq: one.why for one in wanted(searched(chat((20, 190))))}
    assert reasons[190].endswith("newest 11th")
    assert "newest" not in reasons[20]


def test_where_only_candidates_are_in_view_nothing_is_known_to_be_new() -> None:
    chosen = wanted(searched(chat((20, 190))), whole=False)
    assert chosen[0].key.seq == 20
    assert not any("newest" in one.why for one in chosen)


def test_the_stamp_names_it() -> None:
    assert NEWNESS.name in SHARE


def test_newness_is_judged_where_it_was_not_chosen() -> None:
    def rows(name: str, found: int) -> list[Outcome]:
        return [Outcome(name, "x", share, lag, found, 2, 10) for share in newness_tuning.SHARES for lag in LAGS]

    good, bad = newness_tuning.GRID[0], newness_tuning.GRID[1]
    outcomes: dict[Newness | None, newness_tuning.Outcomes] = {
        newness: {name: rows(name, 1) for name in "abc"} for newness in newness_tuning.GRID
    }
    outcomes[good] |= {"a": rows("a", 2), "b": rows("b", 2), "c": rows("c", 0)}
    outcomes[bad] |= {"a": rows("a", 0), "b": rows("b", 0), "c": rows("c", 2)}
    chosen, judged = newness_tuning.held_out(outcomes)
    assert dict(chosen)["c"] == good
    assert newness_tuning.score([row for row in judged if row.conversation == "c"]) == 0.0
