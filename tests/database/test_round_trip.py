"""Several statements in one round trip are one transaction, whatever happens in it."""

from __future__ import annotations

import httpx
import psycopg
import pytest

from server.database.address import EmbeddedAddress
from server.database.connections import Database, hot_connection
from server.database.round_trip import SETTING_TENANT, HotConnection, Statement, array, round_trip
from server.errors import DatabaseUnavailable

TENANT = Statement("SELECT current_setting('turnstone.tenant', true)")
DIVIDE = Statement("SELECT 1 / %(by)s::int")
NEW_USER = Statement("INSERT INTO end_user (user_key, tenant_id, id) VALUES (%(key)s, 1, %(name)s)")
USERS = Statement("SELECT id FROM end_user WHERE user_key = ANY(%(keys)s::bigint[]) ORDER BY id")


async def users(connection: HotConnection, *keys: int) -> list[str]:
    rows = await round_trip(connection, [SETTING_TENANT({"tenant": 1}), USERS({"keys": array(keys)})])
    return [name for (name,) in rows]


async def test_the_tenant_lasts_for_the_round_trip_and_no_longer(database: Database) -> None:
    async with hot_connection(database) as connection:
        assert await round_trip(connection, [SETTING_TENANT({"tenant": 7}), TENANT({})]) == [("7",)]
        assert await round_trip(connection, [TENANT({})]) == [("",)]


async def test_all_is_stored_or_nothing(database: Database) -> None:
    new = [SETTING_TENANT({"tenant": 1}), NEW_USER({"key": 5, "name": "ada"})]
    async with hot_connection(database) as connection:
        await users(connection, 5)
        await round_trip(connection, [DIVIDE({"by": 1})])
        with pytest.raises(psycopg.errors.DivisionByZero):
            await round_trip(connection, [*new, DIVIDE({"by": 0})])
    async with hot_connection(database) as connection:
        assert await users(connection, 5) == []
        await round_trip(connection, new)
        assert await users(connection, 5, 6) == ["ada"]


async def test_a_connection_serves_on_after_an_error(database: Database) -> None:
    async with hot_connection(database) as connection:
        assert await round_trip(connection, [DIVIDE({"by": 1})]) == [(1,)]
        with pytest.raises(psycopg.errors.DivisionByZero):
            await round_trip(connection, [DIVIDE({"by": 0})])
        assert await round_trip(connection, [DIVIDE({"by": 1})]) == [(1,)]


async def test_within_a_transaction_it_is_a_part_of_it(database: Database) -> None:
    async with hot_connection(database) as connection:
        async with connection.transaction(force_rollback=True):
            await round_trip(connection, [SETTING_TENANT({"tenant": 1}), NEW_USER({"key": 5, "name": "ada"})])
            assert await users(connection, 5) == ["ada"]
        assert await users(connection, 5) == []


async def test_a_statement_that_was_forgotten_is_told_as_unavailable_and_the_next_connection_plans_anew(
    database: Database,
) -> None:
    async with hot_connection(database) as connection:
        await round_trip(connection, [DIVIDE({"by": 1})])
        await connection.execute("DEALLOCATE ALL")
        with pytest.raises(DatabaseUnavailable):
            await round_trip(connection, [DIVIDE({"by": 1})])
    async with hot_connection(database) as connection:
        assert await round_trip(connection, [DIVIDE({"by": 1})]) == [(1,)]


async def test_a_commit_that_fails_is_no_answer(client: httpx.AsyncClient, address: EmbeddedAddress) -> None:
    conversation = (await client.post("/v1/conversations", json={})).json()["id"]
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'at commit' USING ERRCODE = 'disk_full'; END $$"
        )
        connection.execute(
            "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON event DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    url = f"/v1/conversations/{conversation}/events"
    for event in ({"role": "user", "content": "x"}, {"role": "user", "content": "x", "id": "mine"}):
        answer = await client.post(url, json={"events": [event]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    with psycopg.connect(address.conninfo("admin"), autocommit=True) as connection:
        connection.execute("DROP TRIGGER refuse ON event")
    assert (await client.get(url)).json()["head"] == 0
    assert (await client.post(url, json={"events": [{"role": "user", "content": "x"}]})).json()["head"] == 1
