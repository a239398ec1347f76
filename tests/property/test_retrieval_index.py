"""The index against plain references: BM25 by its formula, incremental against batch, removal against never added."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from server.retrieval import analysis, lexical
from server.retrieval.index import Index
from server.retrieval.plan import DEFAULT
from server.retrieval.postings import Postings
from server.retrieval.turns import Entry, Key, Turns, View

WORDS = ["harbour", "ferry", "ticket", "lantern", "violin", "pepper", "gravel", "orchid", "copper", "meadow"]
texts = st.lists(st.sampled_from([*WORDS, "Ada", "Ben"]), min_size=1, max_size=8).map(" ".join)
DIMENSIONS = 6


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Events of two conversations, interleaved, in sessions, by three speakers."""
    heads = Counter[str]()
    entries = []
    for text in draw(st.lists(texts, min_size=1, max_size=25)):
        conversation = draw(st.sampled_from(["a", "b"]))
        heads[conversation] += draw(st.integers(1, 3))
        entries.append(
            Entry(
                conversation=conversation,
                seq=heads[conversation],
                text=text,
                at=heads[conversation] * 60.0,
                session=draw(st.sampled_from(["morning", "evening"])),
                speaker=draw(st.sampled_from(["Ada", "Ben", None])),
                asks=draw(st.booleans()),
                tokens=len(text),
            )
        )
    return entries


def vectors_of(entries: list[Entry]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    seeds = [abs(hash((entry.seq, len(entry.text)))) % 1000 for entry in entries]
    return np.array([np.random.default_rng(seed).normal(size=DIMENSIONS) for seed in seeds])


QUERY = np.random.default_rng(7).normal(size=DIMENSIONS)


def built(entries: list[Entry]) -> Index:
    index = Index()
    index.add(entries, vectors_of(entries))
    return index


def answer(index: Index, question: str) -> list[tuple[Key, float]]:
    return [(hit.key, hit.score) for hit in index.search(question, QUERY, DEFAULT, 100).hits]


@given(logs(), texts)
@settings(max_examples=60, deadline=None)
def test_bm25_is_the_formula(entries: list[Entry], question: str) -> None:
    plan = structs.replace(DEFAULT, window=0)
    turns, postings = Turns(), Postings()
    spoken = [analysis.terms(entry.text) for entry in entries]
    for entry, terms in zip(entries, spoken, strict=True):
        postings.add(turns.add(entry, len(terms)), terms)
    asked = analysis.query_terms(question)

    found = lexical.score(View(turns, None), postings, asked, plan)

    mean = sum(map(len, spoken)) / len(spoken)
    for row, terms in enumerate(spoken):
        expected = 0.0
        for word in {term.terms[0] for term in asked}:
            holding = sum(word in other for other in spoken)
            rarity = math.log(1 + (len(spoken) - holding + 0.5) / (holding + 0.5))
            count = terms.count(word)
            norm = plan.k1 * (1 - plan.b + plan.b * len(terms) / mean)
            expected += rarity * count * (plan.k1 + 1) / (count + norm)
        assert found.window[row] == pytest.approx(expected)


def walk(entries: list[Entry], place: int, steps: int) -> int | None:
    """Return the place of the event so many steps away in the same session of the same conversation."""
    own = [n for n, entry in enumerate(entries) if entry.conversation == entries[place].conversation]
    at = own.index(place)
    between = own[min(at, at + steps) : max(at, at + steps) + 1]
    if not 0 <= at + steps < len(own) or len({entries[n].session for n in between}) > 1:
        return None
    return own[at + steps]


@given(logs(), texts)
@settings(max_examples=60, deadline=None)
def test_windows_sessions_and_coverage_are_what_plain_loops_add_up(entries: list[Entry], question: str) -> None:
    turns, postings = Turns(), Postings()
    spoken = [analysis.terms(entry.text) for entry in entries]
    for entry, terms in zip(entries, spoken, strict=True):
        postings.add(turns.add(entry, len(terms)), terms)
    asked = analysis.query_terms(question)
    view = View(turns, None)

    found = lexical.score(view, postings, asked, DEFAULT)
    near, own = lexical.cover(view, found.found, np.arange(view.size), DEFAULT)

    def around(place: int, reach: int) -> dict[int, float]:
        steps = {step: walk(entries, place, step) for step in range(-reach, reach + 1)}
        return {at: DEFAULT.window_decay ** abs(step) for step, at in steps.items() if at is not None}

    windows = [around(place, DEFAULT.window) for place in range(len(entries))]
    lengths = [sum(share * len(spoken[at]) for at, share in window.items()) for window in windows]
    sessions = sorted({(entry.conversation, entry.session) for entry in entries}, key=str)
    said = [
        [term for entry, terms in zip(entries, spoken, strict=True) if (entry.conversation, entry.session) == one
         for term in terms]
        for one in sessions
    ]  # fmt: skip

    def idf(documents: int, holding: int) -> float:
        return math.log(1 + (documents - holding + 0.5) / (holding + 0.5))

    def saturated(count: float, length: float, mean: float) -> float:
        norm = DEFAULT.k1 * (1 - DEFAULT.b + DEFAULT.b * length / mean)
        return count * (DEFAULT.k1 + 1) / (count + norm)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    words = [word for word in {term.terms[0] for term in asked} if any(word in terms for terms in spoken)]
    rarity = {word: idf(len(spoken), sum(word in terms for terms in spoken)) for word in words}
    total = sum(rarity.values()) or 1.0
    for place, (entry, window) in enumerate(zip(entries, windows, strict=True)):
        scores = [
            rarity[word]
            * saturated(
                sum(share * spoken[at].count(word) for at, share in window.items()), lengths[place], mean(lengths)
            )
            for word in words
        ]
        assert found.window[place] == pytest.approx(sum(scores))
        reached = around(place, DEFAULT.reach)
        assert near[place] * total == pytest.approx(
            sum(rarity[word] for word in words if any(word in spoken[at] for at in reached))
        )
        assert own[place] * total == pytest.approx(sum(rarity[word] for word in words if word in spoken[place]))
        scores = [
            idf(len(said), sum(word in terms for terms in said))
            * saturated(terms.count(word), len(terms), mean([float(len(one)) for one in said]))
            for word in words
            if word in (terms := said[sessions.index((entry.conversation, entry.session))])
        ]
        assert found.sessions[view.column("session")[place]] == pytest.approx(sum(scores))


@given(logs(), texts, st.data())
@settings(max_examples=40, deadline=None)
def test_added_one_by_one_or_at_once_or_embedded_later_is_the_same(
    entries: list[Entry], question: str, data: st.DataObject
) -> None:
    vectors = vectors_of(entries)
    cut = data.draw(st.integers(0, len(entries)))
    parts, late = Index(), Index()
    parts.add(entries[:cut], vectors[:cut])
    for entry, vector in zip(entries[cut:], vectors[cut:], strict=True):
        parts.add([entry], [vector])
    late.add(entries)
    late.embed([entry.key for entry in entries], vectors)

    assert answer(parts, question) == answer(built(entries), question) == answer(late, question)


@given(logs(), texts, st.data())
@settings(max_examples=60, deadline=None)
def test_removed_is_as_if_never_added(entries: list[Entry], question: str, data: st.DataObject) -> None:
    gone = {entry.key for entry in data.draw(st.lists(st.sampled_from(entries)))}
    index = built(entries)
    assert index.remove(gone) == len(gone)
    left = [entry for entry in entries if entry.key not in gone]

    conversations = index.turns.conversations
    removed, never = answer(index, question), answer(built(left), question)

    assert dict(removed) == pytest.approx(dict(never), abs=2e-6)
    assert not gone & {key for key, _ in removed}
    assert set(index.turns._session_numbers) == {(conversations.index(e.conversation), e.session) for e in left}
    words = {term for entry in left for term in analysis.terms(entry.text)}
    erased = {term for entry in entries for term in analysis.terms(entry.text)} - words
    assert not any(word in index._postings for word in erased)


@given(logs(), texts)
@settings(max_examples=60, deadline=None)
def test_what_is_outside_does_not_count(entries: list[Entry], question: str) -> None:
    index = built(entries)
    inside = [entry for entry in entries if entry.conversation == "a"]

    ranking = index.search(question, QUERY, DEFAULT, 100, within=index.turns.select(conversations=["a"]))

    alone = answer(built(inside), question) if inside else []
    assert {hit.key: hit.score for hit in ranking.hits} == pytest.approx(dict(alone), abs=2e-6)


@given(logs(), texts, st.sampled_from(["Ada", "Ben"]))
@settings(max_examples=40, deadline=None)
def test_only_what_is_allowed_is_an_answer(entries: list[Entry], question: str, speaker: str) -> None:
    index = built(entries)
    allowed = {entry.key for entry in entries if entry.speaker == speaker}

    ranking = index.search(question, QUERY, DEFAULT, 100, only=index.turns.select(keys=allowed))

    assert {hit.key for hit in ranking.hits} <= allowed


@given(logs(), st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_question_has_the_same_ordered_answer_every_time(entries: list[Entry], question: str) -> None:
    index = built(entries)
    first, second = answer(index, question), answer(index, question)
    assert first == second
    assert [(-score, key) for key, score in first] == sorted((-score, key) for key, score in first)
    words_only = index.search(question, None, DEFAULT, 5)
    assert len(words_only.hits) <= 5
