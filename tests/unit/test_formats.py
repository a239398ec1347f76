"""Readers of import files: what comes out, what stays verbatim, and what is refused where."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.log.formats import FormatError, ImportedConversation, ImportedEvent, json_array
from server.log.formats.chatgpt import Trunk, read_chatgpt
from server.log.formats.export_lines import (
    ConversationLine,
    EventLine,
    Header,
    Line,
    decode_line,
    encode_line,
    format_time,
    parse_time,
    stored_text,
    verbatim,
)
from server.log.formats.json_array import read_elements
from server.log.formats.jsonl import read_jsonl, read_lines
from server.log.formats.locomo import read_locomo
from server.log.formats.longmemeval import read_longmemeval


def write(path: Path, value: Any) -> Path:
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return path


# The array of a huge file


def elements(path: Path) -> list[Any]:
    return [msgspec.json.decode(data) for _, data in read_elements(path)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(['"', "\\", '\\"', "[{", "}],"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(
    values=st.lists(json_values, max_size=5),
    chunk=st.integers(1, 9),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_array_comes_apart_as_json_says_wherever_chunks_end(
    tmp_path: Path, values: list[Any], chunk: int, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    path = write(tmp_path / "array.json", b" \n" + text.encode() + b"\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "CHUNK", chunk)
        assert elements(path) == values


def test_array_keeps_numbers_and_characters(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbf[[18446744073709551616, -9223372036854775809, 0.1, 1e5], "\\u0000\\ud83d\\ude00", {}]'
    assert elements(write(tmp_path / "a.json", text)) == [
        [18446744073709551616, -9223372036854775809, 0.1, 1e5],
        "\0😀",
        {},
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"nope", "where a JSON array"),
        (b'[{"a": 1}', "record 1: the file ends"),
        (b'[1, "cut', "record 2: the file ends"),
        (b"[1,]", "record 2: there is nothing"),
        (b"[1,,2]", "record 2: there is nothing"),
        (b"[1}", "closed by '}'"),
        (b"[1] [2]", "after record 1: more text"),
    ],
)
def test_array_refuses(tmp_path: Path, text: bytes, expected: str) -> None:
    with pytest.raises(FormatError, match=expected.replace("[", r"\[")):
        elements(write(tmp_path / "bad.json", text))


def test_array_holds_one_element_at_a_time_and_tells_progress(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    with path.open("wb") as file:
        file.write(b"[0")
        for _ in range(8):
            file.write(b',"' + b"\\\\x" * 700_000 + b'"')
        file.write(b"]")
    told: list[int] = []
    reading = read_elements(path, told.append)
    next(reading), next(reading)
    assert sum(told) < path.stat().st_size // 2
    assert len(list(reading)) == 7
    assert sum(told) == path.stat().st_size


# LoCoMo


def locomo_sample(**conversation: Any) -> dict[str, Any]:
    return {"sample_id": "conv-9", "conversation": {"speaker_a": "Ada", "speaker_b": "Bo", **conversation}, "qa": []}


def test_locomo_turns_become_messages_in_session_order(tmp_path: Path) -> None:
    sample = locomo_sample(
        session_10=[{"speaker": "Bo", "dia_id": "D10:1", "text": "later"}],
        session_10_date_time="12:05 am on 1 February, 2023",
        session_2=[
            {"speaker": "Ada", "dia_id": "D2:1", "text": "hi"},
            {
                "speaker": "Bo",
                "dia_id": "D2:2",
                "text": "look",
                "blip_caption": "a cat",
                "img_url": ["u"],
                "query": "q",
            },
        ],
        session_2_date_time="1:56 pm on 8 May, 2022",
        session_3_date_time="1:56 pm on 9 May, 2022",
    )
    (conversation,) = read_locomo(write(tmp_path / "locomo.json", [sample]))
    assert (conversation.origin_id, conversation.user) == ("conv-9", "conv-9")
    first, second, third = conversation.events
    assert first == ImportedEvent(
        id="D2:1",
        role="user",
        name="Ada",
        session="session_2",
        content="hi",
        occurred_at=datetime(2022, 5, 8, 13, 56, tzinfo=UTC),
    )
    assert second.role == "assistant"
    assert second.content == [
        {"type": "text", "text": "look"},
        {"type": "image", "caption": "a cat", "img_url": ["u"], "query": "q"},
    ]
    assert second.occurred_at is not None
    assert first.occurred_at is not None
    assert second.occurred_at > first.occurred_at
    assert (third.session, third.occurred_at) == ("session_10", datetime(2023, 2, 1, 0, 5, tzinfo=UTC))


def test_locomo_user_missing_sample_id_and_repeated_turn_id(tmp_path: Path) -> None:
    sample = locomo_sample(session_1=[{"speaker": "Ada", "dia_id": "D1:1", "text": text} for text in "ab"])
    del sample["sample_id"]
    (conversation,) = read_locomo(write(tmp_path / "mine.json", [sample]), user="u1")
    assert (conversation.origin_id, conversation.user) == ("mine:1", "u1")
    assert [event.id for event in conversation.events] == ["D1:1", "D1:1#2"]


@pytest.mark.parametrize(
    ("conversation", "expected"),
    [
        ({"session_1": [{"dia_id": "D1:1"}]}, r"record 1 \(conv-9\), conversation.session_1\[0\]: .*`speaker`"),
        ({"session_1": [{"speaker": "Cy", "dia_id": "x"}]}, r"session_1\[0\]: speaker 'Cy'"),
        ({"session_1": [], "session_1_date_time": "13:61 pm"}, r"session_1_date_time: '13:61 pm' is no time"),
        ({"session_1": [], "session_1_date_time": "1:00 pm on 31 June, 2023"}, "session_1_date_time: day"),
        ({"speaker_b": 3}, r"conversation: .*`\$.speaker_b`"),
    ],
)
def test_locomo_refuses(tmp_path: Path, conversation: dict[str, Any], expected: str) -> None:
    with pytest.raises(FormatError, match=expected):
        list(read_locomo(write(tmp_path / "bad.json", [locomo_sample(**conversation)])))


# LongMemEval


def haystack(**fields: Any) -> dict[str, Any]:
    return {
        "question_id": "q1",
        "question_type": "multi-session",
        "question": "?",
        "haystack_session_ids": ["s_late", "s_early", "s_late"],
        "haystack_dates": ["2023/05/20 (Sat) 02:21", "2023/05/19 (Fri) 23:59", "2023/05/21 (Sun) 00:00"],
        "haystack_sessions": [
            [{"role": "user", "content": "a", "has_answer": True}, {"role": "assistant", "content": "b"}],
            [{"role": "user", "content": "c"}],
            [{"role": "user", "content": "d"}],
        ],
        **fields,
    }


def test_longmemeval_sessions_come_in_order_of_time_with_unique_ids(tmp_path: Path) -> None:
    (conversation,) = read_longmemeval(write(tmp_path / "lme.json", [haystack()]))
    assert (conversation.origin_id, conversation.user) == ("q1", "q1")
    events = list(conversation.events)
    assert [event.id for event in events] == ["s_early:0", "s_late:0", "s_late:1", "s_late#2:0"]
    assert [event.content for event in events] == ["c", "a", "b", "d"]
    assert events[1].metadata == {"has_answer": True}
    times = [event.occurred_at for event in events if event.occurred_at is not None]
    assert len(times) == 4
    assert times == sorted(times)
    assert times[1] == datetime(2023, 5, 20, 2, 21, tzinfo=UTC)


def test_longmemeval_without_ids_and_dates(tmp_path: Path) -> None:
    record = haystack(haystack_session_ids=None, haystack_dates=None)
    (conversation,) = read_longmemeval(write(tmp_path / "lme.json", [record]))
    assert [event.id for event in conversation.events] == ["session_1:0", "session_1:1", "session_2:0", "session_3:0"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"haystack_dates": ["2023/05/20"]}, r"record 1 \(q1\), haystack_dates: 1 values for 3 sessions"),
        ({"haystack_dates": ["soon"] * 3}, r"haystack_dates\[0\]: 'soon' is no time"),
        ({"haystack_sessions": [[{"role": "robot", "content": ""}], [], []]}, r"haystack_sessions\[0\]\[0\]: .*robot"),
        ({"question_id": None}, r"record 1: .*`\$.question_id`"),
    ],
)
def test_longmemeval_refuses(tmp_path: Path, fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(FormatError, match=expected):
        list(read_longmemeval(write(tmp_path / "bad.json", [haystack(**fields)])))


# ChatGPT


def said(text: str, role: str = "user", **fields: Any) -> dict[str, Any]:
    return {"author": {"role": role}, "content": {"content_type": "text", "parts": [text]}, **fields}


def tree(*edges: tuple[str, str | None, dict[str, Any] | None], current: str | None = None) -> dict[str, Any]:
    """A conversation whose nodes are (id, parent, message), children in the order given."""
    mapping: dict[str, Any] = {
        node: {"id": node, "message": message, "parent": parent, "children": []} for node, parent, message in edges
    }
    for node, parent, _ in edges:
        if parent in mapping:
            mapping[parent]["children"].append(node)
    return {"conversation_id": "c1", "title": "T", "mapping": mapping, "current_node": current}


def chatgpt(path: Path, *conversations: Any, trunk: Trunk = "current") -> list[ImportedConversation]:
    return list(read_chatgpt(write(path / "conversations.json", list(conversations)), trunk=trunk))


def shape(conversations: list[ImportedConversation]) -> list[tuple[str, str | None, str | None, list[str | None]]]:
    return [(c.origin_id, c.fork_of, c.fork_at, [event.id for event in c.events]) for c in conversations]


BRANCHED = tree(
    ("root", None, None),
    ("sys", "root", said("", "system")),
    ("a", "sys", said("a")),
    ("b", "a", said("b", "assistant")),
    ("b2", "a", said("b again", "assistant")),
    ("c", "b2", said("c")),
    ("c2", "b2", said("c edited")),
    ("a2", "sys", said("a edited")),
    current="c2",
)


def test_chatgpt_branches_become_forks_of_the_branch_that_holds_their_past(tmp_path: Path) -> None:
    conversations = chatgpt(tmp_path, BRANCHED)
    assert shape(conversations) == [
        ("c1", None, None, ["a", "b2", "c2"]),
        ("c1:a2", "c1", None, ["a2"]),
        ("c1:b", "c1", "a", ["b"]),
        ("c1:c", "c1", "b2", ["c"]),
    ]
    assert [c.metadata.get("current") for c in conversations] == ["true", None, None, None]


def test_chatgpt_oldest_trunk_only_grows_when_the_user_edits_and_exports_again(tmp_path: Path) -> None:
    before = tree(("a", None, said("a")), ("b", "a", said("b")), current="b")
    after = tree(("a", None, said("a")), ("b", "a", said("b")), ("b2", "a", said("B")), current="b2")
    assert shape(chatgpt(tmp_path, before, trunk="oldest")) == [("c1", None, None, ["a", "b"])]
    conversations = chatgpt(tmp_path, after, trunk="oldest")
    assert shape(conversations) == [("c1", None, None, ["a", "b"]), ("c1:b2", "c1", "a", ["b2"])]
    assert conversations[1].metadata["current"] == "true"


def test_chatgpt_forks_of_forks(tmp_path: Path) -> None:
    nested = tree(
        ("a", None, said("a")),
        ("b", "a", said("b")),
        ("x", "a", said("x")),
        ("y", "x", said("y")),
        ("z", "x", said("z")),
        current="b",
    )
    assert shape(chatgpt(tmp_path, nested)) == [
        ("c1", None, None, ["a", "b"]),
        ("c1:x", "c1", "a", ["x", "y"]),
        ("c1:z", "c1:x", "x", ["z"]),
    ]


def test_chatgpt_branching_below_an_empty_message_keeps_the_past(tmp_path: Path) -> None:
    nodes = tree(("a", None, said("a")), ("hush", "a", said("")), ("b", "hush", said("b")), ("b2", "hush", said("B")))
    assert shape(chatgpt(tmp_path, nodes)) == [("c1", None, None, ["a", "b"]), ("c1:b2", "c1", "a", ["b2"])]


def test_chatgpt_survives_cycles_lost_parents_and_null_nodes(tmp_path: Path) -> None:
    broken = tree(("a", None, said("a")), ("lost", "gone", said("lost")), ("p", "q", said("p")), ("q", "p", said("q")))
    broken["mapping"]["null"] = None
    broken["mapping"]["self"] = {"message": said("self"), "parent": "self", "children": ["self", "gone", 7]}
    broken["mapping"]["a"]["children"] = ["unlinked"]
    broken["mapping"]["unlinked"] = {"message": said("unlinked"), "parent": None}
    conversations = chatgpt(tmp_path, broken)
    assert sorted(str(event.id) for c in conversations for event in c.events) == [
        "a",
        "lost",
        "p",
        "q",
        "self",
        "unlinked",
    ]
    assert shape(conversations)[0] == ("c1", None, None, ["a", "unlinked"])
    assert all(c.fork_of == "c1" for c in conversations[1:])


def test_chatgpt_thousands_deep(tmp_path: Path) -> None:
    depth = 20_000
    nodes = [(str(n), str(n - 1) if n else None, said(str(n))) for n in range(depth)]
    (conversation,) = chatgpt(tmp_path, tree(*nodes, current=str(depth - 1)))
    assert [event.content for event in conversation.events] == [str(n) for n in range(depth)]


def test_chatgpt_conversation_without_content_is_no_conversation(tmp_path: Path) -> None:
    assert chatgpt(tmp_path, tree(("root", None, None)), tree()) == []


def one(tmp_path: Path, message: dict[str, Any]) -> ImportedEvent | None:
    conversations = chatgpt(tmp_path, tree(("n", None, message)))
    return next(iter(conversations[0].events)) if conversations else None


def test_chatgpt_tools(tmp_path: Path) -> None:
    code = {"content_type": "code", "language": "python", "text": "1+1", "response_format_name": None}
    call = {"author": {"role": "assistant"}, "recipient": "python", "content": code, "create_time": 1700000000.25}
    output = {
        "author": {"role": "tool", "name": "python", "metadata": {}},
        "content": {"content_type": "execution_output", "text": "2"},
        "metadata": {"aggregate_result": {"status": "success"}},
    }
    (conversation,) = chatgpt(tmp_path, tree(("call", None, call), ("out", "call", output), ("u", "out", said("ok"))))
    first, second, third = conversation.events
    assert (first.type, first.name, first.call_id) == ("tool_call", "python", "call")
    assert first.content == [{"type": "code", "text": "1+1", "language": "python", "response_format_name": None}]
    assert first.occurred_at == datetime(2023, 11, 14, 22, 13, 20, 250000, tzinfo=UTC)
    assert (second.type, second.role, second.name, second.call_id) == ("tool_result", "tool", "python", "call")
    assert second.content == "2"
    assert second.metadata == {
        "metadata": {"aggregate_result": {"status": "success"}},
        "content": {"content_type": "execution_output"},
    }
    assert (third.type, third.call_id) == ("message", None)


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        ({"content_type": "text", "parts": ["x"]}, "message", "x"),
        (
            {"content_type": "text", "parts": ["x", "", "y"]},
            "message",
            [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}],
        ),
        (
            {
                "content_type": "multimodal_text",
                "parts": [
                    {"content_type": "image_asset_pointer", "asset_pointer": "file-service://f", "width": 2**60},
                    "see",
                    {"content_type": "audio_transcription", "text": "spoken"},
                ],
            },
            "message",
            [
                {
                    "type": "image",
                    "content_type": "image_asset_pointer",
                    "asset_pointer": "file-service://f",
                    "width": 2**60,
                },
                {"type": "text", "text": "see"},
                {"type": "text", "content_type": "audio_transcription", "text": "spoken"},
            ],
        ),
        (
            {"content_type": "thoughts", "thoughts": [{"summary": "S", "content": "long", "chunks": []}]},
            "reasoning",
            [{"type": "text", "text": "long", "summary": "S", "chunks": []}],
        ),
        ({"content_type": "reasoning_recap", "content": "Thought for 4s"}, "reasoning", "Thought for 4s"),
        (
            {"content_type": "user_editable_context", "user_profile": "P", "user_instructions": "always brief"},
            "message",
            [
                {"type": "text", "text": "P", "field": "user_profile"},
                {"type": "text", "text": "always brief", "field": "user_instructions"},
            ],
        ),
        (
            {"content_type": "tether_quote", "url": "u", "domain": "d", "text": "quoted", "title": "t"},
            "message",
            [{"type": "text", "text": "quoted", "url": "u", "domain": "d", "title": "t"}],
        ),
        (
            {"content_type": "hologram", "beams": [1, {"z": 1, "a": 2}]},
            "item",
            {"content_type": "hologram", "beams": [1, {"z": 1, "a": 2}]},
        ),
    ],
)
def test_chatgpt_content_types(tmp_path: Path, content: dict[str, Any], kind: str, expected: Any) -> None:
    event = one(tmp_path, {"author": {"role": "assistant"}, "recipient": "all", "content": content})
    assert event is not None
    assert (event.type, event.content) == (kind, expected)


@pytest.mark.parametrize(
    "content",
    [
        None,
        {"content_type": "text", "parts": ["", None]},
        {"content_type": "code", "language": "unknown", "text": ""},
        {"content_type": "thoughts", "thoughts": [], "source_analysis_msg_id": "m"},
        {"content_type": "model_editable_context", "model_set_context": "", "repository": None},
    ],
)
def test_chatgpt_content_that_says_nothing_is_left_out(tmp_path: Path, content: Any) -> None:
    assert one(tmp_path, {"author": {"role": "assistant"}, "content": content}) is None


def test_chatgpt_older_custom_instructions_are_kept(tmp_path: Path) -> None:
    message = said("", "system", metadata={"user_context_message_data": {"about_model_message": "use metric units"}})
    event = one(tmp_path, message)
    assert event is not None
    assert event.content == [{"type": "text", "text": "use metric units", "field": "about_model_message"}]


def test_chatgpt_keeps_what_no_field_holds(tmp_path: Path) -> None:
    event = one(
        tmp_path,
        {
            "id": "n",
            "author": {"role": "critic", "name": "cc", "metadata": {"real_author": "tool:web"}},
            "content": {"content_type": "text", "parts": ["x"], "extra": 1},
            "end_turn": False,
            "weight": 0.0,
            "recipient": "all",
            "metadata": {"is_visually_hidden_from_conversation": True, "language": "de"},
        },
    )
    assert event is not None
    assert (event.type, event.role, event.name, event.content) == ("item", None, "cc", "x")
    assert event.metadata == {
        "end_turn": False,
        "weight": 0.0,
        "recipient": "all",
        "metadata": {"is_visually_hidden_from_conversation": True, "language": "de"},
        "author": {"role": "critic", "metadata": {"real_author": "tool:web"}},
        "content": {"extra": 1},
    }


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'[{"mapping": {}}]', "record 1: neither"),
        (b'[{"id": "c1"}]', "record 1: .*`mapping`"),
        (
            b'[{"id": "c1", "mapping": {"n": {"message": 3}}}]',
            r"record 1 \(c1\), mapping.n.message: expected an object",
        ),
        (
            b'[{"id":"c1","mapping":{"n":{"message":{"create_time":"x","content":{"content_type":"text","parts":["a"]}}}}}]',
            "mapping.n.message: create_time",
        ),
        (
            b'[{"id":"c1","mapping":{"n":{"message":{"create_time":1e30,"content":{"content_type":"text","parts":["a"]}}}}}]',
            "1e.30 is no time",
        ),
        (b'[{"id": "c1", "title": "\\ud83d", "mapping": {}}]', "record 1: "),
        (b'[{"id": "c1", "mapping": {"n": {"x": ' + b"[" * 5000 + b"]" * 5000 + b"}}}]", "record 1: nested too deeply"),
    ],
)
def test_chatgpt_refuses(tmp_path: Path, data: bytes, expected: str) -> None:
    with pytest.raises(FormatError, match=expected) as caught:
        list(read_chatgpt(write(tmp_path / "bad.json", data)))
    assert caught.value.path == tmp_path / "bad.json"


# JSON lines


def walk(conversations: Iterable[ImportedConversation]) -> list[list[ImportedEvent]]:
    return [list(conversation.events) for conversation in conversations]


NOW = "2024-02-03T04:05:06.000000Z"


def event_line(conversation: str, seq: int, **fields: Any) -> EventLine:
    fields = {"content": msgspec.Raw(b'"c"'), "type": "message", **fields}
    return EventLine(conversation=conversation, seq=seq, recorded_at=NOW, **fields)


def conversation_line(id: str, **fields: Any) -> ConversationLine:  # noqa: A002
    return ConversationLine(id=id, created_at=NOW, recorded_at=NOW, head=3, **fields)


def lines_file(path: Path, *lines: Line) -> Path:
    header = Header(format="turnstone-jsonl", version=1, salt="00ff")
    return write(path / "export.jsonl", b"".join(encode_line(line) + b"\n" for line in (header, *lines)))


def test_lines_come_back_byte_for_byte(tmp_path: Path) -> None:
    raw = b'{"b": 1.0, "a" : 1E5,"n":123456789012345678901234567890, "t":"\\u0000\\ud83d\\ude00 \xc3\xa9"}'
    path = lines_file(
        tmp_path,
        conversation_line(
            "conv_1", origin_id="o", user="ü\0", metadata={"b": "1", "a": "2"}, retention_days=3, floor=1
        ),
        conversation_line("conv_2", parent="conv_1", fork_seq=0),
        event_line("conv_2", 2, content=msgspec.Raw(raw), metadata=msgspec.Raw(b'{"z":1, "a":2}'), role="user"),
        event_line("conv_2", 3, content=msgspec.UNSET, erased_at=NOW, occurred_at=NOW),
        event_line(
            "conv_2", 4, content=msgspec.Raw(b"null"), type="run", run_id="r", name="n", call_id="c", session="s"
        ),
    )
    written = path.read_bytes()
    assert raw in written
    assert b"".join(encode_line(line) + b"\n" for _, line in read_lines(path)) == written


def test_content_with_newlines_is_kept_byte_for_byte_on_one_line() -> None:
    spaced = '{\n"a":\r\n"x\\n"}'
    content, text = verbatim(spaced)
    line = encode_line(event_line("c", 1, content=content, content_text=text))
    assert b"\n" not in line
    decoded = decode_line(line)
    assert isinstance(decoded, EventLine)
    assert stored_text(decoded.content, decoded.content_text) == spaced
    assert encode_line(decoded) == line
    assert verbatim("[1, 2]") == (msgspec.Raw(b"[1, 2]"), None)


def test_times_are_utc_with_microseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        check_times()
    finally:
        monkeypatch.undo()
        time.tzset()


def check_times() -> None:
    for moment in (datetime(2024, 2, 3, 4, 5, 6), datetime(1, 1, 1, tzinfo=UTC)):  # noqa: DTZ001
        text = format_time(moment)
        assert len(text) == 27
        assert parse_time(text) == moment.replace(tzinfo=UTC)
    assert format_time(datetime.fromisoformat("2024-02-03T06:05:06+02:00")) == NOW


def test_export_is_imported_with_forks_and_tombstones_in_their_places(tmp_path: Path) -> None:
    path = lines_file(
        tmp_path,
        conversation_line("conv_1", origin_id="old", user="u"),
        event_line("conv_1", 1, id="mine", occurred_at=NOW, metadata=msgspec.Raw(b'{"k":1}')),
        event_line("conv_1", 2, content=msgspec.UNSET, erased_at=NOW),
        event_line("conv_1", 3),
        conversation_line("conv_2", user="u", parent="conv_1", fork_seq=3),
        event_line("conv_2", 4),
        conversation_line("conv_3", user="u", parent="conv_2", fork_seq=1),
    )
    main, fork, nested = [(c, list(c.events)) for c in read_jsonl(path)]
    assert (main[0].origin_id, main[0].user) == ("old", "u")
    assert [(e.id, e.type, e.content and msgspec.json.decode(e.content)) for e in main[1]] == [
        ("mine", "message", "c"),
        ("seq-2", "erasure", None),
        ("seq-3", "message", "c"),
    ]
    assert (msgspec.json.encode(main[1][0].metadata), main[1][0].occurred_at) == (
        b'{"k":1}',
        datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC),
    )
    assert (fork[0].origin_id, fork[0].fork_of, fork[0].fork_at) == ("conv_2", "old", "seq-3")
    assert (nested[0].fork_of, nested[0].fork_at, nested[1]) == ("conv_2", "mine", [])
    assert [c.origin_id for c in read_jsonl(path)] == ["old", "conv_2", "conv_3"]  # events need not be walked


def test_generic_lines(tmp_path: Path) -> None:
    records = [
        {"conversation": "x", "user": "u", "role": "user", "content": "hi", "occurred_at": "2024-02-03T04:05:06"},
        {
            "conversation": "x",
            "user": "u",
            "role": "assistant",
            "content": [{"type": "text", "text": "yo"}],
            "id": "m2",
        },
        {"conversation": "y", "type": "tool_result", "role": "tool", "content": {"n": 2**70}, "call_id": "c"},
        {"conversation": "x", "user": "u", "content": "again"},
    ]
    text = "\n\n".join(json.dumps(record) for record in records)
    read = [(c.origin_id, c.user, list(c.events)) for c in read_jsonl(write(tmp_path / "g.jsonl", text.encode()))]
    assert [(origin, user, [e.id for e in events]) for origin, user, events in read] == [
        ("x", "u", ["g.jsonl:1", "m2"]),
        ("y", None, ["g.jsonl:5"]),
        ("x", "u", ["g.jsonl:7"]),
    ]
    assert read[0][2][0].occurred_at == datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert read[1][2][0].content == {"n": 2**70}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b'{"conversation": "x", "content": 1}', b'{"conversation": "x"}'], "line 2: .*`content`"),
        ([b'{"conversation": "x", "content": 1, "colour": 2}'], "line 1: .*`colour`"),
        ([b'{"conversation": "x", "content": "\\ud83d"}'], "line 1: "),
        ([b'{"conversation": "x", "content": NaN}'], "line 1: "),
        ([b'{"kind":"event","conversation":"c"}'], "line 1: "),
        ([b'{"kind":"header","format":"turnstone-jsonl","version":9}'], "line 1: version 9"),
        (
            [
                b'{"kind":"conversation","id":"c","head":1,"created_at":"%s","recorded_at":"%s"}'
                % (NOW.encode(), NOW.encode())
            ],
            "line 1: the header",
        ),
    ],
)
def test_jsonl_refuses(tmp_path: Path, lines: list[bytes], expected: str) -> None:
    path = write(tmp_path / "bad.jsonl", b"\n".join(lines))
    with pytest.raises(FormatError, match=expected):
        walk(read_jsonl(path))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"kind":"event","conversation":"c","seq":1,"type":"message","recorded_at":"%s"}', "content"),
        (b'{"kind":"event","conversation":"c","seq":0,"type":"message","content":1,"recorded_at":"%s"}', "seq"),
        (b'{"kind":"event","conversation":"c","seq":1,"type":"nope","content":1,"recorded_at":"%s"}', "type"),
        (b'{"kind":"event","conversation":"c","seq":1,"type":"item","content":"\xff","recorded_at":"%s"}', "utf-8"),
        (b'{"kind":"conversation","id":"c","head":1,"parent":"p","created_at":"%s","recorded_at":"%s"}', "fork_seq"),
        (b'{"kind":"conversation","id":"c","head":1,"created_at":"2024-01-01T00:00:00Z"}', "created_at"),
    ],
)
def test_lines_are_checked(line: bytes, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        decode_line(line.replace(b"%s", NOW.encode()))


def test_export_refuses_what_it_cannot_import(tmp_path: Path) -> None:
    for lines, expected in (
        ([conversation_line("conv_1"), event_line("conv_2", 1)], "line 3: an event of 'conv_2'"),
        ([conversation_line("conv_2", parent="conv_1", fork_seq=1)], "parent 'conv_1' does not come before"),
        (
            [conversation_line("conv_1"), event_line("conv_1", 1, metadata=msgspec.Raw(b"[]"))],
            "line 3: `metadata` is an obj",
        ),
        (
            [conversation_line("conv_1"), event_line("conv_1", 1, occurred_at="2024-02-30T00:00:00.000000Z")],
            "line 3: day",
        ),
    ):
        with pytest.raises(FormatError, match=expected):
            walk(read_jsonl(lines_file(tmp_path, *lines)))
