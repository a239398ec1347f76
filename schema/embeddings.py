"""Embedding versions, which of them serves, how far each has come; and the relation of vectors that each version has.

Versions and routing are shared by all tenants. A version's vectors stand in a relation of their own, made at run time:
another nullable vector column beside the old one was measured to make a backfill 50 to 90 times slower, and to give
nothing back when it is dropped.
"""

from __future__ import annotations

import re
from typing import Final

from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from schema.base import metadata
from schema.vocabulary import VERSION_STATES

RELATION_PREFIX: Final = "embedding_v"
_RELATION: Final = re.compile(rf"{RELATION_PREFIX}[1-9][0-9]*", re.ASCII)
MAX_VECTOR: Final = 2000  # dimensions that pgvector can index as `vector`
MAX_HALFVEC: Final = 4000

embedding_version = Table(
    "embedding_version",
    metadata,
    Column("id", Integer, Identity(always=False), primary_key=True),
    Column("name", Text, nullable=False, unique=True, comment="the operator's word for it"),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("revision", Text, nullable=False, server_default=text("''")),
    Column("options", Text, nullable=False, server_default=text("'{}'"), comment="JSON: of the provider; no secrets"),
    Column("dimensions", Integer, nullable=False),
    Column("metric", Text, nullable=False, server_default=text("'cosine'")),
    Column("normalised", Boolean, nullable=False, comment="whether the model's own vectors had length 1; ours have"),
    Column("query_prefix", Text, nullable=False, server_default=text("''")),
    Column("document_prefix", Text, nullable=False, server_default=text("''")),
    Column("text_builder", Text, nullable=False, comment="what made the texts that were embedded"),
    Column("fingerprint", Text, nullable=False, comment="of the model as it answered, not of its name"),
    Column("probe", LargeBinary, nullable=False, comment="its vectors of the probe texts, float32, to compare with"),
    Column("state", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("state_since", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint(f"state IN ({', '.join(repr(state) for state in VERSION_STATES)})", name="state"),
    CheckConstraint("metric = 'cosine'", name="metric"),
    CheckConstraint(f"dimensions BETWEEN 1 AND {MAX_HALFVEC}", name="dimensions"),
)

embedding_routing = Table(
    "embedding_routing",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true"), comment="there is one row"),
    Column("epoch", BigInteger, nullable=False, comment="raised by every flip; servers say which one they follow"),
    Column("active", Integer, ForeignKey("embedding_version.id"), nullable=False),
    Column("candidate", Integer, ForeignKey("embedding_version.id")),
    Column(
        "ramp",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="basis points of the users that read the candidate",
    ),
    Column(
        "shadow",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="basis points of the searches that the candidate answers too, unseen",
    ),
    Column(
        "paused", Boolean, nullable=False, server_default=text("false"), comment="background work of a migration waits"
    ),
    Column("salt", LargeBinary, nullable=False, comment="chooses those users"),
    Column("written", ARRAY(Integer), nullable=False, comment="the versions that every writer covers"),
    Column(
        "tuning",
        Text,
        nullable=False,
        server_default=text("'[]'"),
        comment="JSON: weights and thresholds of each version",
    ),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("singleton", name="singleton"),
    CheckConstraint("ramp BETWEEN 0 AND 10000", name="ramp"),
    CheckConstraint("shadow BETWEEN 0 AND 10000", name="shadow"),
    CheckConstraint("active = ANY (written)", name="active"),
)

# Of the whole database: no row names a tenant, a user or a text.
embedding_history = Table(
    "embedding_history",
    metadata,
    Column("id", BigInteger, Identity(always=False), primary_key=True),
    Column("epoch", BigInteger, nullable=False, comment="the routing's, after it"),
    Column("action", Text, nullable=False),
    Column("version", Integer, ForeignKey("embedding_version.id"), nullable=False, comment="whom it was about"),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("who", Text, nullable=False, comment="name and id of the key"),
    Column("note", Text, nullable=False),
    Column("done", Boolean, nullable=False, comment="false: gates failed, and nothing was changed"),
    Column("forced", Text, comment="the reason given for going on all the same"),
    Column("detail", Text, nullable=False, server_default=text("'{}'"), comment="JSON: gates, figures, thresholds"),
)

# The processes that backfill, each with what it does and why it waits; one that was killed is not seen any more.
embedding_worker = Table(
    "embedding_worker",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("hostname", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("embedded", BigInteger, nullable=False, server_default=text("0"), comment="events, since it began"),
    Column("rate", Double, nullable=False, server_default=text("0"), comment="events a second, in its last window"),
    Column("duty", Double, nullable=False, server_default=text("1"), comment="share of the time that it works, 0 to 1"),
    Column("quiet_ms", Double, comment="the p99 of live requests without a backfill, which it measures by"),
    Column("why", Text, nullable=False, server_default=text("''"), comment="why it works at this pace, or waits"),
)

# What is pending is derived: the events of a conversation beyond this. So an event is pending durably from its append's
# own transaction on, and that transaction writes nothing for it.
embedding_progress = Table(
    "embedding_progress",
    metadata,
    Column("user_key", BigInteger, nullable=False),
    Column("conversation", Uuid, nullable=False, comment="the conversation that appended them"),
    Column("version", Integer, nullable=False),
    Column("tenant_id", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False, comment="own events up to here have their vectors, or are dead letters"),
    PrimaryKeyConstraint("user_key", "conversation", "version"),
    postgresql_with={"fillfactor": "70"},
)

embedding_failure = Table(
    "embedding_failure",
    metadata,
    Column("user_key", BigInteger, nullable=False),
    Column("conversation", Uuid, nullable=False),
    Column("version", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("tenant_id", Integer, nullable=False),
    Column("error", Text, nullable=False, comment="the class of the error; never a message, which may quote the text"),
    Column("attempts", Integer, nullable=False),
    Column("failed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("user_key", "conversation", "version", "seq"),
)


def is_relation(name: str) -> bool:
    """Whether a table is a version's relation of vectors."""
    return _RELATION.fullmatch(name) is not None


def relation_name(version: int) -> str:
    """Return the name of a version's relation."""
    return f"{RELATION_PREFIX}{version:d}"


def relation(version: int, dimensions: int) -> Table:
    """Return the table of a version's vectors, which belongs to no migration's metadata."""
    vector = VECTOR(dimensions) if dimensions <= MAX_VECTOR else HALFVEC(dimensions)
    return Table(
        relation_name(version),
        MetaData(naming_convention=metadata.naming_convention),
        Column("user_key", BigInteger, nullable=False),
        Column("conversation", Uuid, nullable=False, comment="the conversation that appended the event"),
        Column("seq", BigInteger, nullable=False),
        Column("tenant_id", Integer, nullable=False),
        Column("text_hash", LargeBinary, nullable=False, comment="keyed hash of the text that was embedded"),
        Column("embedding", vector, nullable=False),
        PrimaryKeyConstraint("user_key", "conversation", "seq"),
    )
