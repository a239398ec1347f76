"""What OpenAI and Anthropic ask of the messages of a request: their packages' own types, and the rules beyond these."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from anthropic.types import MessageParam
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import ResponseInputItemParam
from pydantic import TypeAdapter

from server.working_set.tokens import count

_TYPES: Final[dict[str, TypeAdapter[Any]]] = {
    "openai": TypeAdapter(ChatCompletionMessageParam),
    "openai-responses": TypeAdapter(ResponseInputItemParam),
    "anthropic": TypeAdapter(MessageParam),
}
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_CALL_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)


def plain(value: Any) -> Any:
    """Return a value as JSON has it; pydantic looks into an Iterable only when that is walked."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return [plain(one) for one in value]


def wire(value: Any) -> Any:
    """Return what a client reads."""
    return msgspec.json.decode(msgspec.json.encode(value))


def check(format_: str, messages: Sequence[dict[str, Any]]) -> None:
    """Assert that an API takes these messages, but that there is one."""
    for message in messages:
        assert plain(_TYPES[format_].validate_python(message)) == message, "a field that the API does not know"
    calls = [name for name, _, _ in _calls(format_, messages)]
    assert len(set(calls)) == len(calls), "an id of two calls"
    assert all(_CALL_ID.fullmatch(call) for call in calls)
    for _, name, given in _calls(format_, messages):
        assert _NAME.fullmatch(name)
        assert isinstance(given, dict)
    _PAIRED[format_](messages)
    for text in texts(format_, messages):
        assert text.strip()


def _calls(format_: str, messages: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, Any]]:
    for message in messages:
        if format_ == "openai":
            for call in message.get("tool_calls", []):
                yield call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])
        elif format_ == "anthropic":
            for block in _blocks(message):
                if block["type"] == "tool_use":
                    yield block["id"], block["name"], block["input"]
        elif message["type"] == "function_call":
            yield message["call_id"], message["name"], json.loads(message["arguments"])


def _paired_openai(messages: Sequence[dict[str, Any]]) -> None:
    """An assistant's calls are directly followed by one answer to each."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in waiting
            waiting.remove(message["tool_call_id"])
            continue
        assert waiting == []
        assert message["content"] is not None or message["tool_calls"]
        waiting = [call["id"] for call in message.get("tool_calls", [])]
    assert waiting == []


def _paired_responses(messages: Sequence[dict[str, Any]]) -> None:
    """Calls in a row are directly followed by one output of each."""
    waiting: list[str] = []
    answering = False
    for message in messages:
        if message["type"] == "function_call":
            assert not (answering and waiting)
            answering = False
            waiting.append(message["call_id"])
        elif message["type"] == "function_call_output":
            answering = True
            waiting.remove(message["call_id"])
        else:
            assert waiting == []
    assert waiting == []


def _paired_anthropic(messages: Sequence[dict[str, Any]]) -> None:
    """User and assistant take turns, the user first; results come first in the message right after their calls."""
    waiting: list[str] = []
    for number, message in enumerate(messages):
        assert message["role"] == ("assistant" if number % 2 else "user")
        blocks = _blocks(message)
        assert blocks
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        assert results == waiting
        assert [block["type"] for block in blocks[: len(results)]] == ["tool_result"] * len(results)
        waiting = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if waiting:
            assert [block["type"] for block in blocks[-len(waiting) :]] == ["tool_use"] * len(waiting)
        if message["role"] == "assistant":
            assert {block["type"] for block in blocks} <= {"text", "tool_use"}
    assert waiting == []
    if messages and messages[-1]["role"] == "assistant":
        last = _blocks(messages[-1])[-1]
        assert last["text"] == last["text"].rstrip()


_PAIRED: Final = {
    "openai": _paired_openai,
    "openai-responses": _paired_responses,
    "anthropic": _paired_anthropic,
}


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def texts(format_: str, messages: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield what is said in messages, but for what tools were called with and what they answered."""
    for message in messages:
        if message.get("role") not in (None, "tool") and message["content"] is not None:
            yield from (block["text"] for block in _blocks(message) if "text" in block)


def tokens(format_: str, message: dict[str, Any]) -> int:
    """Count the tokens of all that a message says: texts, names, what tools were called with and what they answered."""
    said = list(texts(format_, [message]))
    said += [message["name"]] if "name" in message and format_ == "openai" else []
    for _, name, given in _calls(format_, [message]):
        inner = given["input"] if list(given) == ["input"] else given
        said += [name, inner if isinstance(inner, str) else msgspec.json.encode(inner).decode()]
    answers = [message["output"]] if message.get("type") == "function_call_output" else []
    answers += [message["content"]] if message.get("role") == "tool" else []
    if format_ == "anthropic":
        answers += [block.get("content", "") for block in _blocks(message) if block["type"] == "tool_result"]
    for answer in answers:
        said += [answer] if isinstance(answer, str) else [part["text"] for part in answer if "text" in part]
    return sum(count(said))
