"""What a migration is judged by goes with what it was made of: golden questions, and comparisons of the shadow."""

from __future__ import annotations

from typing import Any

import httpx
import psycopg
import pytest

from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.ids import parse_conversation_id
from server.log.erase import erase_tenant
from tests.api.test_access import make_key, make_tenant
from tests.conftest import the_tenant
from tests.database.test_needle import Needles, analyze, found

TEXTS = ("I moved to Lisbon.", "My sister plays the cello.", "The sofa is green.")


@pytest.fixture
def needle() -> Needles:
    return Needles()


async def chat(client: httpx.AsyncClient, user: str = "ada") -> str:
    items = [{"role": "user", "content": text} for text in TEXTS]
    made = await client.post("/v1/conversations", json={"user": user, "items": items})
    assert made.status_code == 200, made.text
    return str(made.json()["id"])


async def event_ids(client: httpx.AsyncClient, conversation: str) -> list[str]:
    events = (await client.get(f"/v1/conversations/{conversation}/events")).json()["data"]
    return [event["id"] for event in events]


def put(
    address: EmbeddedAddress, needle: Needles, asked_in: str | None, ranks: list[tuple[str, int]], key_of: str
) -> None:
    """Write a question about the events, and a comparison that ranks them; each with words of its own."""
    at, owner = parse_conversation_id(asked_in or key_of), parse_conversation_id(key_of)
    assert at is not None
    assert owner is not None
    owners = [place.uuid for conversation, _ in ranks if (place := parse_conversation_id(conversation)) is not None]
    values: dict[str, Any] = {
        "key": owner.user_key,
        "at": at.uuid if asked_in else None,
        "asked": at.uuid,
        "owners": owners,
        "seqs": [seq for _, seq in ranks],
        "names": [f"{conversation}:{seq}" for conversation, seq in ranks],
        "question": needle("golden_question.text"),
        "id": needle("golden_question.id"),
        "category": needle("golden_question.category"),
        "language": needle("golden_question.language"),
        "set": needle("golden_question.golden_set"),
        "compared": needle("embedding_comparison.question"),
        "segment": [needle("embedding_comparison.segments")],
    }
    tenant = "(SELECT tenant_id FROM conversation WHERE user_key = %(key)s LIMIT 1)"
    with psycopg.connect(address.conninfo("admin")) as connection:
        connection.execute(
            f"INSERT INTO golden_question SELECT %(key)s, {tenant}, %(set)s, %(id)s, 1, %(asked)s, %(question)s, "
            "%(seqs)s, %(owners)s, %(category)s, %(language)s".encode(),
            values,
        )
        for column in ("old_dense", "new_dense", "old_final", "new_final"):
            others = {"old_dense", "new_dense", "old_final", "new_final"} - {column}
            empty = ", ".join("'{}'" for _ in others)
            connection.execute(
                "INSERT INTO embedding_comparison (user_key, id, tenant_id, conversation, old_version, new_version, "
                f"epoch, query_type, segments, {column}, {', '.join(sorted(others))}, old_ms, new_ms, question) "
                f"SELECT %(key)s, gen_random_uuid(), {tenant}, %(at)s, 1, 2, 1, 'default', %(segment)s, %(names)s, "
                f"{empty}, 1, 1, %(compared)s".encode(),
                values,
            )


async def delete(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.delete(path)
    assert answer.status_code == 200, answer.text


async def test_they_go_with_an_event(client: httpx.AsyncClient, address: EmbeddedAddress, needle: Needles) -> None:
    """Whoever appended it: a question of a fork whose evidence its parent holds goes too."""
    conversation = await chat(client)
    fork = (await client.post(f"/v1/conversations/{conversation}/fork", json={"at_seq": 2})).json()["id"]
    put(address, needle, fork, [(conversation, 2)], conversation)
    put(address, needle, conversation, [(conversation, 1), (conversation, 2)], conversation)
    put(address, needle, None, [(conversation, 2), (conversation, 3)], conversation)
    gone = needle.take()
    put(address, needle, conversation, [(conversation, 1), (conversation, 3)], conversation)
    stays = needle.take()
    analyze(address)
    assert set().union(*found(address, gone).values()) == set(gone.values()), "the search finds what is there"
    ids = await event_ids(client, conversation)
    await delete(client, f"/v1/conversations/{fork}/events/{ids[1]}")
    assert found(address, gone) == {}
    assert len(found(address, stays)) == 7


async def test_they_go_with_the_conversation_that_they_were_asked_in(
    client: httpx.AsyncClient, address: EmbeddedAddress, needle: Needles
) -> None:
    conversation = await chat(client)
    fork = (await client.post(f"/v1/conversations/{conversation}/fork", json={"at_seq": 2})).json()["id"]
    put(address, needle, conversation, [(conversation, 1)], conversation)
    put(address, needle, conversation, [(conversation, 3)], conversation)
    gone = needle.take()
    put(address, needle, fork, [(conversation, 1)], conversation)
    forks = needle.take()
    await delete(client, f"/v1/conversations/{conversation}")
    assert found(address, gone) == {}
    assert found(address, forks) != {}, "the fork shows it still"
    await delete(client, f"/v1/conversations/{fork}")
    assert found(address, forks) == {}


async def test_they_go_with_the_user(client: httpx.AsyncClient, address: EmbeddedAddress, needle: Needles) -> None:
    """Also a search of all that the user ever said which found nothing: its question is the user's."""
    conversation = await chat(client)
    put(address, needle, conversation, [(conversation, 1)], conversation)
    put(address, needle, None, [], conversation)
    gone = needle.take()
    bobs = await chat(client, "bob")
    put(address, needle, bobs, [(bobs, 1)], bobs)
    stays = needle.take()
    await delete(client, "/v1/users/ada")
    assert found(address, gone) == {}
    assert found(address, stays) != {}


async def test_they_go_with_what_has_expired(
    client: httpx.AsyncClient, address: EmbeddedAddress, needle: Needles
) -> None:
    conversation = await chat(client)
    put(address, needle, conversation, [(conversation, 1)], conversation)
    gone = needle.take()
    retention = f"/v1/conversations/{conversation}/retention"
    assert (await client.put(retention, json={"retention_days": 1})).status_code == 200
    with psycopg.connect(address.conninfo("admin")) as connection:
        for table in ("event", "conversation"):
            connection.execute(f"UPDATE {table} SET recorded_at = recorded_at - interval '2 days'".encode())
    assert (await client.post("/v1/retention/run")).status_code == 200
    assert found(address, gone) == {}


async def test_they_go_with_the_tenant(
    client: httpx.AsyncClient, address: EmbeddedAddress, database: Database, needle: Needles
) -> None:
    """And so do the sets themselves."""
    made = await make_tenant(client, "customer")
    key = await make_key(client, tenant=made["name"], scopes=["admin"], name="theirs")
    headers = {"authorization": f"Bearer {key['key']}"}
    async with httpx.AsyncClient(base_url=client.base_url, headers=headers) as theirs:
        conversation = await chat(theirs)
    put(address, needle, conversation, [(conversation, 1)], conversation)
    tenant = await the_tenant(database, "customer")
    with psycopg.connect(address.conninfo("admin")) as connection:
        connection.execute(
            "INSERT INTO golden_set (tenant_id, name, version, owner, approved_by) VALUES (%s, %s, 1, %s, %s)",
            (tenant.id, needle("golden_set.name"), needle("golden_set.owner"), needle("golden_set.approved_by")),
        )
    gone = needle.take()
    assert set().union(*found(address, gone).values()) == set(gone.values())
    await erase_tenant(database, tenant, actor="test")
    assert found(address, gone) == {}
