"""Sends the conversations of a file to the server through the ordinary API, so that sending them again adds nothing.

A conversation is found again by its ``origin_id``, an event by its id: a run that was killed at any moment is taken up
by running it again. Memory holds one batch of events, and the ids of the conversations that forks may yet name.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Final
from urllib.parse import quote

import click
import msgspec

from server.cli.client import Client, Refused
from server.log.formats import ImportedConversation, ImportedEvent

MAX_BATCH_EVENTS: Final = 500
MAX_BATCH_BYTES: Final = 8 * 1024 * 1024
PATIENCE: Final = 120.0  # seconds of 429, 503 or silence after which an import gives up

_MAX_LABEL: Final = 256
_MAX_NAME: Final = 512
_MAX_METADATA: Final = 64 * 1024
_REMEMBERED: Final = 100_000  # conversations whose ids are kept; the others are asked for
_LABELS: Final = ("id", "name", "call_id", "session", "run_id")
_DELETION = re.compile(r"evt_[1-9][0-9]{0,17}_deleted", re.ASCII)  # the server's id of one
_AGAIN: Final = {"x-stainless-retry-count": "1"}  # what is deleted already is deleted
_AT_EVENT = re.compile(r"events\[(\d+)\]")
_encode = msgspec.json.Encoder().encode
_parts = msgspec.json.Decoder(list[msgspec.Raw])


class Counts(msgspec.Struct):
    """What an import has done so far."""

    conversations: int = 0
    new: int = 0
    known: int = 0

    @property
    def events(self) -> int:
        return self.new + self.known


class _Named(msgspec.Struct):
    seq: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]


class Sender:
    """Requests that are safe to repeat, and are repeated while the server is busy or away."""

    def __init__(self, client: Client, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._sleep = sleep
        self._answered = False

    def __call__(self, method: str, path: str, **options: Any) -> Any:
        """Return the answer's JSON; raises Refused, and ClickException when there is no server or it stays away."""
        waited = 0.0
        while True:
            try:
                answer = self._client.request(method, path, **options)
            except click.ClickException as error:
                refused = isinstance(error, Refused)
                if isinstance(error, Refused) and error.status not in (429, 503):
                    raise
                # A server that never answered is not busy: it is not there.
                if not (refused or self._answered) or waited >= PATIENCE:
                    raise
                pause = max(1, error.retry_after or 1) if isinstance(error, Refused) else 1
            else:
                self._answered = True
                return answer.json()
            self._sleep(pause)
            waited += pause


class Uploader:
    """Sends conversations; ``prefix`` goes before their origin ids, so that two formats never meet."""

    def __init__(self, send: Sender, prefix: str, counts: Counts) -> None:
        self._send = send
        self._prefix = prefix
        self._counts = counts
        self._ids: OrderedDict[tuple[str | None, str], str] = OrderedDict()
        self._deleted: list[str] = []

    def upload(self, conversation: ImportedConversation) -> None:
        """Create a conversation or find it, and append what it lacks. Raises ClickException naming the event."""
        user = None if conversation.user is None else _fitting(conversation.user, _MAX_NAME) or None
        origin = self._origin(conversation.origin_id)
        path, head = self._open(conversation, user, origin)
        for batch in _batches(conversation.events):
            reached = self._delete(path, batch[0][0])
            if reached is not None:
                self._counts.new += reached > head
                self._counts.known += reached <= head
                head = max(head, reached)
                continue
            body = b'{"events":[' + b",".join(data for _, data in batch) + b"]}"
            try:
                answer = self._send("POST", f"{path}/events", content=body)
            except Refused as error:
                raise _explained(error, conversation.origin_id, [event for event, _ in batch]) from error
            new = sum(event["seq"] > head for event in answer["events"])
            head = max(head, answer["head"])
            self._counts.new += new
            self._counts.known += len(batch) - new
        self._counts.conversations += 1

    def _delete(self, path: str, event: ImportedEvent) -> int | None:
        """Delete what a ``deletion`` names; returns the head then, None for other events and where that is no item."""
        seq = _deleted(event)
        if seq is None:
            return None
        page = self._send("GET", f"{path}/events", params={"after_seq": seq - 1, "limit": 1})
        if not page["data"] or page["data"][0]["seq"] != seq:
            return None
        try:
            answer = self._send("DELETE", f"{path}/items/{quote(page['data'][0]['id'], safe='')}", headers=_AGAIN)
        except Refused as error:
            if error.status != 404:
                raise
            return None
        return int(answer["head"])

    def finish(self) -> None:
        """Delete again what was deleted at its source, and was sent only for what its forks share of it."""
        for path in self._deleted:
            self._send("DELETE", path)

    def _open(self, conversation: ImportedConversation, user: str | None, origin: str) -> tuple[str, int]:
        body: dict[str, Any] = {"origin_id": origin, "metadata": conversation.metadata}
        if conversation.fork_of is None:
            made = self._send("POST", "/v1/conversations", content=_encode({"user": user, **body}))
        else:
            parent = self._find(user, self._origin(conversation.fork_of))
            body["at_seq"] = 0 if conversation.fork_at is None else self._seq(parent, conversation.fork_at)
            made = self._send("POST", f"{parent}/fork", content=_encode(body))
        path = f"/v1/conversations/{made['id']}"
        self._ids[user, origin] = path
        self._ids.move_to_end((user, origin))
        while len(self._ids) > _REMEMBERED:
            self._ids.popitem(last=False)
        if conversation.deleted:
            self._deleted.append(path)
        return path, made["head"]

    def _origin(self, origin: str) -> str:
        return _fitting(f"{self._prefix}{origin}", _MAX_NAME, self._prefix)

    def _find(self, user: str | None, origin: str) -> str:
        known = self._ids.get((user, origin))
        if known is not None:
            return known
        query = {"origin_id": origin, "limit": "1", **({} if user is None else {"user": user})}
        found = self._send("GET", "/v1/conversations", params=query)["data"]
        if not found:
            raise click.ClickException(
                f"the conversation {origin!r}, of which the file has a fork, is not on the server"
            )
        return f"/v1/conversations/{found[0]['id']}"

    def _seq(self, parent: str, event_id: str) -> int:
        wanted = event_id if _DELETION.fullmatch(event_id) else _fitting(event_id, _MAX_LABEL)
        if "/" not in wanted and wanted.strip("."):
            return int(self._send("GET", f"{parent}/events/{quote(wanted, safe='')}")["seq"])
        # A slash cannot be part of a path's last segment, nor can "..": such an id is looked for.
        before: dict[str, Any] = {}
        while True:
            page = self._send("GET", f"{parent}/events", params={"order": "desc", "limit": 100, **before})
            for event in page["data"]:
                if event["id"] == wanted:
                    return int(event["seq"])
            if not page["has_more"]:
                raise click.ClickException(f"the event {event_id!r}, after which a fork begins, is not on the server")
            before = {"before_seq": page["data"][-1]["seq"]}


def _batches(events: Iterable[ImportedEvent]) -> Iterator[list[tuple[ImportedEvent, bytes]]]:
    batch: list[tuple[ImportedEvent, bytes]] = []
    size = 0
    for event in events:
        data = encode_event(event)
        alone = event.type == "deletion" or (batch and batch[0][0].type == "deletion")
        if batch and (alone or len(batch) >= MAX_BATCH_EVENTS or size + len(data) > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((event, data))
        size += len(data)
    if batch:
        yield batch


def encode_event(event: ImportedEvent) -> bytes:
    """Return an event as the API takes it.

    A label that it would refuse (over 256 characters, with U+0000, an id that begins with ``evt_``) is replaced by its
    SHA-256, a name by its beginning, and stands in the metadata as ``source_<field>``; an ``erasure``, which only the
    server may append, becomes an ``item``, and so does a ``deletion`` of what is no item; metadata over 64 KiB becomes
    a last part of the content.
    """
    fields: dict[str, Any] = {"type": event.type, "role": event.role, "occurred_at": event.occurred_at}
    metadata = dict(event.metadata or {})
    if event.type in ("erasure", "deletion"):
        fields["type"] = "item"
        metadata.setdefault("source_type", event.type)
    for field in _LABELS:
        label = getattr(event, field)
        fitting = None if not label else _fitting(label, _MAX_LABEL)
        if label and fitting != label:
            metadata[f"source_{field}"] = label
            if field == "name":
                fitting = label.replace("\0", "\N{REPLACEMENT CHARACTER}")[:_MAX_LABEL]
        fields[field] = fitting
    content = event.content
    if metadata and len(_encode(metadata)) > _MAX_METADATA:
        raw = _encode(content)
        if raw[:1] == b'"':
            parts: list[Any] = [{"type": "text", "text": content}]
        else:
            parts = _parts.decode(raw) if raw[:1] == b"[" else [{"type": "item", "value": content}]
        content = [*parts, {"type": "metadata", "metadata": metadata}]
        metadata = {}
    fields["metadata"] = metadata or None
    return _encode({name: value for name, value in fields.items() if value is not None} | {"content": content})


def _deleted(event: ImportedEvent) -> int | None:
    """Return the seq that a deletion names, None for all else."""
    if event.type != "deletion":
        return None
    try:
        return msgspec.json.decode(_encode(event.content), type=_Named).seq
    except msgspec.ValidationError:
        return None


def _fitting(text: str, limit: int, prefix: str = "") -> str:
    """Return a text that the API takes as an id: itself, or its hash after the prefix."""
    if len(text) <= limit and "\0" not in text and not text.startswith("evt_"):
        return text
    return f"{prefix}sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _explained(error: Refused, origin: str, events: list[ImportedEvent]) -> click.ClickException:
    match = _AT_EVENT.search(error.message)
    if match is None or int(match[1]) >= len(events):
        return click.ClickException(f"conversation {origin!r}: {error.message}")
    return click.ClickException(f"conversation {origin!r}, event {events[int(match[1])].id!r}: {error.message}")
