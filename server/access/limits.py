"""The limit of a key: a token bucket, which knows no clock of its own.

Limits are kept per process. With N server processes each gets a Nth of the rate, since connections spread over them; a
client on a single connection is then held to that share. A server that restarts, or forgets a key that was long idle,
begins with a full bucket.
"""

from __future__ import annotations

import math

from server.errors import RateLimited


class TokenBucket:
    """``rate`` requests per second on average, and up to one second's worth (at least one) at once."""

    __slots__ = ("_burst", "_filled_at", "_rate", "_tokens")

    def __init__(self, rate: float, *, now: float) -> None:
        if rate <= 0:
            raise ValueError(f"a rate of {rate} requests per second lets nothing through; it must be above 0")
        self._rate = rate
        self._burst = max(1.0, rate)
        self._tokens = self._burst
        self._filled_at = now

    def take(self, now: float) -> None:
        """Take one token at ``now`` (seconds, never running back); raises RateLimited with whole seconds to wait."""
        tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if tokens < 1.0:
            # A refused request costs nothing, so a client that hammers is served at its rate rather than never.
            self._tokens = tokens
            wait = math.ceil((1.0 - tokens) / self._rate)
            raise RateLimited(f"over this key's limit of requests; try again in {wait} s", retry_after=wait)
        self._tokens = tokens - 1.0
