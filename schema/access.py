"""Tenants and their keys: small tables, copied whole to every shard when the database is distributed."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from schema.base import metadata

tenant = Table(
    "tenant",
    metadata,
    Column("id", Integer, Identity(always=False), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("salt", LargeBinary, nullable=False, comment="32 random bytes; keys every hash of this tenant's content"),
    Column("operator", Boolean, nullable=False, server_default=text("false"), comment="may manage other tenants"),
    Column("retention_days", Integer, comment="events older than this are erased; NULL keeps them for good"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("retention_days > 0", name="retention_days"),
    CheckConstraint("octet_length(salt) = 32", name="salt"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Integer, ForeignKey("tenant.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column(
        "digest", LargeBinary, nullable=False, unique=True, comment="SHA-256 of the key; the key itself is not kept"
    ),
    Column("prefix", Text, nullable=False, comment="the first characters of the key, to tell keys apart"),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("rate_limit", Integer, comment="requests per second; NULL has no limit"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    CheckConstraint("rate_limit > 0", name="rate_limit"),
    CheckConstraint("scopes <@ ARRAY['read','append','erase','admin']", name="scopes"),
    Index("api_key_tenant_id_idx", "tenant_id"),
)
