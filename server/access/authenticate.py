"""From the Authorization header to the caller, at the cost of a hash and a look-up while the key's row is fresh."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Final

from sqlalchemy import Text, cast, func, select

from schema.access import api_key
from schema.access import tenant as tenant_table
from server.access.caller import Caller
from server.access.key_format import digest as digest_of
from server.access.limits import TokenBucket
from server.database.connections import Database
from server.database.tenant import Tenant
from server.errors import Unauthorized

TRUSTED_SECONDS: Final = 0.5  # a revoked key works no longer than this after its row was read
CAPACITY: Final = 10_000

_BEARER = re.compile(r"bearer +", re.ASCII | re.IGNORECASE)


class _Entry:
    """What is known of a valid key; ``read_at`` is monotonic, ``expires_at`` wall-clock seconds."""

    __slots__ = ("bucket", "caller", "expires_at", "read_at")

    def __init__(self, caller: Caller, expires_at: float | None, bucket: TokenBucket | None, read_at: float) -> None:
        self.caller = caller
        self.expires_at = expires_at
        self.bucket = bucket
        self.read_at = read_at


class Authenticator:
    """Knows the valid keys that were used lately.

    ``processes`` is how many server processes share each key's limit. Unknown keys are not remembered: an attacker who
    sends many must not fill memory, nor push out honest ones.
    """

    def __init__(self, database: Database, *, processes: int = 1, capacity: int = CAPACITY) -> None:
        self._database = database
        self._processes = processes
        self._capacity = capacity
        self._entries: dict[bytes, _Entry] = {}  # in the order of reading, so the first is the stalest
        self._reading: dict[bytes, asyncio.Task[_Entry | None]] = {}

    async def caller(self, authorization: str | None) -> Caller:
        """Return who presented this header.

        Raises Unauthorized in the same words whether the key is missing, malformed, unknown, revoked or expired;
        RateLimited when it is over its limit; DatabaseUnavailable when its row cannot be read.
        """
        entry = await self._valid(authorization)
        if entry.bucket is not None:
            entry.bucket.take(time.monotonic())
        return entry.caller

    async def still(self, authorization: str | None) -> Caller:
        """Return who presented this header when an answer that is still being given began; it counts for no limit.

        Raises as ``caller`` does, but for RateLimited.
        """
        return (await self._valid(authorization)).caller

    async def _valid(self, authorization: str | None) -> _Entry:
        match = _BEARER.match(authorization) if authorization else None
        # Keys are looked up by digest. How long a comparison takes can tell only how much of a SHA-256 agreed, which
        # helps nobody to find a key, so that no constant-time comparison is needed.
        digest = digest_of(authorization[match.end() :]) if authorization and match else None
        if digest is None:
            raise _unauthorized()
        entry = self._entries.get(digest)
        now = time.monotonic()
        if entry is None or now - entry.read_at > TRUSTED_SECONDS:
            # Shielded, for a client that goes away must not fail the others who wait for the same row.
            entry = await asyncio.shield(self._read(digest))
        elif now - entry.read_at > TRUSTED_SECONDS / 2:
            self._read(digest)  # ahead of need, so that a busy key never waits
        if entry is None or (entry.expires_at is not None and time.time() >= entry.expires_at):
            raise _unauthorized()
        return entry

    def _read(self, digest: bytes) -> asyncio.Task[_Entry | None]:
        """Return the one reading of this key's row that is under way, begun if there is none."""
        task = self._reading.get(digest)
        if task is None:
            task = self._reading[digest] = asyncio.create_task(self._refresh(digest), name="read key")
            task.add_done_callback(lambda done: self._finished(digest, done))
        return task

    def _finished(self, digest: bytes, task: asyncio.Task[_Entry | None]) -> None:
        del self._reading[digest]
        if not task.cancelled():
            task.exception()  # a reading ahead of need fails silently: the next one that is needed says why

    async def _refresh(self, digest: bytes) -> _Entry | None:
        entry = await self._look_up(digest)
        known = self._entries.pop(digest, None)
        if entry is None:
            return None
        if known is not None and known.bucket is not None and entry.bucket is not None:
            entry.bucket = known.bucket  # limits never change, so what was taken stays taken
        while len(self._entries) >= self._capacity:
            del self._entries[next(iter(self._entries))]
        self._entries[digest] = entry
        return entry

    async def _look_up(self, digest: bytes) -> _Entry | None:
        read_at = time.monotonic()  # before the row is read: trust must not outlast a revocation in between
        key = (
            # The key proves its tenant; naming the tenant in the same statement saves a round trip.
            select(
                api_key.c.id,
                api_key.c.scopes,
                api_key.c.expires_at,
                api_key.c.rate_limit,
                api_key.c.tenant_id,
                func.set_config("turnstone.tenant", cast(api_key.c.tenant_id, Text), True),
            ).where(api_key.c.digest == digest, api_key.c.revoked_at.is_(None))
        )
        owner = select(
            tenant_table.c.id,
            tenant_table.c.name,
            tenant_table.c.salt,
            tenant_table.c.operator,
            tenant_table.c.retention_days,
        )
        async with self._database.transaction(None, key_digest=digest) as connection:
            row = (await connection.execute(key)).one_or_none()
            if row is None:
                return None
            tenant = (await connection.execute(owner.where(tenant_table.c.id == row.tenant_id))).one_or_none()
        if tenant is None:
            return None
        expires_at = None if row.expires_at is None else row.expires_at.timestamp()
        bucket = None if row.rate_limit is None else TokenBucket(row.rate_limit / self._processes, now=read_at)
        return _Entry(Caller(Tenant(*tenant), row.id, frozenset(row.scopes)), expires_at, bucket, read_at)


def _unauthorized() -> Unauthorized:
    return Unauthorized("give a valid API key in the header `Authorization: Bearer ts_...`")
