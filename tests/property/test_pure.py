"""Pure rules for any input: lineages against copied lists, JSON text against the json module, ids there and back."""

from __future__ import annotations

import json
import math
import re
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.api.edge import decode_bytes
from server.api.json_text import MAX_DEPTH, check_text
from server.database.ids import (
    ConversationId,
    EventId,
    keyed_hash,
    parse_conversation_id,
    parse_event_id,
    user_key,
    uuid7,
)
from server.errors import BadRequest, InvalidInput
from server.log.events import NewEvent, digest
from server.log.lineage import Lineage

SETTINGS = settings(max_examples=300, derandomize=True, deadline=None, database=None)

# Growth is how many events each conversation appends before the next one forks it, and where.
STEPS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10**6)), min_size=1, max_size=12)


@SETTINGS
@given(STEPS)
def test_a_lineage_names_who_appended_each_event(steps: list[tuple[int, int]]) -> None:
    """Against lists that are copied at each fork."""
    lineage = Lineage([], [])
    shown: list[UUID] = []
    for number, (grows, where) in enumerate(steps, 1):
        me = UUID(int=number)
        shown += [me] * grows
        for seq, owner in enumerate(shown, 1):
            assert lineage.owner(me, seq) == owner
        at_seq = where % (len(shown) + 1)
        lineage = lineage.at(me, at_seq)
        shown = shown[:at_seq]
        assert lineage.end == at_seq
        assert lineage.ends == sorted(set(lineage.ends)), "an owner of nothing is kept"
        assert len(lineage.owners) == len(lineage.ends) == len(set(shown))


ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=8)  # lone surrogates included
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=12,
)


def has_lone_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return any(has_lone_surrogate(item) for pair in value.items() for item in pair)
    return isinstance(value, list) and any(map(has_lone_surrogate, value))


def has_nan(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(has_nan, value.values()))
    if isinstance(value, list):
        return any(map(has_nan, value))
    return isinstance(value, float) and not math.isfinite(value)


_raw = msgspec.json.Decoder(msgspec.Raw)


@SETTINGS
@given(JSON, st.booleans())
@example("\ud83d\ude00", True)  # two escapes that Python joins to one character
@example(["\\ud800", '"\\', "\\\\ud800"], True)
def test_json_text_is_taken_exactly_when_it_is_unicode(value: Any, indent: bool) -> None:
    text = json.dumps(value, indent=1 if indent else None).encode()  # all that is not ASCII is escaped
    meant = json.loads(text)
    if has_nan(meant):
        with pytest.raises(BadRequest):
            decode_bytes(text, _raw)
    elif has_lone_surrogate(meant):
        with pytest.raises(InvalidInput):
            decode_bytes(text, _raw)
    else:
        assert json.loads(bytes(decode_bytes(text, _raw))) == meant
        assert bytes(decode_bytes(text, _raw)).strip() == text.strip()


@SETTINGS
@given(
    st.binary(max_size=60) | st.text('[]{}",:\\u0123dD89 \n\tnulltrue-.eE+\x00\x1f\x7f', max_size=40).map(str.encode)
)
def test_what_is_no_json_is_refused_as_the_json_module_does(text: bytes) -> None:
    """Never a crash, never more lenient than Python's own parser."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        meant = json.loads(text.decode(), parse_constant=refuse)
    except ValueError:
        with pytest.raises((BadRequest, InvalidInput)):
            decode_bytes(text, _raw)
        return
    try:
        kept = bytes(decode_bytes(text, _raw))
    except InvalidInput:
        assert has_lone_surrogate(meant)
    else:
        assert json.loads(kept, parse_constant=refuse) == meant


@SETTINGS
@given(st.integers(1, MAX_DEPTH + 3), st.booleans(), ANY_TEXT.filter(lambda text: not has_lone_surrogate(text)))
def test_depth_counts_brackets_outside_strings(depth: int, objects: bool, text: str) -> None:
    inner = json.dumps(text + "[{" * MAX_DEPTH)
    body = f'{{"a":{inner}}}' if objects else f"[{inner}]"
    for _ in range(depth - 1):
        body = f'{{"a":{body}}}' if objects else f"[{body}]"
    if depth > MAX_DEPTH:
        with pytest.raises(InvalidInput):
            check_text(body.encode())
    else:
        check_text(body.encode())


@SETTINGS
@given(st.integers(-(2**63), 2**63 - 1), st.uuids(), st.integers(1, 10**18 - 1))
def test_ids_come_back(key: int, uuid: UUID, seq: int) -> None:
    conversation, event = ConversationId(key, uuid), EventId(uuid, seq)
    assert parse_conversation_id(str(conversation)) == conversation
    assert re.fullmatch("conv_[0-9a-f]{48}", str(conversation))
    assert parse_event_id(str(event)) == event


@SETTINGS
@given(st.text(max_size=60) | st.from_regex(r"(conv_|evt_)[0-9a-fA-F_]{0,60}\n?", fullmatch=True))
def test_no_two_texts_are_the_same_id(text: str) -> None:
    for parse in (parse_conversation_id, parse_event_id):
        found = parse(text)
        assert found is None or str(found) == text


def test_uuids_sort_as_they_were_made() -> None:
    made = [uuid7() for _ in range(20_000)]
    assert made == sorted(set(made))
    assert {uuid.version for uuid in made} == {7}
    assert {uuid.variant for uuid in made} == {"specified in RFC 4122"}


@SETTINGS
@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_keyed_hashes_keep_parts_apart(one: list[bytes], other: list[bytes]) -> None:
    salt = bytes(32)
    assert (keyed_hash(salt, "p", *one) == keyed_hash(salt, "p", *other)) == (one == other)
    assert keyed_hash(salt, "p", *one) != keyed_hash(salt, "q", *one)
    assert keyed_hash(salt, "p", *one) != keyed_hash(bytes(31) + b"\1", "p", *one)
    assert -(2**63) <= user_key(salt, "user", repr(one)) < 2**63


_event = msgspec.json.Decoder(NewEvent)


def same_body(one: str, other: str) -> bool:
    salt = bytes(32)
    return digest(salt, _event.decode(one.encode())) == digest(salt, _event.decode(other.encode()))


@SETTINGS
@given(
    st.dictionaries(st.sampled_from("abc"), JSON.filter(lambda v: not has_nan(v) and not has_lone_surrogate(v)))
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
)
def test_the_same_body_written_otherwise_is_the_same(content: Any) -> None:
    """White space, key order and how a character is escaped do not make another event."""
    body = {"role": "user", "content": content}
    reordered = dict(reversed(content.items())) if isinstance(content, dict) else content
    other = {"content": reordered, "role": "user"}
    assert same_body(json.dumps(body), json.dumps(other, indent=2, ensure_ascii=False))
    assert not same_body(json.dumps(body), json.dumps(body | {"name": "n"}))
    assert not same_body(json.dumps(body), json.dumps(body | {"content": [content]}))
