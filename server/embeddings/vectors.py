"""One user's vectors, in bulk, for the index that is held in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Final, NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from schema.embeddings import MAX_VECTOR, relation_name
from server.database.connections import Database, hot_connection
from server.database.round_trip import SETTING_TENANT, Statement, array, round_trip
from server.database.tenant import Tenant
from server.embeddings.providers import Vectors
from server.embeddings.versions import Version

_CHUNK: Final = 2048  # vectors in one value: few rows for the driver, none too large to send

# Whole vectors as PostgreSQL sends them, one behind the other, each after its seq: the driver sees a row for thousands
# of them, and numpy reads them where they lie. Each row is a scan of its own, since a GROUP BY would write them all to
# disk first.
_READ: Final = """
SELECT r.ord - 1, g.low, part.data
FROM unnest(%(owners)s::uuid[], %(lows)s::bigint[], %(highs)s::bigint[]) WITH ORDINALITY AS r(owner, low, high, ord)
CROSS JOIN LATERAL (
    SELECT v.seq AS last FROM {relation} v
    WHERE v.user_key = %(user_key)s AND v.conversation = r.owner AND v.seq BETWEEN r.low AND r.high
      AND v.tenant_id = %(tenant)s
    ORDER BY v.seq DESC LIMIT 1
) newest
CROSS JOIN LATERAL generate_series(r.low, newest.last, {chunk}) AS g(low)
CROSS JOIN LATERAL (
    SELECT string_agg(int8send(v.seq) || {send}(v.embedding), ''::bytea) AS data FROM {relation} v
    WHERE v.user_key = %(user_key)s AND v.conversation = r.owner AND v.seq BETWEEN g.low AND g.low + {chunk} - 1
      AND v.seq <= newest.last AND v.tenant_id = %(tenant)s
    OFFSET 0
) part
WHERE part.data IS NOT NULL
"""


class UserVectors(NamedTuple):
    """``matrix`` (n, d) holds float32 unit vectors; row i is the event ``seqs[i]`` of ``owners[owner[i]]``.

    In the order of owners and seqs; an event without a vector has no row.
    """

    owners: list[UUID]
    owner: NDArray[np.int32]
    seqs: NDArray[np.int64]
    matrix: Vectors


async def vectors_of(
    database: Database,
    tenant: Tenant,
    user_key: int,
    version: Version,
    ranges: Mapping[UUID, tuple[int, int]] | Sequence[tuple[UUID, tuple[int, int]]],
) -> UserVectors:
    """Read a user's vectors: for each owner those of seqs from low to high, both included.

    700 of 256 dimensions take about 2 ms, 100,000 a good half second. Raises DatabaseUnavailable.
    """
    parts = list(ranges.items() if isinstance(ranges, Mapping) else ranges)
    values = {
        "tenant": tenant.id,
        "user_key": user_key,
        "owners": array(owner for owner, _ in parts),
        "lows": array(low for _, (low, _) in parts),
        "highs": array(high for _, (_, high) in parts),
    }
    half = version.dimensions > MAX_VECTOR
    async with hot_connection(database) as connection:
        rows = await round_trip(connection, [SETTING_TENANT(values), _reading(version.id, half)(values)])
    rows.sort(key=itemgetter(0, 1))
    number = ">f2" if half else ">f4"
    layout = np.dtype([("seq", ">i8"), ("header", ">i2", 2), ("v", number, version.dimensions)])
    counts = [len(data) // layout.itemsize for *_, data in rows]
    matrix = np.empty((sum(counts), version.dimensions), np.float32)
    seqs = np.empty(len(matrix), np.int64)
    owner = np.repeat(np.array([place for place, *_ in rows], np.int32), counts)
    start = 0
    for (*_, data), count in zip(rows, counts, strict=True):
        read = np.frombuffer(data, layout)
        if np.any(read["seq"][1:] < read["seq"][:-1]):  # the order of an aggregate's rows is the plan's own affair
            read = read[np.argsort(read["seq"])]
        matrix[start : start + count] = read["v"]
        seqs[start : start + count] = read["seq"]
        start += count
    return UserVectors([uuid for uuid, _ in parts], owner, seqs, matrix)


@cache
def _reading(version: int, half: bool) -> Statement:
    send = "halfvec_send" if half else "vector_send"
    text = _READ.format(relation=relation_name(version), send=send, chunk=_CHUNK)
    return Statement(text, binary_rows=True)
