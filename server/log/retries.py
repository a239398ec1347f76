"""Retries that carry no Idempotency-Key: OpenAI's SDKs send the same request again, and say how often they have tried.

An append that says how often it has been tried is written down with a keyed hash of API key, conversation and body. The
first attempt (0) always appends. A retry (1, 2, …) finds the commits of equal requests within WINDOW that have answered
only lower attempts, and takes the latest of their chains: nothing is appended, and that commit has then answered this
attempt too. Where there is none, the request had not arrived, and the retry appends. So each commit absorbs one chain
of retries, under the conversation's row lock, on any server and across restarts.

What stays ambiguous: two equal requests sent at once with one key. If the first of them is lost before it arrives while
the other is stored, then the retry takes the other's commit for its own. Who sends equal requests at once gives each an
Idempotency-Key, or its items ids.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from uuid import UUID

from server.database.ids import ConversationId, keyed_hash
from server.database.round_trip import Statement
from server.database.tenant import Tenant

WINDOW: Final = 600  # seconds; the SDKs give up within one


class Attempt(NamedTuple):
    """The ``number``-th try (0 is the first) of the request that ``digest`` stands for."""

    digest: bytes
    number: int

    @classmethod
    def of(cls, tenant: Tenant, key_id: UUID, conversation: ConversationId, body: bytes, number: int) -> Attempt:
        return cls(keyed_hash(tenant.salt, "attempt", key_id.bytes, conversation.uuid.bytes, body), number)


ABSORBING: Final = Statement(f"""
WITH chain AS MATERIALIZED (
    SELECT r.head FROM retry_chain r
    WHERE r.user_key = %(user_key)s AND r.conversation = %(id)s AND r.digest = %(digest)s AND r.tenant_id = %(tenant)s
      AND r.level < %(number)s AND r.created_at > clock_timestamp() - interval '{WINDOW} seconds'
    ORDER BY r.level DESC, r.head LIMIT 1
)
UPDATE retry_chain r SET level = %(number)s FROM chain
WHERE r.user_key = %(user_key)s AND r.conversation = %(id)s AND r.digest = %(digest)s AND r.tenant_id = %(tenant)s
  AND r.head = chain.head
RETURNING r.seqs, r.head
""")
