"""Where text lives, and how each place forgets it.

Every table that holds what a caller wrote, or anything derived from it (vectors, summaries, snapshots, digests,
names), joins this registry; tests/database/test_needle.py writes a needle into each field and fails on a column that
neither the registry nor its list of harmless columns knows. A cache in memory joins by following
``conversation.epoch``, which every erasure raises.

The statements' parameters: ``tenant``, ``user_key``, ``conversation`` (the owner), ``low``, ``high`` (seqs, inclusive).
"""

from __future__ import annotations

from typing import Final, NamedTuple

# What of an event may hold text. Type, role, times and the keyed hashes stay on its tombstone.
EVENT_TEXT: Final = ("client_id", "name", "call_id", "session", "run_id", "content", "metadata")

_WHERE = "tenant_id = :tenant AND user_key = :user_key AND conversation = :conversation"
_FOLDED = (
    "DELETE FROM checkpoint WHERE tenant_id = :tenant AND user_key = :user_key AND head >= :low "
    "AND (conversation = :conversation OR conversation IN (SELECT c.id FROM conversation c "
    "WHERE c.user_key = :user_key AND c.tenant_id = :tenant AND c.lineage @> ARRAY[:conversation]))"
)
# A question goes with any event that is its evidence: what is left of it would be judged wrongly.
_ASKED = (
    "DELETE FROM golden_question WHERE tenant_id = :tenant AND user_key = :user_key AND EXISTS ("
    "SELECT FROM unnest(owners, evidence) AS named(owner, seq) "
    "WHERE named.owner = :conversation AND named.seq BETWEEN :low AND :high)"
)
_COMPARED = (
    "DELETE FROM embedding_comparison WHERE tenant_id = :tenant AND user_key = :user_key AND EXISTS ("
    "SELECT FROM unnest(old_dense || new_dense || old_final || new_final) AS named(event) "
    "WHERE right(split_part(named.event, chr(58), 1), 32) = replace(CAST(:conversation AS text), '-', '') "
    "AND CAST(split_part(named.event, chr(58), 2) AS bigint) BETWEEN :low AND :high)"
)


class Holding(NamedTuple):
    """One table that holds text; None where the level below it does the work already."""

    table: str
    columns: tuple[str, ...]
    erase_events: str | None  # leave tombstones
    drop_events: str | None  # leave nothing: retention, and events that no conversation shows any more
    drop_conversation: str | None  # all that is left of a conversation that is gone


HOLDINGS: Final = (
    Holding(
        "event",
        EVENT_TEXT,
        f"UPDATE event SET erased_at = clock_timestamp(), {', '.join(f'{column} = NULL' for column in EVENT_TEXT)} "
        f"WHERE {_WHERE} AND seq BETWEEN :low AND :high AND erased_at IS NULL AND type NOT IN ('erasure', 'deletion')",
        f"DELETE FROM event WHERE {_WHERE} AND seq BETWEEN :low AND :high",
        f"DELETE FROM event WHERE {_WHERE}",
    ),
    Holding("idempotency", (), None, None, f"DELETE FROM idempotency WHERE {_WHERE}"),
    Holding("retry_chain", (), None, None, f"DELETE FROM retry_chain WHERE {_WHERE}"),
    # Words of every event up to its head are counted in a checkpoint, of the conversation and of each fork.
    Holding("checkpoint", ("fold",), _FOLDED, _FOLDED, f"DELETE FROM checkpoint WHERE {_WHERE}"),
    # Seqs only. What expired or is shown by nobody any more is not touched any more either.
    Holding(
        "touch",
        (),
        None,
        f"DELETE FROM touch WHERE {_WHERE} AND at BETWEEN :low AND :high",
        f"DELETE FROM touch WHERE {_WHERE}",
    ),
    Holding(
        "snapshot",
        (),
        None,
        f"DELETE FROM snapshot WHERE {_WHERE} AND head BETWEEN :low AND :high",
        f"DELETE FROM snapshot WHERE {_WHERE}",
    ),
    # How far a conversation is embedded stays: an event that is gone is not waited for.
    Holding("embedding_progress", (), None, None, f"DELETE FROM embedding_progress WHERE {_WHERE}"),
    Holding(
        "embedding_failure",
        (),
        f"DELETE FROM embedding_failure WHERE {_WHERE} AND seq BETWEEN :low AND :high",
        f"DELETE FROM embedding_failure WHERE {_WHERE} AND seq BETWEEN :low AND :high",
        f"DELETE FROM embedding_failure WHERE {_WHERE}",
    ),
    Holding(
        "golden_question",
        ("golden_set", "id", "text", "category", "language"),
        _ASKED,
        _ASKED,
        f"{_ASKED} OR {_WHERE}",
    ),
    Holding("golden_set", ("name", "owner", "approved_by"), None, None, None),  # the tenant's: removed with it
    # No text, but which events were like a question, and the question where an operator allows it.
    Holding(
        "embedding_comparison",
        ("segments", "old_dense", "new_dense", "old_final", "new_final", "question"),
        _COMPARED,
        _COMPARED,
        f"{_COMPARED} OR {_WHERE}",
    ),
    Holding(
        "conversation",
        ("metadata", "origin_id", "user_id"),
        None,
        None,
        "DELETE FROM conversation WHERE tenant_id = :tenant AND user_key = :user_key AND id = :conversation",
    ),
    Holding("end_user", ("id",), None, None, None),  # removed with its last conversation, by the erasure of the user
)


def vectors(relation: str) -> Holding:
    """Return how an embedding version's relation forgets: a vector holds much of what its text says.

    A vector is made of its own event's text alone, so that no neighbour's has to go with it.
    """
    events = f"DELETE FROM {relation} WHERE {_WHERE} AND seq BETWEEN :low AND :high"
    return Holding(relation, ("text_hash", "embedding"), events, events, f"DELETE FROM {relation} WHERE {_WHERE}")
