"""All tables, by name."""

from schema.access import api_key, tenant
from schema.base import metadata
from schema.embeddings import embedding_failure, embedding_progress, embedding_routing, embedding_version
from schema.log import conversation, end_user, erasure, event, idempotency, retry_chain
from schema.servers import server
from schema.working_set import checkpoint, snapshot, touch

__all__ = [
    "api_key",
    "checkpoint",
    "conversation",
    "embedding_failure",
    "embedding_progress",
    "embedding_routing",
    "embedding_version",
    "end_user",
    "erasure",
    "event",
    "idempotency",
    "metadata",
    "retry_chain",
    "server",
    "snapshot",
    "tenant",
    "touch",
]
