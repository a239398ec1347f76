"""Measures what `verify` judges: is every text embedded, by this very model, and does the index find it?"""

from __future__ import annotations

import asyncio
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import numpy as np
import psycopg

from schema.embeddings import relation_name
from server.database.address import Address
from server.database.connections import Database
from server.database.failures import unavailable
from server.database.round_trip import SETTING_TENANT, Statement, array, round_trip
from server.embeddings.lifecycle.figures.vectors import cosines
from server.embeddings.lifecycle.gates.verification import Sample, Verified
from server.embeddings.migration import coverage, soundness
from server.embeddings.migration.soundness import Place
from server.embeddings.model import Model
from server.embeddings.providers import Vectors
from server.embeddings.session import session
from server.embeddings.texts import build
from server.embeddings.versions import Version
from server.errors import TextRefused
from server.log.stored import COLUMNS, from_row

_STORED: Final = """
SELECT vector_send(v.embedding::vector), {columns}
FROM unnest(%(keys)s::bigint[], %(owners)s::uuid[], %(seqs)s::bigint[]) AS r(key, owner, seq)
JOIN event e ON e.user_key = r.key AND e.conversation = r.owner AND e.seq = r.seq AND e.tenant_id = %(tenant)s
    AND e.erased_at IS NULL
JOIN {relation} v ON v.user_key = e.user_key AND v.conversation = e.conversation AND v.seq = e.seq
    AND v.tenant_id = %(tenant)s
"""


async def measure(
    database: Database, address: Address, version: Version, model: Model, *, sample: int = 200, seed: int = 0
) -> Verified:
    """Measure a version's vectors, for `gates.verification` to judge; writes nothing.

    ``model``: the version's, opened; it is probed anew, and embeds ``sample`` texts, chosen by ``seed``, again. Reads
    the whole log and the whole relation: a million events take minutes. Raises DatabaseUnavailable, ProviderUnavailable
    and ModelRefused.
    """
    try:
        async with await psycopg.AsyncConnection.connect(address.conninfo("turnstone_owner"), autocommit=True) as owner:
            probe = await asyncio.to_thread(_probe, version, model)
            covered = await coverage.measure(database, owner, version.id)
            sound = await soundness.vectors(owner, version)
            places = await soundness.some(owner, version, sample, seed)
            index = await soundness.index(owner, version, places)
        again = await _embed_again(database, version, model, places)
    except psycopg.Error as error:
        if answer := unavailable(error):
            raise answer from error
        raise
    return Verified(coverage=covered, vectors=sound, probe=probe, sample=again, index=index)


def _probe(version: Version, model: Model) -> float:
    """Return the model's worst cosine to how it answered when it was added; 0 in other dimensions."""
    now = model.probe().probe
    return float(np.min(cosines(version.probe, now))) if now.shape == version.probe.shape else 0.0


async def _embed_again(database: Database, version: Version, model: Model, places: list[Place]) -> Sample:
    stored: list[Vectors] = []
    texts: list[str] = []
    async with session(database) as connection:
        for tenant, group in groupby(sorted(places), key=itemgetter(0)):
            own = list(group)
            values = {
                "tenant": tenant,
                "keys": array(key for _, key, _, _ in own),
                "owners": array(owner for *_, owner, _ in own),
                "seqs": array(seq for *_, seq in own),
            }
            for data, *row in await round_trip(connection, [SETTING_TENANT(values), _reading(version.id)(values)]):
                built = build(from_row(tuple(row)))
                if built is not None:
                    # Two 16-bit numbers stand before the components.
                    stored.append(np.frombuffer(data, ">f4", offset=4).astype(np.float32))
                    texts.append(built.text)
    if not texts:
        return Sample(vectors=0, worst=0.0)
    embedded = await asyncio.to_thread(_embed, model, texts)
    found = cosines(np.stack(stored), embedded)
    return Sample(vectors=len(found), worst=float("nan") if np.isnan(found).any() else float(found.min()))


def _embed(model: Model, texts: list[str]) -> Any:
    """Embed texts; what is refused now, although it has a vector, gets none."""
    parts = []
    for start in range(0, len(texts), model.batch):
        part = texts[start : start + model.batch]
        try:
            parts.append(model.embed_documents(part))
        except TextRefused:
            parts += [_one(model, text) for text in part]
    return np.concatenate(parts)


def _one(model: Model, text: str) -> Vectors:
    try:
        return model.embed_documents([text])
    except TextRefused:
        return np.full((1, model.dimensions), np.nan, np.float32)


@cache
def _reading(version: int) -> Statement:
    return Statement(_STORED.format(relation=relation_name(version), columns=COLUMNS))
