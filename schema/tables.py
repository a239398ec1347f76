"""All tables, by name."""

from schema.access import api_key, tenant
from schema.base import metadata
from schema.log import conversation, end_user, erasure, event, idempotency
from schema.servers import server

__all__ = ["api_key", "conversation", "end_user", "erasure", "event", "idempotency", "metadata", "server", "tenant"]
