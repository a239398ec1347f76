"""What is observed around every request."""

from __future__ import annotations

import logging
import re

import httpx
import pytest
from litestar import Litestar, get

from server.operations.metrics import exposition
from server.operations.requests import observe


@get("/things/{name:str}", sync_to_thread=False)
def thing() -> str:
    return "a thing"


@get("/broken", sync_to_thread=False)
def broken() -> None:
    raise RuntimeError("broken on purpose")


def _client(log: str = "slow") -> httpx.AsyncClient:
    app = observe(Litestar([thing, broken], logging_config=None), log)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def test_a_usable_request_id_is_kept_and_any_other_replaced() -> None:
    async with _client() as client:
        kept = await client.get("/things/a", headers={"x-request-id": "abc-123"})
        assert kept.headers.get_list("x-request-id") == ["abc-123"]
        for bad in ("", "two words", "x" * 129, "tab\there"):
            made = (await client.get("/things/a", headers={"x-request-id": bad})).headers["x-request-id"]
            assert re.fullmatch("[0-9a-f]{24}", made), bad
        ids = [(await client.get("/things/a")).headers["x-request-id"] for _ in range(3)]
        assert len(set(ids)) == 3


async def test_answers_that_no_route_made_carry_an_id_too() -> None:
    async with _client() as client:
        for path in ("/nowhere", "/broken"):
            assert (await client.get(path)).headers["x-request-id"]


async def test_requests_are_counted_by_template_method_and_class_never_by_path() -> None:
    async with _client() as client:
        await client.get("/things/needle-in-a-path")
        await client.get("/nowhere/needle-in-a-path")
        await client.request("NEEDLE", "/nowhere")
        await client.get("/broken")
    text = exposition(several_processes=False).decode()
    assert 'turnstone_request_seconds_count{method="GET",route="/things/{name}",status="2xx"}' in text
    assert 'turnstone_request_seconds_count{method="GET",route="unmatched",status="4xx"}' in text
    assert 'turnstone_request_seconds_count{method="GET",route="/broken",status="5xx"}' in text
    assert "needle" not in text.lower()


@pytest.mark.parametrize(
    ("log", "logged"), [("all", {"/things/{name}", "/broken"}), ("slow", {"/broken"}), ("none", set())]
)
async def test_the_log_holds_what_the_setting_asks_for(
    log: str, logged: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "server.requests")
    async with _client(log) as client:
        await client.get("/things/a")
        await client.get("/broken")
    assert {vars(line)["route"] for line in caplog.records if line.name == "server.requests"} == logged
