"""The versions that are registered and the routing between them, as one read gives them."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
import numpy as np
import sqlalchemy as sa

from schema.tables import embedding_routing, embedding_version
from server.database.connections import Database
from server.embeddings.model import Model, check, open_model
from server.embeddings.providers import Spec, Vectors

DEFAULT_SPEC: Final = Spec(provider="wordllama", model="l2_supercat_256")
DEFAULT_NAME: Final = "wordllama-256"


class Version(NamedTuple):
    """One embedding space; fixed for ever but for its state."""

    id: int
    name: str
    spec: Spec
    dimensions: int
    text_builder: str
    fingerprint: str
    probe: Vectors
    state: str

    def open(self, key: str | None = None) -> Model:
        """Open its model and make sure that it is the one that was registered; blocking.

        ``key`` is the provider's secret. Raises ModelRefused when it has changed under its name, ProviderUnavailable.
        """
        model = open_model(msgspec.structs.replace(self.spec, key=key))
        try:
            check(model, self.dimensions, self.probe)
        except BaseException:
            model.close()
            raise
        return model


class Routing(NamedTuple):
    """Which version serves reads and which are written; ``tuning`` is JSON text. One row, flipped as a whole."""

    epoch: int
    active: int
    candidate: int | None
    ramp: int
    salt: bytes
    written: tuple[int, ...]
    tuning: str


class Registered(NamedTuple):
    """All of it, from one snapshot; ``routing`` is None on a database that no version was made for yet."""

    versions: dict[int, Version]
    routing: Routing | None

    @property
    def active(self) -> Version | None:
        """The version that serves reads."""
        return self.versions[self.routing.active] if self.routing else None

    @property
    def written(self) -> list[Version]:
        """The versions that every writer covers."""
        return [self.versions[number] for number in self.routing.written] if self.routing else []


async def read(database: Database) -> Registered:
    """Read the registered versions and the routing. Raises DatabaseUnavailable."""
    async with database.transaction(None, repeatable_read=True) as connection:
        versions = [version_of(row) for row in await connection.execute(sa.select(embedding_version))]
        routing = (await connection.execute(sa.select(embedding_routing))).one_or_none()
    return Registered({version.id: version for version in versions}, routing_of(routing) if routing else None)


async def read_epoch(database: Database) -> int | None:
    """Return only the routing's epoch, None before there is a version. Raises DatabaseUnavailable."""
    async with database.transaction(None) as connection:
        return (await connection.execute(sa.select(embedding_routing.c.epoch))).scalar_one_or_none()


def version_of(row: sa.Row[tuple[object, ...]]) -> Version:
    """Make a version of a row of the table."""
    spec = Spec(
        provider=row.provider,
        model=row.model,
        revision=row.revision,
        options=msgspec.json.decode(row.options),
        query_prefix=row.query_prefix,
        document_prefix=row.document_prefix,
    )
    probe = np.frombuffer(row.probe, "<f4").reshape(-1, row.dimensions)
    return Version(row.id, row.name, spec, row.dimensions, row.text_builder, row.fingerprint, probe, row.state)


def routing_of(row: sa.Row[tuple[object, ...]]) -> Routing:
    """Make the routing of its row."""
    return Routing(row.epoch, row.active, row.candidate, row.ramp, bytes(row.salt), tuple(row.written), row.tuning)
