"""The versions that are registered and the routing between them, as one read gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np
import sqlalchemy as sa

from schema.tables import embedding_routing, embedding_version
from schema.vocabulary import VersionState
from server.database.connections import Database
from server.embeddings.lifecycle.decision import RUNNING
from server.embeddings.lifecycle.routing import Routing, Unit
from server.embeddings.model import Model, check, open_model
from server.embeddings.providers import Spec, Vectors
from server.embeddings.texts import TEXT_BUILDER
from server.errors import ModelRefused
from server.retrieval.plan import plan_for

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
    state: VersionState

    def open(self, key: str | None = None) -> Model:
        """Open its model and make sure that it is the one that was registered; blocking.

        ``key`` is the provider's secret. Raises ModelRefused when it has changed under its name, or when this release
        makes other texts than it was registered for; and ProviderUnavailable.
        """
        if self.text_builder != TEXT_BUILDER:
            raise ModelRefused(
                f"the version {self.name} embeds texts as {self.text_builder} makes them; this release makes "
                f"{TEXT_BUILDER}: add a version and migrate"
            )
        model = open_model(msgspec.structs.replace(self.spec, key=key))
        try:
            check(model, self.dimensions, self.probe)
        except BaseException:
            model.close()
            raise
        return model


class Registered(NamedTuple):
    """All of it, from one snapshot; ``routing`` is None on a database that no version was made for yet."""

    versions: dict[int, Version]
    routing: Routing | None

    @property
    def active(self) -> Version | None:
        """The version that serves reads."""
        return self.versions[self.routing.active] if self.routing else None

    @property
    def migrating(self) -> Version | None:
        """The version that is being migrated to, from its `start` to `contract` or `rollback`."""
        return next((version for version in self.versions.values() if version.state in RUNNING), None)

    @property
    def written(self) -> list[Version]:
        """The versions that every writer covers."""
        return [self.versions[number] for number in self.routing.written] if self.routing else []


async def read(database: Database) -> Registered:
    """Read the registered versions and the routing. Raises DatabaseUnavailable."""
    async with database.transaction(None, repeatable_read=True) as connection:
        versions = [version_of(row) for row in await connection.execute(sa.select(embedding_version))]
        routing = (await connection.execute(sa.select(embedding_routing))).one_or_none()
    known = {version.id: version for version in versions}
    return Registered(known, routing_of(routing, known) if routing else None)


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


def routing_of(row: sa.Row[tuple[object, ...]], versions: Mapping[int, Version]) -> Routing:
    """Make the routing of its row; a version that was never tuned has the weights that this release has for it."""
    units = {unit.version: unit for unit in msgspec.json.decode(row.tuning, type=list[Unit])}
    written = tuple(row.written)
    return Routing(
        epoch=row.epoch,
        active=row.active,
        salt=bytes(row.salt),
        candidate=row.candidate,
        ramp=row.ramp,
        shadow=row.shadow,
        paused=row.paused,
        written=written,
        units=tuple(
            units.get(number) or Unit(version=number, plan=plan_for(versions[number].spec.model)) for number in written
        ),
    )
