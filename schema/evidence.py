"""What a migration of embeddings is judged by: golden sets of questions, and searches that both versions answered.

Both are a tenant's own, and both go with what they were made of: a question with the event that is its evidence, a
comparison with any event that it ranks.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from schema.base import metadata

golden_set = Table(
    "golden_set",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False, comment="raised by any change of its questions"),
    Column("owner", Text, nullable=False, comment="who answers for it"),
    Column("unusable", Integer, nullable=False, server_default=text("0"), comment="questions that were left out"),
    Column("approved_by", Text, comment="id of the key; gates rest on approved sets only"),
    Column("approved_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("tenant_id", "name"),
)

golden_question = Table(
    "golden_question",
    metadata,
    Column("user_key", BigInteger, nullable=False),
    Column("tenant_id", Integer, nullable=False),
    Column("golden_set", Text, nullable=False, comment="the name of its set"),
    Column("id", Text, nullable=False, comment="unique in its set"),
    Column("place", Integer, nullable=False, comment="in its set: 1, 2, 3 …"),
    Column("conversation", Uuid, nullable=False, comment="where it is asked"),
    Column("text", Text, nullable=False),
    Column("evidence", ARRAY(BigInteger), nullable=False, comment="seqs of the events that answer it"),
    Column("owners", ARRAY(Uuid), nullable=False, comment="which conversation appended each of those"),
    Column("category", Text, nullable=False, server_default=text("''")),
    Column("language", Text, nullable=False, server_default=text("''")),
    PrimaryKeyConstraint("user_key", "tenant_id", "golden_set", "id"),
    Index("golden_question_tenant_id_golden_set_place_idx", "tenant_id", "golden_set", "place"),
)

# An event is named by the conversation that appended it, wherever it was found: `conv_…:seq`.
embedding_comparison = Table(
    "embedding_comparison",
    metadata,
    Column("user_key", BigInteger, nullable=False),
    Column("id", Uuid, nullable=False, comment="UUIDv7"),
    Column("tenant_id", Integer, nullable=False),
    Column("conversation", Uuid, comment="NULL for a search over all of a user's"),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("old_version", Integer, nullable=False),
    Column("new_version", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False, comment="the routing's, when it was asked"),
    Column("query_type", Text, nullable=False),
    Column("segments", ARRAY(Text), nullable=False, comment="of the figures: `language=german`, `length=1-64`, …"),
    Column("old_dense", ARRAY(Text), nullable=False, comment="events, best first"),
    Column("new_dense", ARRAY(Text), nullable=False),
    Column("old_final", ARRAY(Text), nullable=False),
    Column("new_final", ARRAY(Text), nullable=False),
    Column("old_ms", Double, nullable=False),
    Column("new_ms", Double, nullable=False),
    Column("error", Text, comment="the class of the candidate's error: it answered nothing"),
    Column(
        "dropped",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="samples that the process had no time for since its last row",
    ),
    Column("question", Text, comment="only where TURNSTONE_SHADOW_TEXT is on"),
    PrimaryKeyConstraint("user_key", "id"),
    Index("embedding_comparison_tenant_id_id_idx", "tenant_id", "id"),
)
