"""The relations of vectors, and the rows that name them: what only the tables' owner may change."""

from __future__ import annotations

import os
from contextlib import closing

import msgspec
import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from schema import embeddings as schema
from schema.tables import embedding_routing, embedding_version
from server.database.address import Address
from server.database.upgrade import owning, securing
from server.embeddings.model import open_model
from server.embeddings.providers import Spec
from server.embeddings.texts import TEXT_BUILDER
from server.embeddings.versions import DEFAULT_NAME, DEFAULT_SPEC


def register(connection: sa.Connection, name: str, spec: Spec, *, state: str = "draft") -> tuple[int, int]:
    """Probe a model and write it down as a version; returns its id and dimensions. The caller commits.

    Blocking. Raises ModelRefused, ProviderUnavailable and InvalidInput.
    """
    with closing(open_model(spec)) as model:
        found = model.fingerprint()
    number = connection.scalar(
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
        )
        .returning(embedding_version.c.id)
    )
    assert number is not None
    return number, found.dimensions


def create_relation(connection: sa.Connection, version: int, dimensions: int) -> None:
    """Create a version's relation with its policy and grants, in the caller's transaction, as the owner.

    Other tables are not locked for it.
    """
    table = schema.relation(version, dimensions)
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
        number, dimensions = register(connection, DEFAULT_NAME, DEFAULT_SPEC, state="active")
        create_relation(connection, number, dimensions)
        connection.execute(
            sa.insert(embedding_routing).values(epoch=1, active=number, salt=os.urandom(16), written=[number])
        )
        connection.commit()
        return True
