"""All tables, by name."""

from schema.access import api_key, tenant
from schema.base import metadata
from schema.log import conversation, end_user, erasure, event, idempotency
from schema.servers import server
from schema.working_set import checkpoint, snapshot, touch

__all__ = [
    "api_key",
    "checkpoint",
    "conversation",
    "end_user",
    "erasure",
    "event",
    "idempotency",
    "metadata",
    "server",
    "snapshot",
    "tenant",
    "touch",
]
