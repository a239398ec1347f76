"""Ranking through the index's door: what is found, in what order, and what a search says of itself."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from server.errors import InvalidInput
from server.retrieval.budget import fill
from server.retrieval.index import Index
from server.retrieval.plan import DEFAULT, PLANS, Weights, plan_for
from server.retrieval.turns import Entry, Key

CHAT = [
    ("Ada", "morning", "Did you find the lantern for the boat?"),
    ("Ben", "morning", "Yes, it was in the shed behind the old violin case."),
    ("Ada", "morning", "Wonderful!"),
    ("Ben", "evening", "I signed up for a pottery course, it starts next week."),
    ("Ada", "evening", "What will you make?"),
    ("Ben", "evening", "A green teapot, and a bowl for my sister Ruth."),
    ("Ada", "evening", "I went to Lisbon once, long ago, and the trams were full."),
]


def entries(conversation: str = "c", texts: list[str] | None = None) -> list[Entry]:
    """The chat, or other texts said by nobody, a minute apart."""
    said = CHAT if texts is None else [(None, None, text) for text in texts]
    return [
        Entry(
            conversation=conversation,
            seq=seq,
            text=f"{speaker}: {text}" if speaker else text,
            at=1_700_000_000.0 + 60 * seq,
            session=session,
            speaker=speaker,
            asks=text.endswith("?"),
            role="user",
            tokens=10,
        )
        for seq, (speaker, session, text) in enumerate(said, 1)
    ]


def built(*logs: list[Entry]) -> Index:
    index = Index()
    for log in logs:
        index.add(log)
    return index


def found(index: Index, question: str, k: int = 1) -> list[int]:
    return [hit.key.seq for hit in index.search(question, None, DEFAULT, k).hits]


def test_an_irregular_form_finds_its_verb() -> None:
    assert found(built(entries()), "Where did Ada go?") == [7]


def test_the_answer_to_a_question_is_found_by_the_question_before_it() -> None:
    assert 6 in found(built(entries()), "What will Ben make?", 2)


def test_the_named_speaker_is_preferred_to_who_is_spoken_of() -> None:
    said = [("Ada", "Ben likes gravel paths"), ("Ben", "I like gravel paths")]
    log = [
        Entry(conversation="c", seq=seq, text=f"{name}: {text}", speaker=name, session="s")
        for seq, (name, text) in enumerate(said, 1)
    ]
    assert found(built(log), "Does Ben like gravel?") == [2]
    assert found(built(log), "Does Ada like gravel?") == [1]


def test_a_date_in_the_question_finds_what_occurred_then() -> None:
    log = [
        Entry(conversation="c", seq=month, text="we met for tea", at=1_672_531_200.0 + month * 30 * 86_400)
        for month in range(1, 8)
    ]
    assert found(built(log), "What happened in May 2023?") == [4]
    assert found(built(log), "Did we have tea on 1 May 2023?") == [4]
    times = [(log[5].at - 1, log[5].at + 1)]
    ranking = built(log).search("tea", None, DEFAULT, 1, times=times)
    assert ranking.hits[0].key.seq == 6


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("Wo haben die Hunde geschlafen?", "Der Hund schläft im Garten, sagt meine Mutter"),
        ("Où est-ce que Marie habite ?", "J'habite à Lyon depuis l'été"),
        ("Какие книги она читала?", "Вчера я купил новую книгу о море"),
        ("متى ذهبت إلى المدرسة؟", "مدرسة جديدة في المدينة"),
        ("他在哪里学习?", "我在北京大学学习"),
        ("東京はどうでしたか", "先週、東京に行きました"),
        ("서울에서 뭐 했어?", "지난주에 서울을 여행했다"),
        ("ไปเชียงใหม่เมื่อไหร่", "เราไปเที่ยวเชียงใหม่มา"),
        ("क्या उसने किताब पढ़ी?", "मैंने एक नई किताब खरीदी"),
        ("straße", "Wir wohnen in der Hauptstrasse, STRASSE ohne Bäume"),
        ("naive cafe", "a naïve sketch of the café"),
        ("What is ORD-4471?", "The order ord-4471 was shipped"),
        ("4471", "The order ord-4471 was shipped"),
        ("getUserName", "call getUserName(id) first"),
        ("the user name function", "call getUserName(id) first"),
        ("version 3.1.0", "we run 3.1.0 in production"),
        ("350000", "pre-approved for $350,000 by the bank"),
        ("🎻", "practised 🎻 all day"),
        ("who is he", "he is who he is"),
    ],
)
def test_questions_find_their_texts_in_any_language(question: str, text: str) -> None:
    others = [
        "Something else entirely",
        "Noch etwas anderes",
        "Autre chose",
        "Другое дело",
        "شيء آخر",
        "別の話",
        "다른 것",
    ]
    index = built(entries(texts=[*others, text]), entries("d"))
    assert index.search(question, None, DEFAULT, 1).hits[0].key == Key("c", 8)


@pytest.mark.parametrize(
    "question",
    [
        "",
        " ",
        "?",
        "e",
        "🫥🫥",
        "the of and",
        "a" * 100_000,
        "word " * 20_000,
        "\x00\x01\xff\u202e",
        "日" * 100_000,
        "9" * 5000,
    ],
)
def test_hostile_questions_have_an_answer_and_end(question: str) -> None:
    index = built(entries())
    index.embed([Key("c", 1)], [[1.0, 0.0]])
    assert len(index.search(question, None, DEFAULT, 10).hits) <= 7
    assert len(index.search(question, [0.6, 0.8], DEFAULT, 10).hits) == 7


def test_nothing_to_go_by_finds_nothing() -> None:
    index = built(entries())
    assert index.search("", None, DEFAULT, 10).hits == ()
    assert index.search("xylophone", None, DEFAULT, 10).hits == ()
    assert Index().search("lantern", [1.0, 0.0], DEFAULT, 10).hits == ()
    assert index.search("lantern", None, DEFAULT, 0).hits == ()
    assert len(index.search("lantern", None, DEFAULT, 10_000).hits) <= 7


def test_without_vectors_only_words_take_part() -> None:
    index = built(entries())
    ranking = index.search("lantern", [1.0, 0.0], DEFAULT, 3)
    assert not ranking.dense
    index.embed([Key("c", 4), Key("c", 1), Key("gone", 1)], [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    ranking = index.search("qqq", [1.0, 0.0], structs.replace(DEFAULT, weights=Weights(dense=1.0)), 7)
    assert ranking.dense
    assert ranking.hits[0].key.seq == 4
    assert ranking.why(Key("c", 1)).k_needed == 7


def test_vectors_of_another_space_are_refused_and_add_nothing() -> None:
    index = Index()
    index.add(entries()[:1], [[1.0, 0.0]])
    for vectors, word in (([[1.0, 0.0, 0.0]], "dimensions"), ([[float("nan"), 0.0]], "finite"), ([], "expected")):
        with pytest.raises(InvalidInput, match=word):
            index.add(entries()[1:2], vectors)
    with pytest.raises(InvalidInput, match="dimensions"):
        index.search("lantern", [1.0], DEFAULT, 1)
    assert len(index) == 1
    with pytest.raises(InvalidInput, match="ascending"):
        index.add(entries()[:1])


def test_equal_scores_are_ordered_by_conversation_and_seq() -> None:
    same = ["gravel path", "gravel path", "gravel path"]
    index = built(entries("b", same), entries("a", same))
    plan = structs.replace(DEFAULT, weights=Weights(coverage_turn=1.0))
    keys = [hit.key for hit in index.search("gravel", None, plan, 4).hits]
    assert keys == [Key("a", 1), Key("a", 2), Key("a", 3), Key("b", 1)]


def test_a_removed_speaker_and_word_leave_nothing_behind() -> None:
    index = built([Entry(conversation="c", seq=1, text="Zenobia: xylophones", speaker="Zenobia"), *entries()[1:]])
    assert index.remove([Key("c", 1), Key("c", 99)]) == 1
    assert Key("c", 1) not in index
    assert index.search("xylophones Zenobia", None, DEFAULT, 10).hits == ()
    assert "zenobia" not in index.turns.speakers
    assert index.remove(entry.key for entry in entries()) == 6
    assert len(index) == 0
    assert index.search("teapot", None, DEFAULT, 10).hits == ()


def test_a_silence_ends_a_session_that_has_no_name() -> None:
    log = entries(texts=["gravel", "first", "second"])
    log[2] = structs.replace(log[2], at=log[1].at + 3600)
    index = built(log)
    assert index.turns["session"].tolist() == [0, 0, 1]
    assert set(found(index, "gravel", 10)) == {1, 2}


def test_why_says_where_an_event_stands() -> None:
    index = built(entries(), entries("d", ["nothing of the kind"]))
    within = index.turns.select(conversations=["c"])
    only = index.turns.select(keys=[Key("c", seq) for seq in range(1, 7)])
    ranking = index.search("lantern in the shed", None, DEFAULT, 1, within=within, only=only)
    assert ranking.why(ranking.hits[0].key).reason == "answered"
    assert ranking.why(Key("c", 99)).reason == "not_indexed"
    assert ranking.why(Key("d", 1)).reason == "outside"
    assert ranking.why(Key("c", 7)).reason == "filtered"
    assert ranking.why(Key("c", 6)).reason == "no_evidence"

    below = ranking.why(Key("c", 3))
    assert below.reason == "ranked"
    assert below.k_needed is not None
    again = index.search("lantern in the shed", None, DEFAULT, below.k_needed, within=within, only=only)
    assert again.hits[-1].key == Key("c", 3)
    assert below.score == pytest.approx(sum(signal.adds for signal in below.signals), abs=1e-5)
    assert below.score is not None
    assert below.cutoff is not None
    for signal in below.signals:
        if signal.needed is not None:
            raised = below.score + signal.weight * (signal.needed - signal.value)
            assert raised == pytest.approx(below.cutoff, abs=1e-4)
    assert dict(ranking.terms) == {"lantern": 1, "shed": 1}
    assert {stage.name for stage in ranking.stages()} >= {"lexical", "coverage", "speaker"}


def test_a_large_scope_ranks_the_best_of_each_leg() -> None:
    texts = [f"filler number {seq}" for seq in range(1, 401)]
    texts[299] = "the lantern"
    log = entries(texts=texts)
    vectors = np.tile([1.0, 0.0], (400, 1))
    vectors[99] = [0.0, 1.0]
    index = Index()
    index.add(log, vectors)
    ranking = index.search("lantern", [0.0, 1.0], structs.replace(DEFAULT, pool=40), 40)
    assert ranking.pooled <= 40
    assert {hit.key.seq for hit in ranking.hits} >= {100, 300}
    assert ranking.hits[0].key.seq == 300
    assert ranking.why(Key("c", 250)).reason == "not_pooled"


def test_recency_counts_when_the_plan_says_so() -> None:
    index = built(entries(texts=["gravel path"] * 5))
    plan = structs.replace(DEFAULT, weights=structs.replace(DEFAULT.weights, recency=50.0))
    assert [hit.key.seq for hit in index.search("gravel", None, plan, 5).hits] == [5, 4, 3, 2, 1]


def test_a_budget_is_filled_with_the_best_and_their_neighbours_in_order() -> None:
    index = built(entries())
    ranking = index.search("lantern in the shed", None, DEFAULT, 1)
    filled = fill(ranking, 30)
    assert [key.seq for key in filled.keys] == [1, 2, 3]
    assert filled.tokens == 30
    assert fill(ranking, 9).keys == ()
    only = index.turns.select(keys=[Key("c", 1)])
    assert [key.seq for key in fill(index.search("lantern", None, DEFAULT, 9, only=only), 1000).keys] == [1]


def test_a_select_narrows_by_all_that_is_given() -> None:
    index = built(entries(), entries("d", ["gravel"]))
    turns = index.turns
    start = entries()[0].at
    assert turns.select(conversations=["c", "nowhere"]).sum() == 7
    assert turns.select(since=start, until=start + 60).sum() == 2
    assert turns.select(roles=["assistant"]).sum() == 0
    assert turns.select(types=["message"], roles=["user"]).sum() == 8
    index.remove([Key("d", 1)])
    assert turns.select().sum() == 7


def test_plans_belong_to_models() -> None:
    assert plan_for("l2_supercat_256") is PLANS["static"]
    assert plan_for("sentence-transformers/all-MiniLM-L6-v2") is PLANS["minilm"]
    assert plan_for("another").model == "another"


def test_memory_is_accounted_for() -> None:
    small, large = built(entries()), built(*(entries(str(number)) for number in range(50)))
    assert 0 < small.nbytes < large.nbytes
