"""The relations of vectors, and the rows that name them: what only the tables' owner may change."""

from __future__ import annotations

import os
from contextlib import closing

import msgspec
import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from schema import embeddings as schema
from schema.tables import embedding_routing, embedding_version
from schema.vocabulary import VersionState
from server.database.address import Address
from server.database.upgrade import owning, securing
from server.embeddings.model import Fingerprint, open_model
from server.embeddings.providers import Spec
from server.embeddings.texts import TEXT_BUILDER
from server.embeddings.versions import DEFAULT_NAME, DEFAULT_SPEC


def probe(spec: Spec) -> Fingerprint:
    """Ask a model for its fingerprint; blocking. Raises ModelRefused, ProviderUnavailable and InvalidInput."""
    with closing(open_model(spec)) as model:
        return model.fingerprint()


def register(
    connection: sa.Connection,
    name: str,
    spec: Spec,
    found: Fingerprint,
    *,
    state: VersionState = "draft",
    number: int | None = None,
) -> int:
    """Write a model down as a version; returns its id, the next one unless ``number`` says so. The caller commits."""
    given = {} if number is None else {"id": number}
    registered = connection.scalar(
        sa.insert(embedding_version)
        .values(
            name=name,
            provider=spec.provider,
            model=spec.model,
            revision=spec.revision,
            options=msgspec.json.encode(spec.options).decode(),
            dimensions=found.dimensions,
            normalised=found.normalised,
            query_prefix=spec.query_prefix,
            document_prefix=spec.document_prefix,
            text_builder=TEXT_BUILDER,
            fingerprint=found.digest,
            probe=found.probe.astype("<f4").tobytes(),
            state=state,
            **given,
        )
        .returning(embedding_version.c.id)
    )
    assert registered is not None
    return int(registered)


def create_relation(connection: sa.Connection, version: int, dimensions: int) -> None:
    """Create a version's relation with its policy and grants, unless it is there, in the caller's transaction.

    ``connection``: the owner's. Other tables are not locked for it.
    """
    table = schema.relation(version, dimensions)
    if connection.scalar(sa.select(sa.func.to_regclass(table.name))) is not None:
        return
    with securing(connection, table.name):
        connection.execute(CreateTable(table))
        # In the row, however long: a scan of one user's vectors reads pages in order instead of chasing each one.
        connection.execute(sa.text(f"ALTER TABLE {table.name} ALTER COLUMN embedding SET STORAGE PLAIN"))


def ensure_first(address: Address) -> bool:
    """Make the default model the first version, unless there is a routing already; returns whether it did.

    Blocking; runs after every schema upgrade, on as many servers as start. Raises ModelRefused and DatabaseError.
    """
    with owning(address) as connection:
        if connection.scalar(sa.select(embedding_routing.c.epoch)) is not None:
            return False
        found = probe(DEFAULT_SPEC)
        number = register(connection, DEFAULT_NAME, DEFAULT_SPEC, found, state="active")
        create_relation(connection, number, found.dimensions)
        connection.execute(
            sa.insert(embedding_routing).values(epoch=1, active=number, salt=os.urandom(16), written=[number])
        )
        connection.commit()
        return True
