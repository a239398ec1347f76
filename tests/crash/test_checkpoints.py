"""``kill -9`` while checkpoints are being made: the next server folds to the same residents, from whatever is left."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
import pytest

from server.log.stored import StoredEvent
from server.working_set.explain import residents
from server.working_set.fold import Fold
from server.working_set.items import measure
from tests.crash.soak import strike
from tests.operations.running import Serve, free_port

EVENTS = 4000
_WORDS = ["lisbon", "always", "kettle", "invoice", "1999", "never", "it", "tomorrow", "actually", "moved"]


def fill(client: httpx.Client, conversation: str, chance: random.Random) -> None:
    for _ in range(EVENTS // 1000):
        texts = [" ".join(chance.choice(_WORDS) for _ in range(20)) for _ in range(1000)]
        events = [{"role": chance.choice(["user", "assistant"]), "content": text} for text in texts]
        answer = client.post(f"/v1/conversations/{conversation}/events", json={"events": events})
        assert answer.status_code == 201, answer.text


def read(client: httpx.Client, conversation: str) -> list[tuple[int, int, str]]:
    answer = client.get(f"/v1/conversations/{conversation}/working-set")
    assert answer.status_code == 200, answer.text
    return [(one["seq"], one["tokens"], one["why"]) for one in answer.json()["residents"]]


def expected(client: httpx.Client, conversation: str) -> list[tuple[int, int, str]]:
    """Fold the log as it is read over HTTP."""
    fold = Fold()
    while fold.head < EVENTS:
        query: dict[str, Any] = {"after_seq": fold.head, "limit": 1000}
        page = client.get(f"/v1/conversations/{conversation}/events", params=query).json()
        for item in measure([msgspec.convert(event, StoredEvent) for event in _raw(page["data"])]):
            fold.apply(item)
    return [(one.seq, one.tokens, one.why) for one in residents(fold)]


def _raw(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event | {"content": msgspec.Raw(msgspec.json.encode(event["content"]))} for event in events]


def reached(data_dir: Path) -> int:
    """Return the head of the newest checkpoint that is stored."""
    _, _, _, port, host, *_ = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
    with psycopg.connect(host=host, port=port, user="postgres", dbname="turnstone") as connection:
        row = connection.execute("SELECT coalesce(max(head), 0) FROM checkpoint").fetchone()
    return int(row[0]) if row else 0


@pytest.mark.timeout(240)
def test_a_death_amid_checkpoints_changes_nothing(tmp_path: Path) -> None:
    chance = random.Random(20260101)
    data_dir, port = tmp_path / "data", free_port()
    server = Serve(data_dir, port, durable=True)
    try:
        server.wait_ready()
        with server.client() as client:
            at = client.post("/v1/conversations", json={}).json()["id"]
            fill(client, at, chance)
        before = 0
        for victim in ("both", "server"):
            while (now := reached(data_dir)) <= before:  # the keeper is at work
                time.sleep(0.02)
            before = now
            time.sleep(chance.uniform(0, 0.1))
            strike(server, victim, chance)
            server = Serve(data_dir, port, durable=True)
            server.wait_ready()
        with server.client() as client:
            assert read(client, at) == expected(client, at)
        assert server.stop() == 0
    finally:
        server.end()
