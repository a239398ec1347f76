"""The servers that are alive on this database."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Double, Integer, Table, Text, Uuid, func, text

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
    # What it saw in its last window of five seconds: written while an embedding migration runs.
    Column("load_at", DateTime(timezone=True), comment="when the following was written"),
    Column("p99_ms", Double, comment="of the requests that callers wait for; NULL when there was none"),
    Column("requests", BigInteger, nullable=False, server_default=text("0"), comment="in that window"),
    Column("waiting", BigInteger, nullable=False, server_default=text("0"), comment="fresh events without a vector"),
    Column(
        "reading", Integer, nullable=False, server_default=text("0"), comment="requests of an epoch before this one"
    ),
)
