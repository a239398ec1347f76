"""The drill: a backup taken under load, restored elsewhere, is the log as it stood, without a gap."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import psycopg
import pytest

from server.database.address import EmbeddedAddress
from server.errors import Conflict, InvalidInput, TurnstoneError
from server.operations.backup import OWNER, backup, restore
from server.settings import Settings
from tests.conftest import serving

NewDatabase = Callable[[], EmbeddedAddress]
Log = dict[str, list[tuple[int, str]]]


async def _append_until(client: httpx.AsyncClient, conversation: str, stop: asyncio.Event, first: asyncio.Event) -> int:
    number = 0
    while not stop.is_set():
        event = {"type": "message", "role": "user", "content": f"number {number + 1} 🦉"}
        answer = await client.post(f"/v1/conversations/{conversation}/events", json={"events": [event]})
        assert answer.is_success, answer.text
        number += 1
        if number >= 10:
            first.set()
    return number


async def _read(client: httpx.AsyncClient, conversation: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    while True:
        after = found[-1][0] if found else 0
        page = (await client.get(f"/v1/conversations/{conversation}/events", params={"after_seq": after})).json()
        found += [(event["seq"], event["content"]) for event in page["data"]]
        if not page["has_more"]:
            return found


async def test_the_drill(
    client: httpx.AsyncClient,
    address: EmbeddedAddress,
    new_database: NewDatabase,
    settings: Settings,
    tmp_path: Path,
) -> None:
    conversations = [(await client.post("/v1/conversations", json={"user": f"u{n}"})).json()["id"] for n in range(4)]
    stop, started = asyncio.Event(), [asyncio.Event() for _ in conversations]
    writers = [
        asyncio.create_task(_append_until(client, conversation, stop, begun))
        for conversation, begun in zip(conversations, started, strict=True)
    ]
    await asyncio.gather(*(begun.wait() for begun in started))
    file = tmp_path / "drill.dump"
    await asyncio.to_thread(backup, address, file)
    stop.set()
    appended = await asyncio.gather(*writers)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["drill.dump"], "no part is left"  # noqa: ASYNC240 - no wait

    target = new_database()
    counts = await asyncio.to_thread(restore, target, file)
    full = {conversation: await _read(client, conversation) for conversation in conversations}
    # The same key works: its digest was in the backup.
    async with (
        serving(settings, target) as url,
        httpx.AsyncClient(base_url=url, headers=client.headers, timeout=30) as restored,
    ):
        for conversation, total in zip(conversations, appended, strict=True):
            log = await _read(restored, conversation)
            assert 10 <= len(log) <= total
            assert log == full[conversation][: len(log)]
            assert [seq for seq, _ in log] == list(range(1, len(log) + 1))
            event = {"type": "message", "role": "user", "content": "and on"}
            answer = await restored.post(f"/v1/conversations/{conversation}/events", json={"events": [event]})
            assert answer.json()["head"] == len(log) + 1
    assert counts["event"] < sum(appended)
    assert counts["conversation"] == 4


@pytest.fixture
async def filled(client: httpx.AsyncClient, address: EmbeddedAddress) -> str:
    """A conversation with three events."""
    conversation: str = (await client.post("/v1/conversations", json={})).json()["id"]
    events = [{"type": "message", "role": "user", "content": str(n)} for n in range(3)]
    await client.post(f"/v1/conversations/{conversation}/events", json={"events": events})
    return conversation


def _rows(address: EmbeddedAddress, table: str) -> int:
    with psycopg.connect(address.conninfo("admin")) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    return int(row[0]) if row else 0


async def _backup(address: EmbeddedAddress, file: Path) -> Path:
    await asyncio.to_thread(backup, address, file)
    return file


async def test_a_database_with_tenants_is_replaced_only_on_demand(
    filled: str, address: EmbeddedAddress, new_database: NewDatabase, tmp_path: Path
) -> None:
    file = await _backup(address, tmp_path / "b")
    target = new_database()
    await asyncio.to_thread(restore, target, file)
    with psycopg.connect(target.conninfo(OWNER)) as connection:
        connection.execute("UPDATE tenant SET name = 'changed'")
    with pytest.raises(Conflict, match="--replace"):
        await asyncio.to_thread(restore, target, file)
    await asyncio.to_thread(lambda: restore(target, file, replace=True))
    with psycopg.connect(target.conninfo(OWNER)) as connection:
        assert connection.execute("SELECT name FROM tenant").fetchall() == [("default",)]


async def test_a_database_that_a_server_uses_is_not_replaced(
    filled: str, address: EmbeddedAddress, tmp_path: Path
) -> None:
    file = await _backup(address, tmp_path / "b")
    with pytest.raises(Conflict, match="stop them"):
        await asyncio.to_thread(lambda: restore(address, file, replace=True))


async def test_a_log_with_a_hole_is_refused_and_changes_nothing(
    filled: str, address: EmbeddedAddress, new_database: NewDatabase, tmp_path: Path
) -> None:
    with psycopg.connect(address.conninfo("admin")) as connection:
        connection.execute("DELETE FROM event WHERE seq = 2")
    file = await _backup(address, tmp_path / "b")
    target = new_database()
    with psycopg.connect(target.conninfo(OWNER)) as connection:
        connection.execute("INSERT INTO tenant (name, salt) VALUES ('there before', decode(repeat('00', 32), 'hex'))")
    with pytest.raises(TurnstoneError, match="1 conversations lack events"):
        await asyncio.to_thread(lambda: restore(target, file, replace=True))
    assert (_rows(target, "tenant"), _rows(target, "event")) == (1, 0)


async def test_a_file_that_is_cut_short_or_no_backup_is_refused_and_changes_nothing(
    filled: str, address: EmbeddedAddress, new_database: NewDatabase, tmp_path: Path
) -> None:
    file = await _backup(address, tmp_path / "b")
    target = new_database()
    content = file.read_bytes()
    for damaged in (b"", b"not one", content[: len(content) // 4], content[:-20]):
        file.write_bytes(damaged)
        with pytest.raises(InvalidInput, match=r"cannot be read|not a backup"):
            await asyncio.to_thread(restore, target, file)
        assert (_rows(target, "tenant"), _rows(target, "event")) == (0, 0)
