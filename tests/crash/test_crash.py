"""What was acknowledged survives ``kill -9`` of anything, exactly once: tests/crash/soak.py for a few rounds."""

from __future__ import annotations

import os
from pathlib import Path

from tests.crash.soak import soak


async def test_what_was_acknowledged_survives(tmp_path: Path) -> None:
    """Server, postmaster, both: in three rounds one each; CRASH_ROUNDS asks for more."""
    rounds = int(os.environ.get("CRASH_ROUNDS", "3"))
    assert await soak(tmp_path / "data", rounds=rounds, seed=20260101 + rounds) > 0
