"""All tables, by name."""

from schema.access import api_key, tenant
from schema.base import metadata
from schema.embeddings import (
    embedding_failure,
    embedding_history,
    embedding_progress,
    embedding_routing,
    embedding_version,
    embedding_worker,
)
from schema.evidence import embedding_comparison, golden_question, golden_set
from schema.log import conversation, end_user, erasure, event, idempotency, retry_chain
from schema.servers import server
from schema.working_set import checkpoint, snapshot, touch

__all__ = [
    "api_key",
    "checkpoint",
    "conversation",
    "embedding_comparison",
    "embedding_failure",
    "embedding_history",
    "embedding_progress",
    "embedding_routing",
    "embedding_version",
    "embedding_worker",
    "end_user",
    "erasure",
    "event",
    "golden_question",
    "golden_set",
    "idempotency",
    "metadata",
    "retry_chain",
    "server",
    "snapshot",
    "tenant",
    "touch",
]
