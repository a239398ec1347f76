"""Each policy against its paper's rule, written here as plainly as the paper says it, on seeded Zipf traces."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from server.errors import InvalidInput
from server.working_set.choice import Choice, make_policy
from server.working_set.eviction import find, policies
from server.working_set.features import Features
from server.working_set.policy import EvictionPolicy
from server.working_set.units import Part, Unit

BUDGET = 100
Reference = Callable[[list[tuple[int, int]]], list[int]]


def zipf_trace(seed: int, length: int = 3000, objects: int = 300) -> list[tuple[int, int]]:
    """Return accesses as (object, size); an object's size never changes."""
    generator = random.Random(seed)
    weights = [1 / rank for rank in range(1, objects + 1)]
    sizes = [generator.randint(1, 12) for _ in range(objects)]
    return [(one + 1, sizes[one]) for one in generator.choices(range(objects), weights, k=length)]


def unit(key: int, size: int, step: int, **fields: Any) -> Unit:
    part = Part(
        seq=key, type="message", role="user", tokens=size, call_id=None, rarity=1.0, features=Features(length=5)
    )
    return Unit(parts=[msgspec.structs.replace(part, **fields)], charge=size, entered=step, used=step)


def victims(policy: EvictionPolicy, trace: list[tuple[int, int]]) -> list[int]:
    """Return what a policy evicts in a cache of BUDGET tokens, in order: every miss is faulted in."""
    cached: dict[int, Unit] = {}
    evicted = []
    for step, (key, size) in enumerate(trace, 1):
        if key in cached:
            cached[key].touches += 1
            cached[key].used = step
            policy.touch(cached[key])
            continue
        while sum(one.charge for one in cached.values()) + size > BUDGET:
            eviction = policy.evict()
            assert eviction is not None
            evicted.append(eviction.id)
            del cached[eviction.id]
        cached[key] = unit(key, size, step)
        policy.admit(cached[key])
    return evicted


def fifo(trace: list[tuple[int, int]]) -> list[int]:
    queue: list[tuple[int, int]] = []
    evicted = []
    for key, size in trace:
        if (key, size) not in queue:
            while sum(s for _, s in queue) + size > BUDGET:
                evicted.append(queue.pop(0)[0])
            queue.append((key, size))
    return evicted


def lru(trace: list[tuple[int, int]]) -> list[int]:
    queue: list[tuple[int, int]] = []
    evicted = []
    for key, size in trace:
        if (key, size) in queue:
            queue.remove((key, size))
        while sum(s for _, s in queue) + size > BUDGET:
            evicted.append(queue.pop(0)[0])
        queue.append((key, size))
    return evicted


def lfu(trace: list[tuple[int, int]]) -> list[int]:
    cache: dict[int, list[int]] = {}  # key -> [frequency, last use, size]
    evicted = []
    for now, (key, size) in enumerate(trace):
        if key in cache:
            cache[key][0] += 1
            cache[key][1] = now
            continue
        while sum(s for _, _, s in cache.values()) + size > BUDGET:
            worst = min(cache, key=lambda one: (cache[one][0], cache[one][1]))
            evicted.append(worst)
            del cache[worst]
        cache[key] = [1, now, size]
    return evicted


def gdsf(trace: list[tuple[int, int]]) -> list[int]:
    """Cherkasova 1998: Pr(f) = Clock + Fr(f) * Cost(f) / Size(f); Clock becomes the priority of what is evicted."""
    clock, overhead = 0.0, 50.0
    cache: dict[int, list[float]] = {}  # key -> [priority, frequency, size, last use]
    evicted = []
    for now, (key, size) in enumerate(trace):
        if key not in cache:
            while sum(one[2] for one in cache.values()) + size > BUDGET:
                worst = min(cache, key=lambda one: (cache[one][0], cache[one][3]))
                clock = cache.pop(worst)[0]
                evicted.append(worst)
            cache[key] = [0.0, 0, size, now]
        entry = cache[key]
        entry[1] += 1
        entry[0] = clock + entry[1] * (overhead + size) / size
        entry[3] = now
    return evicted


def sieve(trace: list[tuple[int, int]]) -> list[int]:
    """NSDI 2024, algorithm 1, on a list whose end is the head; the hand is a key."""
    queue: list[int] = []
    visited: dict[int, bool] = {}
    sizes: dict[int, int] = {}
    hand: int | None = None
    evicted = []
    for key, size in trace:
        if key in visited:
            visited[key] = True
            continue
        while sum(sizes[one] for one in queue) + size > BUDGET:
            one = queue[0] if hand is None else hand
            while visited[one]:
                visited[one] = False
                place = queue.index(one) + 1
                one = queue[place] if place < len(queue) else queue[0]
            place = queue.index(one) + 1
            hand = queue[place] if place < len(queue) else None
            queue.remove(one)
            del visited[one]
            evicted.append(one)
        queue.append(key)
        visited[key] = False
        sizes[key] = size
    return evicted


def s3fifo(trace: list[tuple[int, int]]) -> list[int]:
    """SOSP 2023, algorithm 1: lists whose end is the head, sizes in tokens, the ghost as large as the main queue."""
    small: list[int] = []
    main: list[int] = []
    ghost: list[int] = []
    frequency: dict[int, int] = {}
    sizes = dict(trace)
    evicted = []

    def total(queue: list[int]) -> int:
        return sum(sizes[one] for one in queue)

    def evict_small() -> None:
        while small:
            tail = small.pop(0)
            if frequency[tail] > 1:
                main.append(tail)
                frequency[tail] = 0
            else:
                ghost.append(tail)
                while total(ghost) > 0.9 * BUDGET:
                    ghost.pop(0)
                evicted.append(tail)
                return

    def evict_main() -> None:
        while main:
            tail = main.pop(0)
            if frequency[tail] > 0:
                frequency[tail] -= 1
                main.append(tail)
            else:
                evicted.append(tail)
                return

    for key, size in trace:
        if key in small or key in main:
            frequency[key] = min(frequency[key] + 1, 3)
            continue
        while total(small) + total(main) + size > BUDGET:
            if total(small) >= 0.1 * BUDGET or not main:
                evict_small()
            else:
                evict_main()
        if key in ghost:
            ghost.remove(key)
            main.append(key)
        else:
            small.append(key)
        frequency[key] = 0
    return evicted


REFERENCES: dict[str, Reference] = {
    "fifo": fifo,
    "lru": lru,
    "lfu": lfu,
    "gdsf": gdsf,
    "sieve": sieve,
    "s3fifo": s3fifo,
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", REFERENCES)
def test_it_follows_its_paper(name: str, seed: int) -> None:
    trace = zipf_trace(seed)
    expected = REFERENCES[name](trace)
    assert len(expected) > 500
    assert victims(make_policy(Choice(policy=name, budget_tokens=BUDGET)), trace) == expected


def test_the_references_differ() -> None:
    trace = zipf_trace(0)
    assert len({tuple(reference(trace)) for reference in REFERENCES.values()}) == len(REFERENCES)


@pytest.mark.parametrize("name", ["lru", "lfu", "sieve", "s3fifo"])
def test_without_touches_it_is_fifo(name: str) -> None:
    trace = [(key, 1 + key % 7) for key in range(1, 500)]
    assert victims(make_policy(Choice(policy=name, budget_tokens=BUDGET)), trace) == fifo(trace)


def test_sink_window_keeps_the_first_and_the_last() -> None:
    trace = [(key, 5) for key in range(1, 41)]
    policy = make_policy(Choice(policy="sink_window", budget_tokens=BUDGET, parameters={"sink": 0.2}))
    assert victims(policy, trace) == list(range(5, 25))


def tool(seq: int, result: int) -> Unit:
    call = Part(seq=seq, type="tool_call", role="assistant", tokens=8, call_id=str(seq), rarity=0, features=Features())
    parts = [call, msgspec.structs.replace(call, seq=seq + 1, type="tool_result", role="tool", tokens=result)]
    return Unit(parts=parts, charge=8 + result, entered=seq, used=seq)


def test_tool_first_replaces_old_results_before_anything_leaves() -> None:
    parameters = {"keep": 1, "placeholder_tokens": 16}
    policy = make_policy(Choice(policy="tool_first", budget_tokens=10_000, parameters=parameters))
    for one in (unit(1, 20, 1), tool(2, 500), tool(4, 10), tool(6, 500), tool(8, 500)):
        policy.admit(one)
    chosen = [(eviction.id, eviction.placeholder) for _ in range(6) if (eviction := policy.evict())]
    # The short result of 4 is no longer than a placeholder, and that of 8 is the one that is kept.
    assert chosen == [(2, 16), (6, 16), (1, None), (2, None), (4, None), (6, None)]


def next_victim(name: str, units: list[Unit], **parameters: Any) -> int:
    policy = make_policy(Choice(policy=name, parameters=parameters))
    for one in units:
        policy.admit(one)
    eviction = policy.evict()
    assert eviction is not None
    return eviction.id


def test_importance_weighs_rarity_against_recency() -> None:
    old_and_telling = unit(1, 10, 1, rarity=20.0)
    new_and_plain = unit(2, 10, 1001, rarity=5.0)
    units = [old_and_telling, new_and_plain]
    assert next_victim("importance", units, window=0, half_life=1e6) == 2
    assert next_victim("importance", units, window=0, half_life=100) == 1
    asked = unit(3, 10, 1, rarity=20.0, features=Features(length=5, question=True))
    assert next_victim("importance", [old_and_telling, asked], window=0) == 3


def test_a_window_spares_the_newest_whatever_they_say() -> None:
    units = [unit(key, 10, key, rarity=float(100 - key)) for key in range(1, 11)]
    policy = make_policy(Choice(policy="importance", budget_tokens=BUDGET, parameters={"window": 0.3}))
    for one in units:
        policy.admit(one)
    order = [eviction.id for _ in range(11) if (eviction := policy.evict())]
    assert order == [7, 6, 5, 4, 3, 2, 1, 8, 9, 10]


def test_recoverable_lets_go_of_what_a_search_would_find() -> None:
    plain = unit(1, 30, 1, rarity=30.0, features=Features(length=25))
    for cue in ("reference", "correction", "constraint", "number_change"):
        kept = unit(2, 30, 1, rarity=30.0, features=msgspec.structs.replace(Features(length=25), **{cue: True}))
        assert next_victim("recoverable", [plain, kept], window=0) == 1, cue
    # As dense in rare words, but with more of them to be found by.
    longer = unit(2, 60, 1, rarity=60.0, features=Features(length=55))
    assert next_victim("recoverable", [plain, longer], window=0) == 2


def test_every_policy_says_when_it_wins_and_loses() -> None:
    wanted = {"fifo", "sink_window", "lru", "lfu", "sieve", "s3fifo", "gdsf", "importance", "tool_first", "recoverable"}
    assert wanted <= set(policies())
    for policy in policies().values():
        assert policy.version >= 1
        assert "wins" in policy.summary or "best" in policy.summary or "made for" in policy.summary
        assert "loses" in policy.summary
        assert policy.summary.count(".") == 1
        policy.parameters_type()  # everything has a default
        assert all(
            property_.get("description")
            for property_ in msgspec.json.schema(policy.parameters_type)["$defs"]["Parameters"]["properties"].values()
        )


def test_unknown_policies_and_parameters_are_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"'lruu'; there are fifo, gdsf") as unknown:
        find("lruu")
    assert unknown.value.details["policies"] == sorted(policies())
    with pytest.raises(InvalidInput, match=r"half_lif.*it has: window, half_life, question"):
        make_policy(Choice(policy="importance", parameters={"half_lif": 3}))
    with pytest.raises(InvalidInput, match=r"half_life"):
        make_policy(Choice(policy="importance", parameters={"half_life": 0}))
    with pytest.raises(InvalidInput, match=r"it has: none"):
        make_policy(Choice(policy="fifo", parameters={"size": 3}))


@pytest.mark.parametrize("name", sorted(policies()))
def test_an_interrupted_policy_goes_on_as_it_would_have(name: str) -> None:
    choice = Choice(policy=name, budget_tokens=BUDGET)
    steady, resumed, cached = make_policy(choice), make_policy(choice), dict[int, Unit]()
    evicted = 0
    for step, (key, size) in enumerate(zipf_trace(7, length=1500, objects=60), 1):
        state = msgspec.msgpack.encode(resumed.dump())
        resumed = make_policy(choice)
        resumed.load(msgspec.msgpack.decode(state))
        while sum(one.charge for one in cached.values()) + size > BUDGET:
            expected = steady.evict()
            assert resumed.evict() == expected
            assert expected is not None
            del cached[expected.id]
            evicted += 1
        for policy in (steady, resumed):
            if key not in cached:
                policy.admit(unit(key, size, step, rarity=float(key % 17)))
            else:
                policy.touch(msgspec.structs.replace(cached[key], touches=cached[key].touches + 1, used=step))
        if key in cached:
            cached[key].touches += 1
            cached[key].used = step
        else:
            cached[key] = unit(key, size, step, rarity=float(key % 17))
        if step % 50 == 0:
            for policy in (steady, resumed):
                policy.withdraw(key)
            del cached[key]
    assert evicted > 100
