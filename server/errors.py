"""Every error that Turnstone answers with, as a tree; each has a stable code and a fitting status.

TurnstoneError
├── BadRequest            400  the request cannot be read as JSON or as HTTP
├── InvalidInput          422  a field is wrong; ``param`` names it
│   └── IdempotencyMismatch 422  the key was used with another body
├── Unauthorized          401  no key, or not a valid one
├── Forbidden             403  the key lacks a scope
├── NotFound              404  it does not exist, or not for this tenant
├── Conflict              409
│   ├── StaleHead         409  ``expected_head`` is not the head
│   ├── IdConflict        409  the event id is taken by another body
│   ├── TenantNotEmpty    409  an export of another tenant cannot keep its ids here
│   └── MigrationRefused  409  a step of an embedding migration may not be taken now; each reason has its own code
├── TooLarge              413
├── RateLimited           429  over the key's limit
├── Rebuilding            503  what memory holds of a long conversation is being made anew; how far is said
├── DatabaseError         503
│   ├── DatabaseUnavailable 503  it cannot be reached, or cannot write now
│   └── DatabaseRefused     503  it is not one that Turnstone may use
└── EmbeddingError        503
    ├── ProviderUnavailable 503  the embedding provider cannot be reached, or answers with an error
    ├── ModelRefused        503  it is not the model that was registered, or none that can be used
    └── TextRefused         503  the model cannot embed this one text: it becomes a dead letter
"""

from __future__ import annotations

from typing import Any, ClassVar


class TurnstoneError(Exception):
    """Something that a caller can act on.

    ``param`` names the field that was wrong, as a path (``events[2].role``); ``details`` are extra members of the error
    object; ``retry_after`` is in seconds.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str = "internal"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.details = details or {}
        self.retry_after = retry_after


class BadRequest(TurnstoneError):
    status, type, code = 400, "invalid_request_error", "bad_request"


class InvalidInput(TurnstoneError):
    status, type, code = 422, "invalid_request_error", "invalid_input"


class IdempotencyMismatch(InvalidInput):
    code = "idempotency_mismatch"


class Unauthorized(TurnstoneError):
    status, type, code = 401, "authentication_error", "unauthorized"


class Forbidden(TurnstoneError):
    status, type, code = 403, "permission_error", "forbidden"


class NotFound(TurnstoneError):
    status, type, code = 404, "not_found_error", "not_found"


class Conflict(TurnstoneError):
    status, type, code = 409, "conflict_error", "conflict"


class StaleHead(Conflict):
    code = "stale_head"


class IdConflict(Conflict):
    code = "id_conflict"


class TenantNotEmpty(Conflict):
    code = "tenant_not_empty"


class MigrationRefused(Conflict):
    code = "migration_refused"

    def __init__(self, code: str, message: str, gates: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message, details={"gates": gates} if gates else None)
        self.code = code


class TooLarge(TurnstoneError):
    status, type, code = 413, "invalid_request_error", "too_large"


class RateLimited(TurnstoneError):
    status, type, code = 429, "rate_limit_error", "rate_limited"


class Rebuilding(TurnstoneError):
    status, type, code = 503, "unavailable_error", "rebuilding"


class DatabaseError(TurnstoneError):
    status, type, code = 503, "unavailable_error", "database_error"


class DatabaseUnavailable(DatabaseError):
    code = "database_unavailable"


class DatabaseRefused(DatabaseError):
    code = "database_refused"


class EmbeddingError(TurnstoneError):
    status, type, code = 503, "unavailable_error", "embedding_error"


class ProviderUnavailable(EmbeddingError):
    code = "provider_unavailable"


class ModelRefused(EmbeddingError):
    code = "model_refused"


class TextRefused(EmbeddingError):
    code = "text_refused"
