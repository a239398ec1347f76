"""`compare` on candidates that are sound, or sabotaged each in one way: the gate that names the sabotage fails."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import numpy as np
import pytest
from rich.console import Console

from server.cli import comparing
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.embeddings.lifecycle.golden import GoldenSet, Question
from server.embeddings.migration import compare, golden, questions
from server.embeddings.migration.compare import Measured
from server.errors import ProviderUnavailable
from server.log import erase
from server.retrieval.index import Index
from server.retrieval.plan import DEFAULT, PLANS, plan_for
from server.retrieval.thresholds import THRESHOLDS
from server.retrieval.turns import Entry
from server.search.asked import Asked
from tests import versions
from tests.versions import (
    Lab,
    Models,
    Vector,
    add_version,
    asked,
    embedded,
    lab,
    route,
    said,
    sound,
    telling,
    told,
)

USERS, EACH = 12, 30
THINGS = USERS * EACH
LONG_ONE = "length=513-1024"


def is_long(thing: int) -> bool:
    return thing % 2 == 0


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    """Models of this test."""
    with telling(monkeypatch) as made:
        yield made


@pytest.fixture
async def chats(database: Database, tenant: Tenant) -> list[ConversationId]:
    """What twelve users told of, and a golden set about it, which somebody approved."""
    at = []
    wanted = []
    for user in range(USERS):
        things = range(user * EACH, (user + 1) * EACH)
        texts = [told(thing, long=is_long(thing)) for thing in things]
        at.append(await said(database, tenant, f"user {user}", texts, origin=f"chat-{user}"))
        wanted += [
            Question(id=f"q{thing}", conversation=f"chat-{user}", text=asked(thing), evidence=(f"e{place}",))
            for place, thing in enumerate(things, 1)
        ]
    stored, left_out = await golden.add(database, tenant, golden_set(*wanted))
    assert (stored.questions, left_out) == (USERS * EACH, ())
    await golden.approve(database, tenant, "ours", 1, who="ida")
    return at


def golden_set(*wanted: Question) -> GoldenSet:
    return GoldenSet(name="ours", version=1, owner="ida", questions=wanted)


@asynccontextmanager
async def against(
    address: EmbeddedAddress, database: Database, models: Models, old: Vector, new: Vector, **thresholds: float
) -> AsyncIterator[tuple[Lab, int, int]]:
    """Run an old and a new version with all their vectors."""
    models.add("old", old)
    models.add("new", new)
    numbers = add_version(address, "old", "active"), add_version(address, "new")
    units = {numbers[0]: thresholds, numbers[1]: {}}
    route(address, active=numbers[0], candidate=numbers[1], written=list(numbers), shadow=10_000, units=units)
    async with lab(database) as made:
        await embedded(address, *numbers)
        await made.follow()
        yield made, *numbers


async def measure(lab: Lab, old: int, new: int) -> Measured:
    return await compare.measure(lab.searcher, lab.database, lab.serving(old), lab.serving(new))


def failing(found: Measured) -> set[str]:
    assert all(gate.why for gate in found.gates)
    return {gate.title for gate in found.gates if gate.outcome == "fail"}


async def test_a_sound_candidate_passes_every_gate_and_all_is_shown(
    address: EmbeddedAddress, database: Database, tenant: Tenant, models: Models, chats: list[ConversationId]
) -> None:
    async with against(address, database, models, sound, sound, demo=0.5) as (made, old, new):
        for thing in range(0, THINGS, 36):
            user = f"user {thing // EACH}"
            await made.searcher.find(tenant, Asked(query=asked(thing), k=10, user=user))
        await made.shadow.idle()
        told_of: list[tuple[int, int]] = []
        found = await compare.measure(
            made.searcher,
            database,
            made.serving(old),
            made.serving(new),
            progress=lambda done, of: told_of.append((done, of)),
        )
    assert failing(found) == set()
    assert found.passed
    assert told_of[-1] == (THINGS, THINGS)
    assert (found.asked, found.failed, found.shadowed) == (THINGS, 0, 10)
    whole = found.compared.golden
    assert whole is not None
    assert (whole.name, whole.version, whole.approved) == ("ours", 1, True)
    assert [one.segment for one in whole.recalls] == ["all", "length=1-64", LONG_ONE]
    assert whole.recalls[0].interval.by == "group"
    assert whole.recalls[0].interval.old > 0.95
    # Exact search, built anew, ranks as it did.
    floor = found.compared.floor
    assert floor is not None
    assert {one.overlap for one in (*floor.dense, *floor.final)} == {1.0}
    agreed = found.compared.agreements
    assert agreed is not None
    assert 0 < agreed.dense[0].overlap < 1  # another frame is another order of what is far from the question
    assert found.compared.latency is not None
    assert found.compared.latency.searches == THINGS
    # A threshold's value on the new scale is where as large a share of the scores lies.
    (demo,) = found.thresholds
    assert (demo.name, demo.old) == ("demo", 0.5)
    assert demo.value is not None
    assert found.recalibrated() == {"demo": demo.value}
    assert found.scores is not None
    assert abs(found.scores.old.mean - found.scores.new.mean) < 0.1

    report = msgspec.json.decode(msgspec.json.encode(found.report()))
    assert (report["passed"], report["old"], report["new"]) == (True, "old", "new")
    assert report["figures"]["recall_old"] == whole.recalls[0].interval.old
    shown = text(report)
    for part in ("new against old", "All gates pass", "recall@10", LONG_ONE, "A/A", "demo", "largest disagreements"):
        assert part in shown, part
    assert "its words are not kept" in shown or asked(0)[:5] in shown


def text(report: comparing.Report) -> str:
    console = Console(file=io.StringIO(), width=140, highlight=False)
    comparing.show(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_random_vectors_fail_by_recall(
    address: EmbeddedAddress, database: Database, models: Models, chats: list[ConversationId]
) -> None:
    async with against(address, database, models, sound, versions.random_vectors) as (made, old, new):
        found = await measure(made, old, new)
    assert {"recall", "recall [length=1-64]", f"recall [{LONG_ONE}]"} <= failing(found)
    gate = next(one for one in found.gates if one.title == "recall")
    assert "it is worse, by more than 0.020" in gate.why
    # Nothing was shadowed, and that fails too; nothing else does.
    assert failing(found) - {"recall", "recall [length=1-64]", f"recall [{LONG_ONE}]"} == {"shadow_errors"}
    shown = text(found.report())
    assert "gates fail" in shown
    assert "✓" in shown  # the examples say which answer was right
    assert found.examples[0].evidence[0] in found.examples[0].old


async def test_a_candidate_that_is_broken_on_long_texts_fails_by_that_segment_alone(
    address: EmbeddedAddress, database: Database, models: Models, chats: list[ConversationId]
) -> None:
    """It gains more on short texts than it loses on long ones: the mean alone would let it in."""
    async with against(address, database, models, versions.poor_when_short, versions.broken_when_long) as (
        made,
        old,
        new,
    ):
        found = await measure(made, old, new)
    assert failing(found) == {f"recall [{LONG_ONE}]", "shadow_errors"}
    assert found.compared.golden is not None
    assert found.compared.golden.recalls[0].interval.difference > 0.05


async def test_questions_at_which_the_candidates_model_fails_count_as_not_found(
    address: EmbeddedAddress, database: Database, models: Models, chats: list[ConversationId]
) -> None:
    async with against(address, database, models, sound, sound) as (made, old, new):
        refused = {asked(thing) for thing in range(0, THINGS, 4)}
        models.by_name["new"].refuses = refused.__contains__
        found = await measure(made, old, new)
        assert (found.asked, found.failed) == (THINGS, THINGS // 4)
        assert "recall" in failing(found)
        assert found.compared.golden is not None
        assert found.compared.golden.recalls[0].interval.new < 0.8
        models.by_name["new"].down = True
        with pytest.raises(ProviderUnavailable):
            await measure(made, old, new)


async def test_without_a_golden_set_nothing_passes(
    address: EmbeddedAddress, database: Database, tenant: Tenant, models: Models
) -> None:
    at = await said(database, tenant, "ada", [told(1)])
    async with against(address, database, models, sound, sound, demo=0.5) as (made, old, new):
        assert failing(await measure(made, old, new)) == {"recall", "latency", "shadow_errors"}
        one = Question(id="q", conversation=str(at), text=asked(1), evidence=("e1",))
        await golden.add(database, tenant, golden_set(one))
        found = await measure(made, old, new)
        assert {"golden_approved", "recall"} <= failing(found)
        assert found.thresholds[0].value is None
        assert "200 are needed" in found.thresholds[0].why
        assert "-" in text(found.report())
        await erase.erase_event(database, tenant, at, 1, actor="test")
        assert "recall" in failing(await measure(made, old, new))


async def test_approved_sets_of_all_tenants_count_and_others_do_not(
    database: Database, tenant: Tenant, chats: list[ConversationId]
) -> None:
    at = await said(database, tenant, "bob", [told(3)])
    one = Question(id="q", conversation=str(at), text=asked(3), evidence=("e1",))
    await golden.add(database, tenant, msgspec.structs.replace(golden_set(one), name="draft"))
    found = await questions.read(database)
    assert found is not None
    assert (found.name, found.approved, len(found.questions)) == ("ours", True, THINGS)
    assert {length > 500 for question in found.questions for length in question.lengths} == {True, False}
    await golden.approve(database, tenant, "draft", 1, who="ida")
    both = await questions.read(database)
    assert both is not None
    assert (both.name, len(both.questions)) == ("draft 1, ours 1", THINGS + 1)


def test_no_threshold_is_on_a_models_scale() -> None:
    """The registry is honest: another model's scale of similarity, affinely other, changes no answer."""
    random = np.random.default_rng(0)
    words = [f"{versions.TOLD[number % THINGS]} {versions.TOLD[number * 7 % THINGS]}" for number in range(200)]
    entries = [Entry(conversation="a", seq=number, text=text, at=number) for number, text in enumerate(words, 1)]
    vectors = random.standard_normal((200, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = vectors[17] + 0.3 * random.standard_normal(16).astype(np.float32)
    query /= np.linalg.norm(query)
    # A component that all share: every cosine c becomes .1 c + .9.
    narrow = np.hstack([np.sqrt(0.1) * vectors, np.full((200, 1), np.sqrt(0.9))])
    index, other = Index(), Index()
    index.add(entries, vectors)
    other.add(entries, narrow)
    first = index.search("what was there", query, DEFAULT, 50)
    second = other.search("what was there", [*(np.sqrt(0.1) * query), np.sqrt(0.9)], DEFAULT, 50)
    assert [hit.key for hit in first.hits] == [hit.key for hit in second.hits]
    assert 18 in {hit.key.seq for hit in first.hits[:10]}
    assert THRESHOLDS == {}


@pytest.mark.parametrize(
    ("model", "like"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "minilm"),
        ("BAAI/bge-small-en-v1.5", "minilm"),
        ("l2_supercat_256", "static"),
        ("l3_supercat_512", "static"),
        ("minishlab/potion-base-8M", "static"),
    ],
)
def test_a_version_is_read_with_the_weights_of_its_kind(model: str, like: str) -> None:
    assert plan_for(model).weights == PLANS[like].weights
