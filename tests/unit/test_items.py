"""Items and events are two views of one thing: pure translation, both ways."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from server.errors import InvalidInput
from server.items.ids import claimed, event_id, item_id
from server.items.kinds import SHOWN
from server.items.reading import event_of
from server.items.writing import encode
from server.log.events import NewEvent, raw, validate

PLACE = "evt_0196996af0f07c3a9f4e5d6c7b8a9012_41"
_items = msgspec.json.Decoder(dict[str, Raw])


def event(item: dict[str, Any]) -> NewEvent:
    made = event_of(_items.decode(json.dumps(item)), "items[0]")
    validate([made], max_bytes=1 << 20, param="items")
    return made


def shown(made: NewEvent) -> dict[str, Any]:
    encoded = encode(made.id or PLACE, made)
    item: dict[str, Any] = json.loads(encoded.json)
    assert item["id"] == encoded.id
    return item


@pytest.mark.parametrize(
    ("item", "expected", "id_"),
    [
        ({"role": "user", "content": "hi"}, ("message", "user", None, None, "hi"), "msg"),
        ({"role": "assistant", "content": "", "phase": "commentary"}, ("message", "assistant", None, None, ""), "msg"),
        (
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}', "namespace": "n"},
            ("tool_call", None, "c", "f", '{"a":1}'),
            "fc",
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}]},
            ("tool_result", "tool", "c", None, [{"type": "input_text", "text": "x"}]),
            "fco",
        ),
        (
            {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "ls -l"},
            ("tool_call", None, "c", "f", "ls -l"),
            "ctc",
        ),
        (
            {"type": "custom_tool_call_output", "call_id": "c", "output": "x"},
            ("tool_result", "tool", "c", None, "x"),
            "ctco",
        ),
        (
            {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}, "status": "in_progress"},
            ("tool_call", None, "c", "shell", None),
            "item",
        ),
        (
            {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "x"}]},
            ("tool_result", "tool", "c", None, None),
            "item",
        ),
        ({"type": "tool_search_call", "call_id": None, "arguments": {}}, ("item", None, None, None, None), "item"),
        ({"type": "reasoning", "summary": [], "encrypted_content": "g"}, ("reasoning", None, None, None, None), "rs"),
        ({"type": "compaction", "encrypted_content": "g"}, ("item", None, None, None, None), "cmp"),
        ({"type": "of_tomorrow", "n": 12345678901234567890123}, ("item", None, None, None, None), "item"),
    ],
)
def test_an_item_is_the_right_event_and_comes_back(item: dict[str, Any], expected: tuple[Any, ...], id_: str) -> None:
    kind, role, call_id, name, content = expected
    made = event(item)
    assert (made.type, made.role, made.call_id, made.name) == (kind, role, call_id, name)
    if content is not None:
        assert json.loads(raw(made.content)) == content
    back = shown(made)
    assert back["id"] == PLACE.replace("evt", id_)
    assert back["type"] == item.get("type", "message")
    if item.get("role"):
        part = {"type": "output_text", "text": item["content"], "annotations": []}
        item = item | {"content": [part if item["role"] == "assistant" else {"type": "input_text", "text": "hi"}]}
    status = {"status": back["status"]} if "status" in back else {}
    assert back == item | {"id": back["id"], "type": back["type"]} | status
    assert back.get("status", "completed") in ("completed", item.get("status"))


def test_a_status_of_its_own_is_kept_and_the_usual_one_is_not_written_down() -> None:
    usual = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"}
    assert event(usual).metadata is UNSET
    assert shown(event(usual | {"status": "incomplete"}))["status"] == "incomplete"


def test_ids_of_the_caller_are_kept_and_those_of_the_server_are_not_given_twice() -> None:
    for own in ("msg_68af0c", "rs_1", "n1", "msg_0196996af0f07c3a9f4e5d6c7b8a9012"):
        assert shown(event({"type": "x", "id": own}))["id"] == own == event_id(own)
    for other in (PLACE, PLACE.replace("evt", "msg"), "__fake_id__"):
        assert claimed(other) is None
        assert event({"type": "x", "id": other}).id is None
    assert event_id(item_id(PLACE, "message")) == event_id(item_id(PLACE, "of_tomorrow")) == PLACE


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        (NewEvent(type="tool_call", call_id="c", name="f", content=Raw(b'{"a": 1}')), {"arguments": '{"a": 1}'}),
        (NewEvent(type="tool_call", call_id="c", name="f"), {"type": "function_call", "arguments": "{}"}),
        (NewEvent(type="tool_result", call_id="c", content=Raw(b"[1,2]")), {"output": "[1,2]"}),
        (NewEvent(type="tool_result", call_id="c"), {"type": "function_call_output", "output": ""}),
        (
            NewEvent(type="reasoning", content=Raw(b'"hm"')),
            {"summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        ),
        (NewEvent(type="reasoning"), {"type": "reasoning", "summary": []}),
        (NewEvent(type="item", content=Raw(b"[1]")), {"type": "item", "content": [1]}),
        (NewEvent(type="item"), {"type": "item"}),
        (
            NewEvent(type="item", content=Raw(b'{ "id": 7, "type": "x", "z": {"id": 1} }')),
            {"type": "x", "z": {"id": 1}},
        ),
        (
            NewEvent(role="user", content=Raw(b'"x"'), metadata=Raw(b'{"openai":{"id":"no","content":"no","a":1}}')),
            {"content": [{"type": "input_text", "text": "x"}], "a": 1},
        ),
        (NewEvent(role="user", content=Raw(b'"x"'), metadata=Raw(b'{"openai":7}')), {"role": "user"}),
    ],
)
def test_native_events_are_items_too(native: NewEvent, expected: dict[str, Any]) -> None:
    item = shown(native)
    assert item["id"].endswith(PLACE[3:])
    assert {name: item[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({}, "items[0]"),
        ({"type": 7}, "items[0].type"),
        ({"type": "item_reference", "id": "msg_1"}, "items[0].type"),
        ({"role": "critic", "content": "x"}, "items[0].role"),
        ({"type": "message", "content": "x"}, "items[0].role"),
        ({"role": "user"}, "items[0].content"),
        ({"role": "user", "content": "x", "id": ""}, "items[0].id"),
        ({"role": "user", "content": "x", "id": "a\0b"}, "items[0].id"),
        ({"type": "function_call", "call_id": "c", "name": "f"}, "items[0].arguments"),
        ({"type": "function_call", "call_id": "c", "name": "f" * 257, "arguments": ""}, "items[0].name"),
        ({"type": "function_call", "name": "f", "arguments": ""}, "items[0].call_id"),
        ({"type": "function_call_output", "call_id": "c", "output": {}}, "items[0].output"),
    ],
)
def test_a_wrong_item_is_refused_by_name(item: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        event(item)
    assert refused.value.param == param


names = st.text(min_size=1, max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
calls = st.fixed_dictionaries({"call_id": names.filter(lambda text: "\0" not in text), "name": st.just("f")})


@given(
    item=st.one_of(
        st.builds(lambda call: {"type": "function_call", "arguments": "{}"} | call, calls),
        st.builds(lambda call, text: {"type": "custom_tool_call_output", "output": text} | call, calls, st.text()),
        st.fixed_dictionaries({"type": st.text(min_size=1).filter(lambda kind: kind != "item_reference")}),
        st.fixed_dictionaries({"type": st.sampled_from(["x_call", "x_call_output", "reasoning"])}),
        st.fixed_dictionaries({"type": st.just("message"), "role": st.just("user"), "content": st.just([])}),
    ),
    more=st.dictionaries(names, values, max_size=4),
)
def test_whatever_an_item_holds_comes_back(item: dict[str, Any], more: dict[str, Any]) -> None:
    item = {name: value for name, value in more.items() if name not in ("id", "status")} | item
    try:
        made = event(item)
    except InvalidInput:  # a kind that has rules, without what they ask for
        assert item["type"] in ("message", "function_call", "function_call_output", "custom_tool_call")
        return
    assert made.type in SHOWN
    back = shown(made)
    assert back.pop("id") == PLACE.replace("evt", item_id(PLACE, item["type"]).split("_")[0])
    back.pop("status", None)
    assert back == item
