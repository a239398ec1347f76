"""The event log: users, conversations, events, idempotency keys, erasure records.

``user_key`` (a keyed 64-bit hash of tenant and user) leads every primary key and unique constraint, so that one user's
rows share a shard; ``tenant_id`` is in every table, for row-level security. There are no cross-user foreign keys.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from schema.base import metadata
from schema.vocabulary import ERASURE_SCOPES, EVENT_TYPES, ROLES


def _one_of(column: str, words: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


end_user = Table(
    "end_user",
    metadata,
    Column("user_key", BigInteger, nullable=False),
    Column("tenant_id", Integer, nullable=False),
    Column("id", Text, nullable=False, comment="the caller's own string"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # user_key only places the row: two users whose hashes collide stay two users.
    PrimaryKeyConstraint("user_key", "tenant_id", "id"),
    Index("end_user_tenant_id_id_idx", "tenant_id", "id"),
)

conversation = Table(
    "conversation",
    metadata,
    Column("user_key", BigInteger, nullable=False),
    Column("id", Uuid, nullable=False, comment="UUIDv7"),
    Column("tenant_id", Integer, nullable=False),
    Column("user_id", Text, comment="NULL: the conversation stands alone"),
    Column("origin_id", Text, comment="its id where it was imported from"),
    Column("metadata", Text, nullable=False, server_default=text("'{}'"), comment="JSON text, verbatim"),
    Column("head", BigInteger, nullable=False, server_default=text("0"), comment="the last seq"),
    Column(
        "floor", BigInteger, nullable=False, server_default=text("0"), comment="seq up to here expired by retention"
    ),
    Column("epoch", BigInteger, nullable=False, server_default=text("0"), comment="raised when what it shows shrinks"),
    Column("touches", BigInteger, nullable=False, server_default=text("0"), comment="how many touches were recorded"),
    Column("recorded_at", DateTime(timezone=True), nullable=False, comment="of its last event; never goes back"),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True), comment="kept only for what its forks share"),
    Column("retention_days", Integer, comment="overrides the tenant's"),
    Column("parent", Uuid, comment="the conversation that this one was forked from"),
    Column("fork_seq", BigInteger, comment="the last seq shared with the parent"),
    # The whole ancestry, flat, so that a fork of forks reads without walking: lineage[i] owns seq
    # (lineage_end[i-1], lineage_end[i]]. Ancestors that own nothing visible are left out.
    Column("lineage", ARRAY(Uuid)),
    Column("lineage_end", ARRAY(BigInteger)),
    PrimaryKeyConstraint("user_key", "id"),
    UniqueConstraint("user_key", "tenant_id", "origin_id"),
    Index("conversation_tenant_id_id_idx", "tenant_id", "id"),
    Index("conversation_user_key_parent_idx", "user_key", "parent", postgresql_where=text("parent IS NOT NULL")),
    CheckConstraint("retention_days > 0", name="retention_days"),
    # Every append updates its conversation's row; room on the page keeps that update off the indexes.
    postgresql_with={"fillfactor": "70"},
)

event = Table(
    "event",
    metadata,
    Column("user_key", BigInteger, nullable=False),
    Column("conversation", Uuid, nullable=False, comment="the conversation that appended it"),
    Column("seq", BigInteger, nullable=False, comment="1, 2, 3 … without gaps"),
    Column(
        "recorded_at", DateTime(timezone=True), nullable=False, comment="ours; max(previous, now) under the row lock"
    ),
    Column("occurred_at", DateTime(timezone=True), nullable=False, comment="the caller's, else recorded_at"),
    Column("erased_at", DateTime(timezone=True), comment="set on a tombstone, whose content is gone"),
    Column("tenant_id", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("role", Text),
    Column(
        "client_key", LargeBinary, comment="keyed hash of client_id; outlives erasure, so that a retry stays a retry"
    ),
    Column("client_digest", LargeBinary, comment="keyed hash of the body sent under client_id"),
    Column("client_id", Text, comment="the caller's id"),
    Column("name", Text),
    Column("call_id", Text),
    Column("session", Text),
    Column("run_id", Text),
    # JSON as text: jsonb refuses U+0000, reorders keys and rounds numbers.
    Column("content", Text, comment="JSON text, verbatim"),
    Column("metadata", Text, comment="JSON text, verbatim"),
    PrimaryKeyConstraint("user_key", "conversation", "seq"),
    Index(
        "event_user_key_conversation_client_key_key",
        "user_key",
        "conversation",
        "client_key",
        unique=True,
        postgresql_where=text("client_key IS NOT NULL"),
    ),
    # A tool call and its results belong together, however far apart they stand.
    Index(
        "event_user_key_conversation_call_id_idx",
        "user_key",
        "conversation",
        "call_id",
        postgresql_where=text("call_id IS NOT NULL"),
    ),
    # Whether a summary covers an event that was erased.
    Index(
        "event_user_key_conversation_erased_idx",
        "user_key",
        "conversation",
        "seq",
        postgresql_where=text("erased_at IS NOT NULL"),
    ),
    # Which events have been deleted, however many there are.
    Index(
        "event_user_key_conversation_deletion_idx",
        "user_key",
        "conversation",
        "seq",
        postgresql_where=text("type = 'deletion'"),
    ),
    # What a user has had confirmed in any conversation.
    Index(
        "event_user_key_conversation_constraint_idx",
        "user_key",
        "conversation",
        "seq",
        postgresql_where=text("type = 'constraint'"),
    ),
    CheckConstraint(_one_of("type", EVENT_TYPES), name="type"),
    CheckConstraint(_one_of("role", ROLES), name="role"),
    CheckConstraint("seq > 0", name="seq"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("user_key", BigInteger, nullable=False),
    Column("key_digest", LargeBinary, nullable=False, comment="keyed hash of conversation and Idempotency-Key"),
    Column("tenant_id", Integer, nullable=False),
    Column("body_digest", LargeBinary, nullable=False, comment="keyed hash of the request body"),
    Column("conversation", Uuid, nullable=False),
    Column("seqs", ARRAY(BigInteger), nullable=False, comment="of the events that the first answer named"),
    Column("head", BigInteger, nullable=False, comment="as the first answer named it"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("user_key", "key_digest"),
    # Old keys are deleted by age; rows arrive in that order, so a block range index costs the append next to nothing.
    Index("idempotency_created_at_idx", "created_at", postgresql_using="brin"),
)

retry_chain = Table(
    "retry_chain",
    metadata,
    Column("user_key", BigInteger, nullable=False),
    Column("conversation", Uuid, nullable=False),
    Column("digest", LargeBinary, nullable=False, comment="keyed hash of API key, conversation and request body"),
    Column("head", BigInteger, nullable=False, comment="of the last event that the request appended"),
    Column("tenant_id", Integer, nullable=False),
    Column("seqs", ARRAY(BigInteger), nullable=False, comment="of the events that the answer named"),
    Column("level", Integer, nullable=False, comment="the retry that this commit has answered last; 0: none"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("user_key", "conversation", "digest", "head"),
    Index("retry_chain_created_at_idx", "created_at", postgresql_using="brin"),
)

erasure = Table(
    "erasure",
    metadata,
    Column("user_key", BigInteger, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("tenant_id", Integer, nullable=False),
    Column("scope", Text, nullable=False),
    Column("conversation", Uuid),
    Column("user_digest", LargeBinary, comment="keyed hash of the user's name, so that the record names nobody"),
    Column("first_seq", BigInteger),
    Column("last_seq", BigInteger),
    Column("events", BigInteger, nullable=False, comment="how many events were erased"),
    Column("actor", Text, nullable=False, comment="the id of the key that asked, or 'retention'"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("user_key", "id"),
    Index("erasure_tenant_id_id_idx", "tenant_id", "id"),
    CheckConstraint(_one_of("scope", ERASURE_SCOPES), name="scope"),
)
