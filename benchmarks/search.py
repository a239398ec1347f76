"""Searches over HTTP: latency of a small and a large user, alone and among the events of others; memory; HNSW's recall.

Each ratio compares two runs of this one. Texts are made of invented words in Zipf's proportions; the vectors of what is
loaded in bulk are those of pairs out of some thousands of such texts, embedded by the default model.
"""

from __future__ import annotations

import http.client
import random
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import click
import msgspec
import numpy as np
import psycopg
from rich.console import Console

from benchmarks import bulk, generators
from benchmarks.load import Orders
from benchmarks.measure import measure
from benchmarks.serving import Serving, scratch
from server.database.ids import user_key, uuid7
from server.embeddings.model import open_model
from server.embeddings.versions import DEFAULT_SPEC
from server.search.wide import CANDIDATES, SCAN

SMALL: Final = 700
LARGE: Final = 100_000
FEW: Final = 10_000
_POOL: Final = 4_000  # embedded texts that the vectors of bulk events are made of
_LONG: Final = 1_000  # events of one conversation of the large user
_QUESTIONS: Final = 100
_MEMORY: Final = str(1024 * 1024 * 1024)


@click.command()
@click.option("--others", default=1_000_000, show_default=True, help="Events of other users, at the end.")
@click.option("--seconds", default=5.0, show_default=True, help="Of each run of throughput.")
@click.option("--rounds", default=3, show_default=True, help="Of each latency; the median of their medians is shown.")
def main(others: int, seconds: float, rounds: int) -> None:
    """Measure searches on a server of its own."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    words = Words()
    with scratch() as directory, Serving(directory / "data", flags=["--search-bytes", _MEMORY]) as serving:
        small = _small(serving, words)
        _bulk(serving, words, FEW)
        asked = [{"query": words.question(), "user": "small", "k": 10} for _ in range(_QUESTIONS)]
        console.print("Latency over HTTP, one connection: p50, p95, and the first of all")
        few = _latency(console, serving, f"{SMALL} events, {FEW:,} of others", asked, rounds)
        in_conversation = [one | {"user": None, "conversation_id": small} for one in asked]
        _latency(console, serving, f"{SMALL} events, one conversation", in_conversation, rounds)
        before = serving.memory().python
        _large(serving, words)
        large = [one | {"user": "large"} for one in asked]
        _latency(console, serving, f"{LARGE:,} events", large, rounds)
        grown = serving.memory().python - before
        _latency(
            console, serving, f"{LARGE:,} events, after an append", large, 1, append=_conversation(serving, "large")
        )
        console.print(_hnsw(serving, asked))
        _bulk(serving, words, others - FEW)
        many = _latency(console, serving, f"{SMALL} events, {others:,} of others", asked, rounds)
        console.print(f"{others:,} events of others against {FEW:,}: {many / few:.2f} times the latency")
        console.print(f"memory of {LARGE:,} events: {grown:.0f} MiB, {grown * 2**20 / LARGE:.0f} bytes an event")
        figures = serving.client.get("/metrics").text.splitlines()
        held = next(line.split()[-1] for line in figures if line.startswith('turnstone_cache_bytes{cache="search"}'))
        console.print(f"accounted for by the server, both users: {float(held) / 2**20:.0f} MiB")
        for connections in (1, 8):
            requests = [serving.request("POST", "/v1/search", one) for one in asked[:8]]
            orders = Orders(serving.host, serving.port, connections, 0.5, seconds, requests)
            run = measure(serving, lambda orders=orders: generators.own(orders))  # type: ignore[misc]
            rate, python = run.figures.rate, run.python / 1000
            console.print(
                f"{connections} connections, {SMALL} events: {rate:.0f} searches/s, p50 {run.figures.p50:.1f} ms, "
                f"{python:.2f} ms of Python and {run.postgres / 1000:.2f} ms of PostgreSQL each"
            )


class Words:
    """A vocabulary of invented words, the first ones the most frequent."""

    def __init__(self) -> None:
        self._random = random.Random(7)
        parts = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
        self._words = ["".join(self._random.choices(parts, k=self._random.choice((2, 3, 3, 4)))) for _ in range(20_000)]
        self._weights = np.cumsum(1.0 / np.arange(3, len(self._words) + 3)).tolist()

    def text(self) -> str:
        """Return a message of some 30 words."""
        length = min(200, max(3, round(self._random.lognormvariate(3.1, 0.7))))
        return " ".join(self._random.choices(self._words, cum_weights=self._weights, k=length))

    def question(self) -> str:
        """Return a question of six words, rarer than most."""
        return "What about " + " ".join(self._random.sample(self._words[50:5_000], k=6)) + "?"


def _small(serving: Serving, words: Words) -> str:
    body = {"user": "small"}
    conversation = str(serving.client.post("/v1/conversations", json=body).raise_for_status().json()["id"])
    events = [{"role": ("user", "assistant")[n % 2], "content": words.text()} for n in range(SMALL)]
    path = f"/v1/conversations/{conversation}/events"
    serving.client.post(path, json={"events": events}).raise_for_status()
    until = time.monotonic() + 60
    asked = {"query": "ready", "conversation_id": conversation, "min_seq": SMALL}
    while "degraded" in serving.client.post("/v1/search", json=asked).raise_for_status().json():
        if time.monotonic() > until:
            raise SystemExit("the small user was not embedded within a minute")
        time.sleep(0.2)
    return conversation


def _conversation(serving: Serving, user: str) -> str:
    return str(serving.client.get("/v1/conversations", params={"user": user, "limit": 1}).json()["data"][0]["id"])


def _bulk(serving: Serving, words: Words, events: int) -> None:
    """Load events of others, a user for each conversation, with vectors."""
    if events <= 0:
        return
    with _superuser(serving) as connection:
        # A live HNSW index takes inserts at less than a thousand a second; searches of one user never read it.
        connection.execute("DROP INDEX IF EXISTS embedding_v1_hnsw")
        bulk.load(connection, salt=_salt(connection), events=events)
        _embed(connection, words)


def _large(serving: Serving, words: Words) -> None:
    with _superuser(serving) as connection:
        key = user_key(_salt(connection), "user", "large")
        connection.execute("INSERT INTO end_user (user_key, tenant_id, id) VALUES (%s, 1, 'large')", (key,))
        ids = [uuid7() for _ in range(LARGE // _LONG)]
        with connection.cursor() as cursor:
            with cursor.copy(bulk.CONVERSATION) as copy:
                for uuid in ids:
                    copy.write(f"{key}\t{uuid}\t1\tlarge\t{_LONG}\t2026-01-01\t2026-01-01\n")
            with cursor.copy(bulk.EVENT) as copy:
                for number, uuid in enumerate(ids):
                    day = f"2025-{number % 12 + 1:02d}-{number // 12 + 1:02d}"
                    for seq in range(1, _LONG + 1):
                        role = ("user", "assistant")[seq % 2]
                        copy.write(f'{key}\t{uuid}\t{seq}\t{day}\t{day}\t1\tmessage\t{role}\t"{words.text()}"\n')
        connection.commit()
        _embed(connection, words)


def _embed(connection: psycopg.Connection, words: Words) -> None:
    """Give all that has none a vector, as if embedded: of a pool, with noise."""
    texts = [words.text() for _ in range(_POOL)]
    vectors = open_model(DEFAULT_SPEC).embed_documents(texts)
    connection.autocommit = False
    connection.execute(f"CREATE TEMP TABLE pool (n int PRIMARY KEY, v vector({vectors.shape[1]})) ON COMMIT DROP")
    with connection.cursor() as cursor, cursor.copy("COPY pool FROM STDIN") as copy:
        for number, vector in enumerate(vectors):
            copy.write(f"{number}\t[{','.join(f'{value:.5f}' for value in vector)}]\n")
    # The static model's vector of two texts together is the mean of theirs, so these are vectors as it makes them.
    connection.execute(
        f"""
        INSERT INTO embedding_v1 (user_key, conversation, seq, tenant_id, text_hash, embedding)
        SELECT e.user_key, e.conversation, e.seq, e.tenant_id, '\\x00', l2_normalize(p.v + q.v)
        FROM event e
        JOIN pool p ON p.n = abs(hashtextextended(e.conversation::text, e.seq) % {_POOL})
        JOIN pool q ON q.n = abs(hashtextextended(e.conversation::text, -e.seq) % {_POOL})
        WHERE e.type = 'message'
        ON CONFLICT DO NOTHING
        """
    )
    connection.execute(
        """
        INSERT INTO embedding_progress (user_key, conversation, version, tenant_id, seq)
        SELECT c.user_key, c.id, 1, c.tenant_id, c.head FROM conversation c
        ON CONFLICT (user_key, conversation, version) DO UPDATE SET seq = excluded.seq
        """
    )
    connection.commit()
    connection.autocommit = True
    for table in ("embedding_v1", "embedding_progress", "event", "conversation"):
        connection.execute(f"VACUUM (ANALYZE) {table}")


def _latency(
    console: Console,
    serving: Serving,
    name: str,
    bodies: Sequence[dict[str, Any]],
    rounds: int,
    *,
    append: str | None = None,
) -> float:
    """Print a line, and return the median in milliseconds; ``append``: one event goes there before each search."""
    first = _times(serving, bodies[:1])[0]
    medians, tails = [], []
    for _ in range(rounds):
        taken = sorted(_times(serving, bodies, append))
        medians.append(statistics.median(taken))
        tails.append(taken[int(len(taken) * 0.95)])
    p50 = statistics.median(medians)
    console.print(f"  {name}: {p50:.1f} ms, {statistics.median(tails):.1f} ms, {first:.0f} ms")
    return p50


def _times(serving: Serving, bodies: Sequence[dict[str, Any]], append: str | None = None) -> list[float]:
    connection = http.client.HTTPConnection(serving.host, serving.port, timeout=120)
    headers = {"authorization": f"Bearer {serving.key}", "content-type": "application/json"}
    taken = []
    for body in bodies:
        if append is not None:
            event = {"events": [{"role": "user", "content": "One more note."}]}
            serving.client.post(f"/v1/conversations/{append}/events", json=event).raise_for_status()
        content = msgspec.json.encode({name: value for name, value in body.items() if value is not None})
        while True:
            began = time.perf_counter()
            connection.request("POST", "/v1/search", content, headers)
            answer = connection.getresponse()
            read = answer.read()
            took = (time.perf_counter() - began) * 1000
            if answer.status != 503:  # the large user's index is still being loaded
                break
        if answer.status != 200:
            raise SystemExit(f"a search was answered {answer.status}: {read[:500]!r}")
        taken.append(took)
    connection.close()
    return taken


def _hnsw(serving: Serving, asked: Sequence[dict[str, Any]]) -> str:
    """Compare the answers of a whole tenant before the index is built, and after."""
    bodies = [{"query": one["query"], "scope": "tenant", "k": 10} for one in asked]
    exact: dict[int, set[tuple[str, int]]] = {}
    approximate: dict[int, set[tuple[str, int]]] = {}
    taken: dict[str, list[float]] = {"exact": [], "approximate": []}
    started = time.monotonic()
    seconds = 0.0
    # The first of these wants the index; while it is being built the answers stay exact.
    for found, wanted in ((exact, "exact"), (approximate, "approximate")):
        for number, body in enumerate(bodies):
            while True:
                began = time.perf_counter()
                answer = serving.client.post("/v1/search", json=body).raise_for_status().json()
                how = answer["stamps"]["search"]
                taken[how].append((time.perf_counter() - began) * 1000)
                if how != wanted and wanted == "approximate" and time.monotonic() - started < 1200:
                    time.sleep(1)
                    continue
                break
            seconds = seconds or (time.monotonic() - started if how == "approximate" else 0.0)
            if how != wanted:
                break
            found[number] = {(one["conversation_id"], one["seq"]) for one in answer["data"]}
    both = exact.keys() & approximate.keys()
    same = statistics.mean(len(exact[n] & approximate[n]) / max(1, len(exact[n])) for n in both) if both else 0.0
    slow, fast = (statistics.median(taken[how] or [0.0]) for how in ("exact", "approximate"))
    return (
        f"tenant of {LARGE + FEW + SMALL:,} vectors: exact p50 {slow:.0f} ms, HNSW p50 {fast:.0f} ms, built within "
        f"{seconds:.0f} s; of the ten nearest {_recall(serving, [one['query'] for one in bodies]):.3f} are among its "
        f"candidates, and of the ten answers to {len(both)} questions {same:.3f} are the exact ones"
    )


def _recall(serving: Serving, questions: Sequence[str]) -> float:
    """Return which share of the ten nearest vectors the index finds, with the settings of a search."""
    model = open_model(DEFAULT_SPEC)
    near = "SELECT user_key, conversation, seq FROM embedding_v1 ORDER BY embedding <=> %s::vector LIMIT %s"
    found = []
    with _superuser(serving) as connection:
        for question in questions:
            vector = "[" + ",".join(f"{value:.8g}" for value in model.embed_query(question)) + "]"
            with connection.transaction():
                connection.execute("SET LOCAL enable_indexscan = off")
                exact = set(connection.execute(near, (vector, 10)).fetchall())
            with connection.transaction():
                connection.execute(SCAN)
                connection.execute("SET LOCAL enable_seqscan = off")
                found.append(len(exact & set(connection.execute(near, (vector, CANDIDATES)).fetchall())) / len(exact))
    return statistics.mean(found)


def _superuser(serving: Serving) -> psycopg.Connection:
    return psycopg.connect(serving.postgres().conninfo("postgres"))


def _salt(connection: psycopg.Connection) -> bytes:
    row = connection.execute("SELECT salt FROM tenant WHERE id = 1").fetchone()
    assert row is not None
    return bytes(row[0])


if __name__ == "__main__":
    main()
