"""What no operator chooses, in the middle of a migration: each time a clear refusal, or a clean way on.

Against a real ``turnstone serve`` with its own PostgreSQL and its own backfill worker: two operators at once, a server
of the old release, a provider that dies, a disk that is full, a database that is killed in every state.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import psycopg
import pytest

from schema.embeddings import relation_name
from server.database.embedded import attach
from tests.embedding_server import EmbeddingServer, embedding_server
from tests.operations.running import Serve, environment, free_port
from tests.operator_steps import PATH

PATIENCE = 30.0  # seconds
OLD, NEW = "wordllama-256", "new"
CHEAP = {"provider": "wordllama", "model": "l2_supercat_256", "query_prefix": "question: "}
THINGS = ("lamp", "sofa", "window", "door", "carpet", "mirror", "stove", "ladder", "bicycle", "basket", "candle")
WHY = "nobody waits for figures here"
# The way to each state, with the state that a step leads to.
WAY: list[tuple[str, dict[str, Any], str]] = [
    ("start", {"name": NEW}, "writing"),
    ("backfill", {}, "backfilling"),
    ("verify", {}, "verified"),
    ("shadow", {"percent": 50}, "shadowing"),
    ("ramp", {"percent": 100, "force": WHY}, "ramping"),
    ("cutover", {"force": WHY}, "holding"),
]


class Site:
    """A server, its database, and an operator's hands."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.client = serve.client()
        self._conversations = 0

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        postgres = attach(self.serve.data_dir)
        assert postgres is not None
        with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def post(self, action: str, **body: Any) -> httpx.Response:
        return self.client.post(f"{PATH}/{action}", json=body, timeout=60)

    def step(self, action: str, **body: Any) -> dict[str, Any]:
        answer = self.post(action, **body)
        assert answer.status_code == 200, (action, answer.text)
        found: dict[str, Any] = answer.json()
        return found

    def refused(self, action: str, **body: Any) -> dict[str, Any]:
        answer = self.post(action, **body)
        assert answer.is_error, (action, answer.text)
        error: dict[str, Any] = answer.json()["error"]
        return error

    def add(self, name: str = NEW, **fields: Any) -> int:
        answer = self.client.post("/v1/embeddings/versions", json={"name": name, **(fields or CHEAP)})
        assert answer.status_code == 201, answer.text
        return int(self.sql("SELECT id FROM embedding_version WHERE name = %s", name)[0][0])

    def status(self) -> dict[str, Any]:
        return self.get(PATH)

    def get(self, path: str) -> dict[str, Any]:
        """Read, again while the database comes back."""
        deadline = time.monotonic() + PATIENCE
        while (answer := self.client.get(path)).status_code == 503:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.05)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def state(self) -> str:
        running = self.status()["running"]
        return "none" if running is None else str(running["state"])

    def history(self) -> list[tuple[str, bool]]:
        lines = self.get(f"{PATH}/history")["data"]
        return [(line["action"], line["done"]) for line in lines]

    def say(self, user: str, *texts: str) -> str:
        """Store a conversation, old enough that the servers leave it to a backfill."""
        made = self.client.post("/v1/conversations", json={"user": user})
        assert made.is_success, made.text
        at = str(made.json()["id"])
        events = [{"role": "user", "content": text} for text in texts]
        assert self.client.post(f"/v1/conversations/{at}/events", json={"events": events}).status_code == 201
        self.sql("UPDATE event SET recorded_at = now() - interval '1 minute'")
        return at

    def ask(self, query: str, **body: Any) -> dict[str, Any]:
        answer = self.client.post("/v1/search", json={"query": query, **body})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert found["data"], "an empty answer"
        return found

    def answered_by(self, user: str) -> str:
        stamp = self.ask("Where does it stand?", user=user)["stamps"]["embedding"]
        return "words alone" if stamp is None else str(stamp).split()[0]

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come: {self.status()}"
            time.sleep(0.05)

    def served_by(self, user: str, version: str) -> None:
        """Wait until a version answers: a server that has lost its database opens its models anew."""
        self.until(lambda: self.answered_by(user) == version, f"an answer by {version}")

    def waiting(self) -> int:
        backfill = self.status()["backfill"]
        return 0 if backfill is None else int(backfill["waiting"])

    def whys(self) -> list[str]:
        backfill = self.status()["backfill"]
        return [] if backfill is None else [worker["why"] for worker in backfill["workers"]]

    def count(self, version: int) -> int:
        return int(self.sql(f"SELECT count(*) FROM {relation_name(version)}")[0][0])

    def forward(self, state: str) -> None:
        """Take the steps up to a state."""
        for action, body, reached in WAY:
            self.step(action, **body)
            if reached == "backfilling":
                self.until(lambda: not self.waiting(), "the end of the backfill")
            if reached == state:
                return

    def give_up(self) -> None:
        """Leave nothing of a migration behind."""
        self.post("rollback")
        for name, state in self.versions().items():
            if state == "draft":
                self.until(lambda: self.contracted(name), "that nobody reads it")  # noqa: B023
                # Its name and its model may be added again.
                self.sql("DELETE FROM embedding_history h USING embedding_version v WHERE v.id = h.version "
                         "AND v.name = %s", name)  # fmt: skip
                self.sql("DELETE FROM embedding_version WHERE name = %s", name)
        relations = self.sql(r"SELECT tablename FROM pg_tables WHERE tablename ~ '^embedding_v\d+$'")
        assert relations == [("embedding_v1",)], "what was given up has left vectors"

    def contracted(self, name: str) -> bool:
        answer = self.post("contract", name=name, confirm=name)
        assert answer.status_code == 200 or answer.json()["error"]["code"] == "still_read", answer.text
        return answer.is_success

    def versions(self) -> dict[str, str]:
        listed = self.get("/v1/embeddings/versions")["data"]
        return {one["name"]: one["state"] for one in listed}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    serve = Serve(tmp_path_factory.mktemp("chaos") / "data", free_port(), "--migration-grace-hours=0")
    try:
        serve.wait_ready()
        yield serve
    finally:
        serve.end()


@pytest.fixture
def site(served: Serve) -> Iterator[Site]:
    """The one server of this file, with a user who has said something, and no migration."""
    made = Site(served)
    if not made.client.get("/v1/conversations").json()["data"]:
        made.say("ada", *(f"The piano stands beside the {thing}." for thing in THINGS))
    made.served_by("ada", OLD)
    try:
        yield made
    finally:
        made.give_up()
        made.client.close()


def test_of_two_operators_at_once_one_gets_through_and_the_other_is_told(site: Site) -> None:
    """They type the same command in two terminals."""
    site.add("one")
    site.add("two", **CHEAP | {"query_prefix": "ask: "})

    def at_once(*commands: tuple[str, ...]) -> list[tuple[int, str]]:
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "server.cli", "embeddings", *command],
                env=environment() | {"TURNSTONE_URL": site.serve.url, "TURNSTONE_DATA_DIR": str(site.serve.data_dir)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for command in commands
        ]
        return sorted((one.wait(60), one.communicate()[1]) for one in running)

    (first, _), (second, said) = at_once(("start", "one"), ("start", "two"))
    assert (first, second) == (0, 1)
    assert "somebody else is at work" in said or "only one runs at a time" in said, said
    assert sorted(site.versions().values()) == ["active", "draft", "writing"]
    (first, _), (second, said) = at_once(("rollback",), ("rollback",))
    assert (first, second) == (0, 1)
    assert "no migration is running" in said
    assert [action for action, _ in site.history()].count("rollback") == 1


@contextmanager
def old_server(site: Site) -> Iterator[None]:
    """Let a server of an older release be alive."""
    site.sql(
        "INSERT INTO server (id, hostname, pid, release, routing_epoch, lease_until) SELECT gen_random_uuid(), "
        "'old', 7, '0.0.1', (SELECT epoch FROM embedding_routing), now() + interval '1 hour'"
    )
    try:
        yield
    finally:
        site.sql("DELETE FROM server WHERE hostname = 'old'")


def test_while_a_server_of_the_old_release_runs_nothing_goes_forward_and_everything_back(site: Site) -> None:
    site.add()
    for action, body, reached in WAY:
        if action == "verify":  # looks, and lets nobody read anything
            site.step(action, **body)
            continue
        with old_server(site):
            error = site.refused(action, **body)
            assert error["code"] == "mixed_releases", (action, error)
            assert "old:7 (0.0.1)" in error["message"]
            if reached == "ramping":
                site.step("shadow", percent=0)
        site.step(action, **body)
        if reached == "backfilling":
            with old_server(site):
                site.step("pause", reason="an old server was found")
                site.step("resume")
            site.until(lambda: not site.waiting(), "the end of the backfill")
    with old_server(site):
        site.served_by("ada", NEW)
        assert site.refused("contract", name=OLD, confirm=OLD)["code"] == "mixed_releases"
        done = site.step("rollback", reason="the old server does not know this")
        assert done["behind"] == ["old:7"]
        site.served_by("ada", OLD)
    # One that was killed is taken for dead when its lease has run out, and stands in nobody's way.
    with old_server(site):
        site.sql("UPDATE server SET lease_until = now() - interval '1 second' WHERE hostname = 'old'")
        site.step("start", name=NEW)


@pytest.fixture
def provider() -> Iterator[EmbeddingServer]:
    with embedding_server(12) as server:
        yield server


def test_a_provider_that_dies_midway_is_waited_for_and_harms_nobody(site: Site, provider: EmbeddingServer) -> None:
    site.say("bob", *(f"The harp number {number} stands by the window." for number in range(300)))
    version = site.add(provider="openai", model="words", options={"url": provider.url, "batch": 8, "timeout": 2})
    site.step("start", name=NEW)
    provider.seconds = 0.05
    site.step("backfill")
    site.until(lambda: site.count(version) > 16, "the first vectors")
    provider.down = True
    site.until(lambda: any("tries again" in why for why in site.whys()), "a worker that says that it waits")
    assert any(provider.url in why for why in site.whys()), "it says for whom"
    before = site.count(version)
    assert before < 300
    assert site.answered_by("bob") == OLD
    at = site.say("bob", "The harp was sold.")
    found = site.ask("What became of the harp?", conversation_id=at, min_seq=1)
    assert "degraded" not in found
    assert site.refused("verify")["code"] in ("provider_unavailable", "wrong_state")
    provider.seconds, provider.down = 0.0, False
    site.until(lambda: not site.waiting(), "the end of the backfill")
    assert site.status()["backfill"]["dead"] == 0, "that the provider was away is no text's fault"
    site.step("verify")
    site.step("shadow", percent=100)
    site.step("ramp", percent=100, force=WHY)
    site.served_by("bob", NEW)
    # Dead again, now that users read it: the version that serves the others answers them, as a whole.
    provider.down = True
    found = site.ask("Where does the harp stand?", user="bob")
    assert (found["stamps"]["embedding"].split()[0], found.get("degraded")) == (OLD, None)
    site.step("rollback", reason="the provider is gone")
    assert site.answered_by("bob") == OLD
    # To the static model, numbers of the same digits are one: the next verification would find duplicates.
    assert site.client.delete("/v1/users/bob").is_success


FULL = """
CREATE FUNCTION full_disk() RETURNS {kind} LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
END $$
"""


def test_a_full_disk_stops_the_migration_and_nothing_else(site: Site) -> None:
    """As PostgreSQL says it; the disk itself is not filled, since the whole machine would share it."""
    version = site.add()
    site.sql(FULL.format(kind="event_trigger"))
    site.sql(
        "CREATE EVENT TRIGGER full_disk ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION full_disk()"
    )
    try:
        answer = site.post("start", name=NEW)
        assert (answer.status_code, "disk is full" in answer.text) == (503, True), answer.text
        assert "retry-after" in answer.headers
        assert site.versions()[NEW] == "draft", "all of the step is undone"
        assert site.sql("SELECT to_regclass(%s)", relation_name(version)) == [(None,)]
    finally:
        site.sql("DROP EVENT TRIGGER full_disk")
        site.sql("DROP FUNCTION full_disk")
    site.step("start", name=NEW)
    relation = relation_name(version)
    site.sql(FULL.format(kind="trigger"))
    site.sql(f"CREATE TRIGGER full_disk BEFORE INSERT ON {relation} EXECUTE FUNCTION full_disk()")
    site.step("backfill")
    site.until(lambda: any("disk is full" in why for why in site.whys()), "a worker that says why")
    at = site.say("ada", "The piano was tuned.")
    found = site.ask("What became of the piano?", conversation_id=at, min_seq=1)
    assert (found["stamps"]["embedding"].split()[0], found.get("degraded")) == (OLD, None)
    assert site.count(version) == 0
    site.sql(f"DROP TRIGGER full_disk ON {relation}")
    site.sql("DROP FUNCTION full_disk")
    site.until(lambda: not site.waiting(), "the end of the backfill")
    site.step("verify")


def _kill_database(site: Site, after: float) -> None:
    (postmaster,) = site.serve.children("postgres")
    time.sleep(after)
    postmaster.kill()


def _through_a_fall(site: Site, action: str, body: dict[str, Any], reached: str, after: float) -> None:
    """Take a step while the database is killed; then once more, if it was not done."""
    falling = threading.Thread(target=_kill_database, args=(site, after))
    falling.start()
    with suppress(httpx.TransportError):
        answer = site.post(action, **body)
        assert answer.status_code in (200, 503), answer.text
    falling.join()
    site.until(lambda: site.serve.status("/readyz") == 200 and site.serve.children("postgres"), "the database")
    deadline = time.monotonic() + PATIENCE
    while site.state() != reached:
        answer = site.post(action, **body)
        assert answer.status_code in (200, 503) or answer.json()["error"]["code"] in _SOON, answer.text
        assert time.monotonic() < deadline, (action, answer.text)
        time.sleep(0.05)


# What passes by itself: a server that does not follow yet, a model that is being opened, vectors that are being made.
_SOON = ("servers_behind", "measuring", "candidate_behind", "gates_failed")


def test_the_database_is_killed_in_every_state(site: Site) -> None:
    version = site.add()
    at = site.say("ada", "The piano was sold.")
    for number, (action, body, reached) in enumerate(WAY):
        _through_a_fall(site, action, body, reached, after=0.003 * number)
        if reached == "backfilling":
            site.until(lambda: not site.waiting(), "the end of the backfill")
        site.served_by("ada", NEW if reached in ("ramping", "holding") else OLD)
        appended = site.client.post(
            f"/v1/conversations/{at}/events", json={"events": [{"role": "user", "content": f"After {action}."}]}
        )
        assert appended.status_code == 201, appended.text
    done = [action for action, is_done in site.history() if is_done]
    assert [done.count(action) for action, *_ in WAY] == [1] * len(WAY), "what was done, was done once"
    texts = "SELECT count(*) FROM event WHERE type = 'message' AND erased_at IS NULL"
    site.until(lambda: site.sql(f"SELECT ({texts}) = (SELECT count(*) FROM {relation_name(version)})")[0][0], "vectors")
    _through_a_fall(site, "rollback", {}, "none", after=0.0)
    site.served_by("ada", OLD)
    assert (site.versions()[NEW], site.versions()[OLD]) == ("draft", "active")
