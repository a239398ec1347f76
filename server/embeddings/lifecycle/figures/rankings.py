"""How alike two rankings are, and how much of the evidence one holds. Items are whatever names an event; no repeats."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from math import log
from typing import Final, TypeVar

Item = TypeVar("Item", bound=Hashable)

# The first ten ranks then carry 86 % of the weight (equation 21 of the paper): what a context or a page shows.
PERSISTENCE: Final = 0.9


def overlap(one: Sequence[Item], other: Sequence[Item], k: int) -> float:
    """Return the share of the first ``k`` that both have, from 0 to 1; of fewer, where both rankings are shorter."""
    first, second = set(one[:k]), set(other[:k])
    longest = max(len(first), len(second))
    return len(first & second) / longest if longest else 1.0


def rank_biased_overlap(one: Sequence[Item], other: Sequence[Item], p: float = PERSISTENCE) -> float:
    """Return RBO from 0 to 1, extrapolated beyond what is seen, for rankings of any two lengths.

    ``p``: the chance that a reader goes on from one rank to the next; the smaller, the more the top counts. Equation 32
    of Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", ACM TOIS 28(4), 2010. Raises ValueError
    for a ``p`` that is not between 0 and 1, both left out.
    """
    if not 0 < p < 1:
        raise ValueError(f"p is a chance between 0 and 1, not {p}")
    short, long = sorted((one, other), key=len)
    if not short:
        return 0.0 if long else 1.0
    seen_short: set[Item] = set()
    seen_long: set[Item] = set()
    common, total, weight = 0, 0.0, 1.0
    common_short = 0
    for depth, item in enumerate(long, 1):
        weight *= p
        seen_long.add(item)
        common += item in seen_short
        if depth <= len(short):
            mate = short[depth - 1]
            seen_short.add(mate)
            common += mate in seen_long
            common_short = common
        else:
            # What the shorter ranking would have shown by now, had it gone on as it did.
            total += common_short * (depth - len(short)) / (len(short) * depth) * weight
        total += common / depth * weight
    rest = (common - common_short) / len(long) + common_short / len(short)
    return (1 - p) / p * total + rest * weight


def weight_of_first(ranks: int, p: float = PERSISTENCE) -> float:
    """Return the share of RBO's weight that the first ranks carry: equation 21 of the same paper."""
    return 1 - p ** (ranks - 1) + (1 - p) / p * ranks * (log(1 / (1 - p)) - sum(p**i / i for i in range(1, ranks)))


def swaps(one: Sequence[Item], other: Sequence[Item]) -> float:
    """Return the share of pairs, of items in both rankings, whose order differs: from 0 to 1 (Kendall's distance)."""
    place = {item: rank for rank, item in enumerate(other)}
    ranks = [place[item] for item in one if item in place]
    pairs = len(ranks) * (len(ranks) - 1) // 2
    if not pairs:
        return 0.0
    return sum(ranks[i] > ranks[j] for i in range(len(ranks)) for j in range(i + 1, len(ranks))) / pairs


def recall(ranking: Sequence[Item], evidence: Collection[Item], k: int) -> float:
    """Return the share of the evidence among the first ``k``; raises ValueError without evidence."""
    if not evidence:
        raise ValueError("recall needs evidence: leave out questions that have none")
    return len(set(ranking[:k]) & set(evidence)) / len(set(evidence))
