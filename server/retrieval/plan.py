"""How a search weighs what it finds: every weight and option of a ranking, under a version."""

from __future__ import annotations

from typing import Final

from msgspec import Struct, structs


class Weights(Struct, frozen=True, kw_only=True):
    """What one unit of each signal adds to an event's score; 0 turns it off.

    Scores are log-odds up to a constant: the weights maximise the likelihood of the labelled evidence under a softmax
    over the conversation (see benchmarks/retrieval_tuning.py), so a difference of 1 is a factor of e.
    """

    # Standardised over the candidates (mean 0, deviation 1).
    dense: float = 0.0
    dense_session: float = 0.0
    lexical: float = 0.0
    lexical_session: float = 0.0
    # Shares, from 0 to 1.
    coverage: float = 0.0
    coverage_turn: float = 0.0
    speaker: float = 0.0
    length: float = 0.0
    asks: float = 0.0
    answers: float = 0.0
    date: float = 0.0
    recency: float = 0.0


class Plan(Struct, frozen=True, kw_only=True):
    """Weights and options of one ranking.

    ``model``: the embedding model that the weights were fitted with; weights for another may be poor. ``k1``, ``b``:
    BM25's. ``window``: how many turns on each side count as an event's text for BM25, each ``window_decay`` of the one
    nearer. ``reach``: how many turns on each side count for coverage. ``before``, ``after``: what the neighbours'
    similarity counts beside an event's own. ``full_length``: terms from which a turn is as long as need be.
    ``half_life``: turns after which recency is halved. ``pool``: at most so many events are ranked in full; a scope
    that has more takes the best of each leg, so that scores mean the same in scopes of any size. ``density``: how far
    a budget prefers short events, from 0 (the score alone) to 1 (evidence per token). ``neighbours``: the turns beside
    so many of the best are shown with them.
    """

    version: str
    model: str
    weights: Weights
    k1: float = 1.2
    b: float = 0.75
    window: int = 2
    window_decay: float = 0.5
    reach: int = 3
    before: float = 0.5
    after: float = 0.2
    full_length: int = 40
    half_life: float = 50.0
    pool: int = 1000
    density: float = 0.5
    neighbours: int = 3


# Weights belong to a model: fitted by benchmarks/retrieval_tuning.py on people's chats, judged on assistants' too.
PLANS: Final[dict[str, Plan]] = {
    "static": Plan(
        version="hybrid/1",
        model="l2_supercat_256",
        weights=Weights(
            lexical=0.30,
            lexical_session=0.47,
            coverage=2.2,
            coverage_turn=0.7,
            dense=0.48,
            dense_session=0.16,
            speaker=0.98,
            length=1.7,
            asks=-0.85,
            answers=0.87,
            date=4.8,
        ),
    ),
    "minilm": Plan(
        version="hybrid/1",
        model="all-MiniLM-L6-v2",
        weights=Weights(
            lexical=0.29,
            lexical_session=0.44,
            coverage=2.1,
            coverage_turn=0.8,
            dense=0.72,
            dense_session=0.15,
            speaker=0.89,
            length=1.7,
            asks=-0.78,
            answers=0.82,
            date=4.8,
        ),
    ),
}
DEFAULT: Final = PLANS["static"]
# In the names of models without attention (WordLlama's, Model2Vec's, Sentence Transformers' static ones): a vector for
# each word tells less than a transformer does, so it has less weight.
_STATIC: Final = ("supercat", "potion", "m2v", "static-")


def plan_for(model: str) -> Plan:
    """Return the plan fitted with a model; for another, that of its kind: static, or a transformer as most are."""
    name = model.casefold()
    for plan in PLANS.values():
        if plan.model.casefold() in name:
            return plan
    kind = "static" if any(part in name for part in _STATIC) else "minilm"
    return structs.replace(PLANS[kind], model=model)
