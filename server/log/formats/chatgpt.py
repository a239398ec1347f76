"""The export that ChatGPT users download: `conversations.json`, one huge array of conversations.

A conversation is `{conversation_id, title, current_node, mapping: {node id: {message, parent, children}}}`: a tree, in
which an edited prompt or a regenerated answer is a sibling. OpenAI publishes no schema; public converters agree on
the fields read here, and what they do not know is kept verbatim. Messages are turned into events in chatgpt_messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from server.log.formats import ImportedConversation, ImportedEvent
from server.log.formats.chatgpt_messages import event_of
from server.log.formats.decoding import problems_at
from server.log.formats.json_array import Progress, read_elements

Trunk = Literal["current", "oldest"]


class _Conversation(msgspec.Struct):
    mapping: dict[str, dict[str, Any] | None]
    id: str | None = None
    conversation_id: str | None = None
    title: str | None = None
    current_node: str | None = None
    default_model_slug: str | None = None
    gizmo_id: str | None = None
    is_archived: bool | None = None


_decoder = msgspec.json.Decoder(_Conversation)


def read_chatgpt(
    path: Path, user: str | None = None, trunk: Trunk = "current", progress: Progress | None = None
) -> Iterator[ImportedConversation]:
    """The conversations of an export, each followed by its branches as forks of it and of one another.

    With `trunk` "current" the main conversation is the path to the current node, which is what ChatGPT shows; with
    "oldest" it follows each node's first child, which a later export of the same conversation cannot change: import
    repeated exports that way. The branch that ChatGPT shows has the metadata `current: true`. A fork's `origin_id` is
    `<conversation id>:<its first node>`; an event's id is its node's. Messages without content become
    no event, and branches without events no conversation.
    Raises FormatError naming the record and node.
    """
    for number, data in read_elements(path, progress):
        with problems_at(path, f"record {number}"):
            source = _decoder.decode(data)
            origin = source.conversation_id or source.id
            if not origin:
                raise ValueError("neither `conversation_id` nor `id` is set")
        yield from _branches(path, f"record {number} ({origin})", origin, source, user, trunk)


def _branches(
    path: Path, where: str, origin: str, source: _Conversation, user: str | None, trunk: Trunk
) -> Iterator[ImportedConversation]:
    parents = _parents(source.mapping)
    children = _children(source.mapping, parents)
    shown = _ancestors(source.current_node, parents)
    preferred = shown if trunk == "current" else set()
    # The nearest event at or above a node, as (origin of the conversation that holds it, the event).
    last: dict[str, tuple[str, ImportedEvent]] = {}

    starts = deque(sorted(children[None], key=lambda node: node not in preferred))
    has_main = False
    while starts:
        start = starts.popleft()
        run = _run(start, children, preferred, starts)
        branch_origin = f"{origin}:{start}" if has_main else origin
        shared = last.get(parents[start] or "")
        events: list[ImportedEvent] = []
        for node in run:
            before = last.get(parents[node] or "")
            with problems_at(path, f"{where}, mapping.{node}.message"):
                event = event_of(node, _message(source.mapping[node]), None if before is None else before[1])
            if event is not None:
                events.append(event)
                last[node] = (branch_origin, event)
            elif before is not None:
                last[node] = before
        if not events:
            continue
        metadata = _metadata(source)
        if source.current_node in run:
            metadata["current"] = "true"
        fork_of, fork_at = (shared[0], shared[1].id) if shared is not None else (origin if has_main else None, None)
        has_main = True
        yield ImportedConversation(
            origin_id=branch_origin, user=user, metadata=metadata, fork_of=fork_of, fork_at=fork_at, events=events
        )


def _run(start: str, children: dict[str | None, list[str]], preferred: set[str], starts: deque[str]) -> list[str]:
    """The nodes of one branch from `start` down; the siblings it passes are added to `starts`."""
    run = [start]
    while below := children.get(run[-1]):
        chosen = next((child for child in below if child in preferred), below[0])
        starts.extend(child for child in below if child != chosen)
        run.append(chosen)
    return run


def _parents(mapping: dict[str, dict[str, Any] | None]) -> dict[str, str | None]:
    """Each node's parent: as it says, else as another lists it; None for a root. Cycles are cut: this is a forest."""
    parents: dict[str, str | None] = {}
    for node, fields in mapping.items():
        parent = (fields or {}).get("parent")
        parents[node] = parent if isinstance(parent, str) and parent in mapping else None
    for node in mapping:
        for child in _listed(mapping[node]):
            if parents.get(child, node) is None:
                parents[child] = node
    done: set[str] = set()
    for start in mapping:
        walk: set[str] = set()
        at: str | None = start
        while at is not None and at not in done:
            walk.add(at)
            if parents[at] in walk:
                parents[at] = None
            at = parents[at]
        done |= walk
    return parents


def _children(mapping: dict[str, dict[str, Any] | None], parents: dict[str, str | None]) -> dict[str | None, list[str]]:
    """Each node's children in the order it lists them, then those it does not list; under None the roots."""
    ordered: dict[str | None, dict[str, None]] = {None: {}}
    for node, fields in mapping.items():
        ordered.setdefault(node, {}).update(
            (child, None) for child in _listed(fields) if child in mapping and parents[child] == node
        )
    for node, parent in parents.items():
        ordered[parent][node] = None
    return {node: list(below) for node, below in ordered.items()}


def _ancestors(node: str | None, parents: dict[str, str | None]) -> set[str]:
    found: set[str] = set()
    while node is not None and node in parents:
        found.add(node)
        node = parents[node]
    return found


def _listed(fields: dict[str, Any] | None) -> list[str]:
    children = (fields or {}).get("children")
    return [child for child in children if isinstance(child, str)] if isinstance(children, list) else []


def _message(fields: dict[str, Any] | None) -> dict[str, Any] | None:
    message = (fields or {}).get("message")
    if message is not None and not isinstance(message, dict):
        raise ValueError(f"expected an object or null, got {type(message).__name__}")
    return message


def _metadata(source: _Conversation) -> dict[str, str]:
    metadata = {
        "source": "chatgpt",
        "title": source.title,
        "default_model_slug": source.default_model_slug,
        "gizmo_id": source.gizmo_id,
        "is_archived": "true" if source.is_archived else None,
    }
    return {name: value for name, value in metadata.items() if value}
