"""What a database says of a migration, by SQL beside the servers: vectors against texts, erased events, histories."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import psycopg

from benchmarks.migration_data import text_of
from benchmarks.migration_fleet import Fleet
from schema.embeddings import relation_name
from server.database.ids import keyed_hash, parse_conversation_id
from server.embeddings.model import open_model
from server.embeddings.providers import Spec
from server.log.stored import COLUMNS, from_row

_PURPOSE = "embedded text"


class Held(NamedTuple):
    """A version's vectors against the log's texts."""

    texts: int
    vectors: int
    missing: int
    doubled: int
    extra: int
    wrong: int
    sampled: int
    worst: float


def hold_against_log(fleet: Fleet, version: int, spec: Spec, *, sample: int = 400) -> Held:
    """Compare every vector's text hash with the event's text, and some vectors with the model's own."""
    relation = relation_name(version)
    with fleet.database() as connection:
        salts = {row[0]: bytes(row[1]) for row in connection.execute("SELECT id, salt FROM tenant")}
        texts = _texts(connection, salts)
        query = f"SELECT user_key, conversation, seq, text_hash, embedding::real[] FROM {relation}"
        rows = connection.execute(query.encode()).fetchall()
    found = {(key, at, seq): (bytes(digest), vector) for key, at, seq, digest, vector in rows}
    both = found.keys() & texts.keys()
    wrong = sum(found[place][0] != texts[place][1] for place in both)
    chosen = random.Random(0).sample(sorted(both), min(sample, len(both)))
    model = open_model(spec)
    try:
        made = np.concatenate(
            [
                model.embed_documents([texts[place][0] for place in chosen[start : start + 64]])
                for start in range(0, len(chosen), 64)
            ]
        )
    finally:
        model.close()
    stored = np.array([found[place][1] for place in chosen], np.float32)
    worst = float(np.min(np.sum(made * stored, axis=1)))
    return Held(
        texts=len(texts),
        vectors=len(rows),
        missing=len(texts.keys() - found.keys()),
        doubled=len(rows) - len(found),
        extra=len(found.keys() - texts.keys()),
        wrong=wrong,
        sampled=len(chosen),
        worst=worst,
    )


def _texts(
    connection: psycopg.Connection[tuple[Any, ...]], salts: dict[int, bytes]
) -> dict[tuple[Any, ...], tuple[str, bytes]]:
    query = f"SELECT e.tenant_id, e.user_key, {COLUMNS} FROM event e WHERE e.erased_at IS NULL"
    found = {}
    for tenant, key, *columns in connection.execute(query.encode()):
        text = text_of(from_row(tuple(columns)))
        if text is not None:
            found[key, columns[0], columns[1]] = text, keyed_hash(salts[tenant], _PURPOSE, text)
    return found


def vectors_of_event(fleet: Fleet, conversation: str, seq: int) -> dict[str, int]:
    """Return how many vectors of one event each version's relation holds."""
    at = parse_conversation_id(conversation)
    assert at is not None
    found = {}
    with fleet.database() as connection:
        for (name,) in connection.execute(
            r"SELECT tablename FROM pg_tables WHERE tablename ~ '^embedding_v\d+$'"
        ).fetchall():
            query = f"SELECT count(*) FROM {name} WHERE user_key = %s AND conversation = %s AND seq = %s"
            row = connection.execute(query.encode(), (at.user_key, at.uuid, seq)).fetchone()
            assert row is not None
            found[name] = int(row[0])
    return found
