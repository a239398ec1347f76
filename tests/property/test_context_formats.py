"""Contexts of any conversation in each format: valid for its API, within the budget, and traced to their events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.context import record
from server.context.assemble import assemble, draft
from server.context.formats.known import WRITERS
from server.context.render import Message
from server.working_set.choice import Choice
from server.working_set.eviction import policies
from server.working_set.fold import Fold
from tests import model_apis
from tests.property.test_context import Talk, written

TEXTS = st.one_of(
    st.sampled_from(["", " ", "\n", "Yes.", "Look at this: ", '{"a": 1}', "[1, 2]"]),
    st.integers(1, 60).map(lambda count: "sea gull " * count),
    st.text(max_size=20).filter(lambda text: text.isprintable()),
)
NAMES = st.sampled_from([None, None, "Ada", "Ada Lovelace", "a" * 80, "naïve/ü"])
PARTS = st.one_of(
    TEXTS.map(lambda text: {"type": "text", "text": text}),
    TEXTS.map(lambda text: {"type": "output_text", "text": text, "annotations": []}),
    st.sampled_from(
        [
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/tiff", "data": "AAAA"}},
            {"type": "input_file", "file_url": "https://example.org/a.pdf", "filename": "a.pdf"},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Hi."}},
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
            {"type": "refusal", "refusal": "I will not."},
            {"type": "hologram", "x": 1},
            {"type": "image"},
            {},
        ]
    ),
)
CONTENTS = st.one_of(TEXTS, TEXTS, st.lists(PARTS, max_size=4))
GIVEN = st.one_of(TEXTS, st.dictionaries(st.sampled_from("abc"), TEXTS, max_size=3), st.lists(TEXTS, max_size=2))
CALL_IDS = st.sampled_from(["a", "b", "call_3", "call_3_", "ü", "x" * 200])
KINDS = ["message"] * 6 + ["call"] * 4 + ["result"] * 5 + ["reasoning", "summary", "constraint", "item"]


@st.composite
def talks(draw: st.DrawFn) -> Talk:
    talk = Talk(Choice(policy=draw(st.sampled_from(sorted(policies()))), budget_tokens=draw(st.integers(1, 4000))))
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=25)):
        head = talk.fold.head
        match kind:
            case "message":
                role = draw(st.sampled_from(["user", "user", "assistant", "assistant", "system", "developer", "tool"]))
                talk.add(draw(CONTENTS), role=role, name=draw(NAMES))
            case "call":
                tool = draw(NAMES) or "look"
                talk.add(draw(GIVEN), type="tool_call", role=None, call_id=draw(CALL_IDS), name=tool)
            case "result":
                talk.add(draw(CONTENTS), type="tool_result", role=None, call_id=draw(CALL_IDS))
            case "summary" if head:
                covers = {"first_seq": head, "last_seq": head}
                talk.add({"text": draw(TEXTS), "covers": covers}, type=kind, role=None)
            case "item":
                talk.add({"type": "note", "text": draw(TEXTS)}, type=kind, role=None)
            case "reasoning" | "constraint":
                setter = draw(st.sampled_from(["user", "developer"])) if kind == "constraint" else None
                talk.add(draw(CONTENTS), type=kind, role=setter)
    return talk


def seqs_of(sources: Sequence[dict[str, Any]]) -> list[int]:
    return [source["seq"] for source in sources]


def answered(talk: Talk, name: str) -> dict[str, Any]:
    """Return the answer in a format, after its record has been stored and read again."""
    made = record.Record.of(assemble(draft(talk.fold), talk.events), format=name)
    body = record.answer(made, talk.events, {})
    assert record.answer(record.load(record.dump(made)), talk.events, {}) == body
    found: dict[str, Any] = msgspec.json.decode(b'{"snapshot_id":""' + body)
    return found


@pytest.mark.parametrize("name", sorted(WRITERS))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(talk=talks())
def test_a_context_is_one_that_its_api_takes(name: str, talk: Talk) -> None:
    format_ = name.partition("/")[0]
    found = answered(talk, name)
    model_apis.check(format_, found["messages"])
    shown = {message.seq: message for message in written(talk, assemble(draft(talk.fold), talk.events))}
    sources = [*found["sources"], found.get("system_sources", [])]
    used = [seq for one in sources for seq in seqs_of(one)]
    left_out = seqs_of(found.get("left_out", []))
    assert sorted([*used, *left_out]) == sorted(shown), "each event is in one place"
    assert len(found["sources"]) == len(found["messages"])
    said = [seq for seq in used if shown[seq].type not in ("tool_call", "tool_result")]
    assert not any(shown[seq].type == "reasoning" for seq in said)
    assert found["tokens"] == sum(shown[seq].tokens for seq in used) <= found["budget_tokens"]
    takes = 0
    for message, its in zip(found["messages"], found["sources"], strict=True):
        takes += model_apis.tokens(format_, message)
        if its:
            assert model_apis.tokens(format_, message) <= sum(source["tokens"] for source in its), message
    if "system" in found:
        takes += model_apis.tokens(format_, {"role": "user", "content": found["system"]})
    assert takes <= found["tokens"], "what is said takes no more than is counted"


@pytest.mark.parametrize("name", sorted(WRITERS))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(talk=talks(), data=st.data())
def test_it_stays_one_when_events_are_erased(name: str, talk: Talk, data: st.DataObject) -> None:
    made = record.Record.of(assemble(draft(talk.fold), talk.events), format=name)
    some = st.sets(st.integers(1, max(1, talk.fold.head)))
    gone, lost = data.draw(some), data.draw(some)
    left = {
        seq: msgspec.structs.replace(one, content=msgspec.UNSET, name=None, call_id=None, erased_at=one.recorded_at)
        if seq in gone
        else one
        for seq, one in talk.events.items()
        if seq not in lost
    }
    found = msgspec.json.decode(b'{"snapshot_id":""' + record.answer(made, left, {}))
    model_apis.check(name.partition("/")[0], found["messages"])
    assert set(found.get("erased", [])) == (gone | lost) & set(made.seqs)
    used = {seq for its in found["sources"] for seq in seqs_of(its)}
    assert not used & (gone | lost)


def test_without_a_format_nothing_is_other_than_before() -> None:
    made = record.Record.of(assemble(draft(Fold(Choice())), {}))
    assert "format" not in record.dump(made)
    body = record.answer(made, {}, {})
    assert body.startswith(b',"head":0,"tokens":0,')
    assert body.count(b"format") == 0
    with pytest.raises(msgspec.ValidationError, match="openai/99"):
        record.load(record.dump(record.Record.of(assemble(draft(Fold(Choice())), {}), format="openai/99")))


def test_a_message_is_written_from_what_is_shown_alone() -> None:
    """No clock, no chance, no state: what was shown once is shown again."""
    messages = [Message(seq=1, type="message", role="user", content=msgspec.Raw(b'"x"'), tokens=5, reason="kept")]
    for write in WRITERS.values():
        assert write(messages) == write(messages)
