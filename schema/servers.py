"""The servers that are alive on this database."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Integer, Table, Text, Uuid, func, text

from schema.base import metadata

server = Table(
    "server",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("hostname", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("release", Text, nullable=False),
    Column("routing_epoch", BigInteger, nullable=False, server_default=text("0"), comment="the epoch that it follows"),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("lease_until", DateTime(timezone=True), nullable=False, comment="it is taken for dead after this"),
)
