"""What the working set rests on beside the log: touches, checkpoints of the fold, snapshots of contexts.

None of them holds text. A checkpoint holds hashes of words, which erasure must reach all the same.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY

from schema.base import metadata

touch = Table(
    "touch",
    metadata,
    Column("user_key", BigInteger, nullable=False),
    Column("conversation", Uuid, nullable=False, comment="where the events were touched; forks share it as the log"),
    Column("ord", BigInteger, nullable=False, comment="1, 2, 3 … without gaps, from conversation.touches"),
    Column("tenant_id", Integer, nullable=False),
    Column("at", BigInteger, nullable=False, comment="the head when it happened"),
    Column("seqs", ARRAY(BigInteger), nullable=False, comment="the events that were faulted in or used, in order"),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    # In the order in which a fold reads them from any place on: `at` and `ord` grow together.
    PrimaryKeyConstraint("user_key", "conversation", "at", "ord"),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("user_key", BigInteger, nullable=False),
    Column("conversation", Uuid, nullable=False),
    Column("head", BigInteger, nullable=False, comment="the last seq that is folded; no touch at it is"),
    Column("tenant_id", Integer, nullable=False),
    Column("floor", BigInteger, nullable=False, comment="the conversation's floor that the fold began at"),
    Column("fold", LargeBinary, nullable=False, comment="the fold's state, with the versions that made it"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("user_key", "conversation", "head"),
)

snapshot = Table(
    "snapshot",
    metadata,
    Column("user_key", BigInteger, nullable=False),
    Column("id", Uuid, nullable=False, comment="UUIDv7"),
    Column("tenant_id", Integer, nullable=False),
    Column("conversation", Uuid, nullable=False),
    Column("head", BigInteger, nullable=False, comment="of the conversation, when the context was assembled"),
    Column("digest", LargeBinary, nullable=False, comment="keyed hash of the answer, byte for byte"),
    Column("record", Text, nullable=False, comment="JSON: stamps, and for each message its event and reason; no text"),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("user_key", "id"),
    Index("snapshot_user_key_conversation_head_idx", "user_key", "conversation", "head"),
)
