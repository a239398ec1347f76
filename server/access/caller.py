"""Who is calling, and what they may do."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from server.database.tenant import Tenant
from server.errors import Forbidden


class Caller(NamedTuple):
    """A key that was presented, with the tenant that it belongs to."""

    tenant: Tenant
    key_id: UUID
    scopes: frozenset[str]

    @property
    def actor(self) -> str:
        """What records name as the one who asked."""
        return f"key_{self.key_id.hex}"

    def require(self, scope: str) -> None:
        """Raise Forbidden unless the key has the scope; ``admin`` includes the others."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise Forbidden(f"this key lacks the scope {scope!r}")

    def require_operator(self) -> None:
        """Raise Forbidden unless this is an admin key of the operator's tenant, which manages the others."""
        self.require("admin")
        if not self.tenant.operator:
            raise Forbidden("only an admin key of the operator's tenant may manage tenants and embeddings")
