"""Health, readiness, metrics, and the lease of a serving process."""

from __future__ import annotations

import asyncio

import httpx
import psycopg
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, select

from schema.tables import server
from server.api import health
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.ids import uuid7
from server.database.upgrade import newest_revision
from server.operations import lease


async def test_health_readiness_and_metrics_need_no_key(server_url: str) -> None:
    async with httpx.AsyncClient(base_url=server_url) as nobody:
        for path in ("/healthz", "/readyz"):
            answer = await nobody.get(path)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        answer = await nobody.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert {"turnstone_request_seconds", "turnstone_events_appended", "turnstone_pool"} <= set(families)
    assert families["turnstone_resident_bytes"].samples[0].value > 10_000_000


async def test_readiness_is_lost_with_another_schema_and_found_again(
    client: httpx.AsyncClient, address: EmbeddedAddress
) -> None:
    async def statuses_after(revision: str) -> tuple[int, int]:
        with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
            connection.execute("UPDATE alembic_version SET version_num = %s", [revision])
        await asyncio.sleep(health._ANSWERS_FOR + 0.1)  # an answer stands that long
        ready = await client.get("/readyz")
        if ready.status_code == 503:
            assert int(ready.headers["retry-after"]) > 0
            assert revision in ready.json()["error"]["message"]
        return ready.status_code, (await client.get("/healthz")).status_code

    newest = newest_revision()
    assert await statuses_after("0000") == (503, 200)
    assert await statuses_after(newest) == (200, 200)


async def test_readiness_survives_connections_that_broke(client: httpx.AsyncClient, address: EmbeddedAddress) -> None:
    assert (await client.get("/readyz")).status_code == 200
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )
    await asyncio.sleep(health._ANSWERS_FOR + 0.1)
    assert (await client.get("/readyz")).status_code == 200


async def _rows(database: Database) -> dict[object, bool]:
    async with database.transaction(None) as connection:
        rows = await connection.execute(select(server.c.id, server.c.lease_until > func.now()))
        return {identity: alive for identity, alive in rows}  # noqa: C416 - rows are not pairs to mypy


async def test_a_lease_is_held_renewed_and_released(database: Database) -> None:
    async with lease.lease(database) as identity:
        async with asyncio.timeout(10):
            while await _rows(database) != {identity: True}:  # noqa: ASYNC110 - the event is in the database
                await asyncio.sleep(0.02)
    assert await _rows(database) == {}


async def test_the_long_dead_are_forgotten_and_the_just_dead_are_not(database: Database) -> None:
    just, long = uuid7(), uuid7()
    for identity, age in ((just, "1 minute"), (long, "2 hours")):
        await lease.renew(database, identity)
        async with database.transaction(None) as connection:
            await connection.exec_driver_sql(
                f"UPDATE server SET lease_until = now() - interval '{age}' WHERE id = '{identity}'"
            )
    await lease.forget_dead(database)
    assert await _rows(database) == {just: False}
