"""Log lines: whole, and without what was said."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy.exc
import structlog

from server.database.address import EmbeddedAddress
from server.operations import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_both_kinds_of_logger_write_json_with_the_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    token = logs.REQUEST_ID.set("req-1")
    logging.getLogger("some.library").warning("watch %s", "out", extra={"size": 3})
    structlog.get_logger("ours").info("done", file="a")
    logs.REQUEST_ID.reset(token)
    logging.getLogger("some.library").debug("not this")
    logging.getLogger("some.library").info("later")
    first, second, third = _lines(capsys)
    assert (first["event"], first["level"], first["logger"], first["size"]) == (
        "watch out",
        "warning",
        "some.library",
        3,
    )
    assert first["request_id"] == second["request_id"] == "req-1"
    assert (second["event"], second["file"]) == ("done", "a")
    assert "request_id" not in third


def test_a_database_error_is_logged_without_the_row_that_it_quotes(
    capsys: pytest.CaptureFixture[str], address: EmbeddedAddress
) -> None:
    logs.configure("info", "json")
    with psycopg.connect(address.conninfo("admin")) as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute(
            "INSERT INTO event (user_key, conversation, seq, recorded_at, occurred_at, tenant_id, type, content) "
            "VALUES (1, gen_random_uuid(), -1, now(), now(), 1, 'message', '\"the needle\"')"
        )
    assert "needle" in str(caught.value), "PostgreSQL quotes the row"
    wrapped = sqlalchemy.exc.IntegrityError("INSERT needle", {"content": "needle"}, caught.value)
    wrapped.__cause__ = caught.value
    logging.getLogger("x").error("failed", exc_info=wrapped)
    (line,) = _lines(capsys)
    assert "needle" not in json.dumps(line)
    assert "23514 event event_seq_check" in str(line["exception"])
