"""Families: the conversations whose events are indexed together, and how far they have come.

All conversations of one user are a family; so is a conversation that stands alone, with its forks. A family is named by
tenant, user_key and user together: two users whose keys collide stay two.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from server.database.connections import Database, hot_connection
from server.database.round_trip import SETTING_TENANT, Statement, round_trip
from server.database.tenant import Tenant
from server.log.lineage import Lineage

NO_VERSION: Final = 0

# One number for all that a family shows, so that a search asks for no more while nothing has changed: an exclusive or
# over its conversations of a 64-bit hash of each one's state. What it has of vectors is another such number.
STATE: Final = """
    count(*), coalesce(sum(c.head - coalesce(c.fork_seq, 0)), 0)::bigint, coalesce(bit_xor(hash_record_extended(
        ROW(c.id, c.head, c.epoch, c.floor, c.deleted_at, c.recorded_at), 0)), 0)
"""
EMBEDDED: Final = """
    SELECT coalesce(bit_xor(hash_record_extended(ROW(p.conversation, p.seq), 0)), 0)
    FROM embedding_progress p
    WHERE p.user_key = %(user_key)s AND p.tenant_id = %(tenant)s AND p.version = %(version)s
"""
_MEMBERS: Final = Statement(f"""
SELECT c.id, c.deleted_at IS NULL, c.head, c.floor, c.epoch, c.recorded_at, c.lineage, c.lineage_end,
    coalesce(p.seq, 0),
    (sum(c.head - coalesce(c.fork_seq, 0)) OVER ())::bigint,
    bit_xor(hash_record_extended(ROW(c.id, c.head, c.epoch, c.floor, c.deleted_at, c.recorded_at), 0)) OVER (),
    ({EMBEDDED})
FROM conversation c
LEFT JOIN embedding_progress p ON p.user_key = c.user_key AND p.conversation = c.id AND p.version = %(version)s
    AND p.tenant_id = %(tenant)s
WHERE c.user_key = %(user_key)s AND c.tenant_id = %(tenant)s AND c.user_id IS NOT DISTINCT FROM %(user)s::text
ORDER BY c.id
""")


class Family(NamedTuple):
    """``user`` is None for what stands alone. Never make one with another tenant's key."""

    tenant: int
    user_key: int
    user: str | None


class Stamp(NamedTuple):
    """What must be the same for the same answer: the conversations' states, and the vectors there are."""

    conversations: int
    events: int
    state: int
    embedded: int


class Member(NamedTuple):
    """A conversation of a family; one that is not ``live`` only owns what its forks show."""

    id: UUID
    live: bool
    head: int
    floor: int
    epoch: int
    recorded_at: datetime
    lineage: Lineage
    embedded: int

    @property
    def own(self) -> tuple[int, int]:
        """The first and the last seq of its own events."""
        return self.lineage.end + 1, self.head

    def segments(self) -> list[tuple[UUID, int, int]]:
        """Return who owns which seqs of what it shows: owner, first and last."""
        parts = []
        low = 1
        for owner, end in zip([*self.lineage.owners, self.id], [*self.lineage.ends, self.head], strict=True):
            if max(low, self.floor + 1) <= end:
                parts.append((owner, max(low, self.floor + 1), end))
            low = end + 1
        return parts


class Members(NamedTuple):
    """All conversations of a family, by id, in one snapshot."""

    stamp: Stamp
    by_id: dict[UUID, Member]


async def members(database: Database, tenant: Tenant, family: Family, version: int) -> Members:
    """Return the conversations of a family; raises DatabaseUnavailable."""
    values = {"tenant": tenant.id, "user_key": family.user_key, "user": family.user, "version": version}
    async with hot_connection(database) as connection:
        rows = await round_trip(connection, [SETTING_TENANT(values), _MEMBERS(values)])
    by_id = {row[0]: Member._make((*row[:6], Lineage(row[6] or [], row[7] or []), row[8])) for row in rows}
    stamp = Stamp(len(rows), *rows[0][9:]) if rows else Stamp(0, 0, 0, 0)
    return Members(stamp, by_id)
