"""The log over real HTTP and real PostgreSQL, against a model of it in memory (tests/property/model.py).

Hypothesis writes the story: it appends, forks forks, erases and deletes in any order, reads after each step, and
shrinks a disagreement to the shortest story that shows it. ``--hypothesis-profile=long`` tells more and random stories;
the default is the same each time, so that a failure in CI is one that everybody can repeat.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from server.access.tenants import bootstrap
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.settings import Settings
from tests.conftest import serving
from tests.property.model import Conversation, Event, Log, Refused

STORIES = settings(
    max_examples=25,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(STORIES, max_examples=1000, stateful_step_count=80, derandomize=False)
settings.register_profile("long", LONG)

TEXT = st.sampled_from(["", "a", "b", "\0", "😀 \ud7ff", "x" * 3000])
CONTENT = TEXT | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}), max_size=2)
LABEL = st.sampled_from(["l1", "l2", "ü"])
EVENT = st.fixed_dictionaries(
    {"type": st.just("message"), "role": st.sampled_from(["user", "assistant"]), "content": CONTENT},
    optional={
        "id": st.sampled_from(["i1", "i2", "i3", "i4"]),
        "name": LABEL,
        "session": LABEL,
        "run_id": LABEL,
        "metadata": st.fixed_dictionaries({"n": st.integers(-(2**63), 2**64)}),
        "occurred_at": st.sampled_from(["2020-02-29T12:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"]),
    },
)


def _id(event: dict[str, Any]) -> object:
    return event.get("id") or id(event)


EVENTS: st.SearchStrategy[list[dict[str, Any]]] = st.lists(EVENT, min_size=1, max_size=4, unique_by=_id)
PLACE = st.integers(0, 10**6)  # taken modulo what there is


@pytest.fixture
def story(settings: Settings, address: EmbeddedAddress, admin_key_of: str) -> Iterator[type[RuleBasedStateMachine]]:
    """The machine that writes stories, on a server in a thread of its own."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    started: asyncio.Future[str] = loop.create_future()

    async def serve() -> None:
        async with serving(settings, address) as url:
            started.set_result(url)
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    while not started.done() and thread.is_alive():
        thread.join(0.01)
    with httpx.Client(
        base_url=started.result(), headers={"authorization": f"Bearer {admin_key_of}"}, timeout=30
    ) as client:
        yield type("Story", (_Story,), {"client": client})
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture
def admin_key_of(address: EmbeddedAddress) -> str:
    async def make() -> str:
        database = Database(address)
        key = await bootstrap(database)
        await database.close()
        assert key is not None
        return key

    return asyncio.run(make())


class _Story(RuleBasedStateMachine):
    client: httpx.Client

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.gone: list[str] = []

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        answer = self.client.request(method, path, **more)
        assert answer.status_code < 500, answer.text
        return answer

    def pick(self, place: int) -> Conversation:
        every = list(self.log.conversations.values())
        return every[place % len(every)]

    @initialize(user=st.sampled_from([None, "u1"]))
    def begin(self, user: str | None) -> None:
        self.create(user)

    @rule(user=st.sampled_from([None, "u1", "u2"]))
    def create(self, user: str | None) -> None:
        made = self.call("POST", "/v1/conversations", json={"user": user} if user else {})
        assert made.status_code == 200, made.text
        self.log.create(made.json()["id"], user)

    @precondition(lambda self: self.log.conversations)
    @rule(
        place=PLACE,
        events=EVENTS,
        expected=st.sampled_from([None, None, None, "head", "head", "stale"]),
        key=st.sampled_from([None, None, "k1", "k2"]),
        again=st.booleans(),
    )
    def append(
        self, place: int, events: list[dict[str, Any]], expected: str | None, key: str | None, again: bool
    ) -> None:
        at = self.pick(place)
        head = {"head": at.head, "stale": max(0, at.head - 1) if place % 2 else at.head + 1}.get(expected or "")
        if again and key in at.keys:  # the very request of before
            assert key is not None
            events, head = at.keys[key][0]
        body: dict[str, Any] = {"events": events}
        if head is not None:
            body["expected_head"] = head
        answer = self.call(
            "POST",
            f"/v1/conversations/{at.id}/events",
            json=body,
            headers={"idempotency-key": key} if key else {},
        )
        refused: Refused | None = None
        ids, now = [], 0
        try:
            ids, now = self.log.append(at.id, events, head, key)
        except Refused as error:
            refused = error
        if refused is not None:
            told = answer.json()["error"]
            # A body that breaks two rules may be refused for either.
            allowed = {refused.code} | ({"id_conflict"} if refused.code == "idempotency_mismatch" else set())
            assert told["code"] in allowed, told
            assert {name: told[name] for name in refused.details} == refused.details
            return
        assert answer.status_code == 201, answer.text
        assert [(event["id"], event["seq"]) for event in answer.json()["events"]] == ids
        assert answer.json()["head"] == now

    @precondition(lambda self: self.log.conversations)
    @rule(place=PLACE, seq=PLACE, beyond=st.sampled_from([False, False, False, True]), deeper=st.booleans())
    def fork(self, place: int, seq: int, beyond: bool, deeper: bool) -> None:
        at = self.pick(-1 if deeper else place)
        at_seq = at.head + 1 + seq % 3 if beyond else seq % (at.head + 1)
        answer = self.call("POST", f"/v1/conversations/{at.id}/fork", json={"at_seq": at_seq})
        if beyond:
            assert (answer.status_code, answer.json()["error"]["param"]) == (422, "at_seq")
            return
        assert (answer.status_code, answer.json()["head"]) == (201, at_seq), answer.text
        assert answer.json()["forked_from"] == at.id
        self.log.fork(at.id, at_seq, answer.json()["id"])
        if deeper:  # what it says next is what makes the ancestry longer
            self.append(-1, [{"type": "message", "role": "user", "content": "deeper"}], None, None, False)

    @precondition(lambda self: any(one.events for one in self.log.conversations.values()))
    @rule(place=PLACE, seq=PLACE)
    def erase(self, place: int, seq: int) -> None:
        every = [one for one in self.log.conversations.values() if one.events]
        at = every[place % len(every)]
        event = at.events[seq % at.head]
        answer = self.call("DELETE", f"/v1/conversations/{at.id}/events/{event.id}")
        try:
            self.log.erase(at.id, event.seq)
        except Refused:
            assert answer.status_code == 422
            return
        assert answer.status_code == 200, answer.text
        self.agree(answer.json(), event)

    @precondition(lambda self: len(self.log.conversations) > 1)
    @rule(place=PLACE)
    def delete(self, place: int) -> None:
        at = self.pick(place)
        assert self.call("DELETE", f"/v1/conversations/{at.id}").status_code == 200
        self.log.delete(at.id)
        self.gone.append(at.id)

    @rule(user=st.sampled_from(["u1", "u2"]), sure=st.sampled_from([False, False, True]))
    def erase_user(self, user: str, sure: bool) -> None:
        if not sure:  # else few stories would have users with a past
            return
        known = {one["id"] for one in self.call("GET", "/v1/users").json()["data"]}
        answer = self.call("DELETE", f"/v1/users/{user}")
        assert answer.status_code == (200 if user in known else 404)
        self.gone += [one.id for one in self.log.conversations.values() if one.user == user]
        self.log.erase_user(user)

    @precondition(lambda self: self.log.conversations)
    @rule(
        place=PLACE,
        after=st.none() | st.integers(0, 12),
        before=st.none() | st.integers(1, 12),
        limit=st.sampled_from([1, 2, 3, 1000]),
        descending=st.booleans(),
        as_of=st.none() | PLACE,
        by_time=st.booleans(),
    )
    def read(
        self,
        place: int,
        after: int | None,
        before: int | None,
        limit: int,
        descending: bool,
        as_of: int | None,
        by_time: bool,
    ) -> None:
        at = self.pick(place)
        query: dict[str, Any] = {"limit": limit, "order": "desc" if descending else "asc"}
        query |= {"after_seq": after} if after is not None else {}
        query |= {"before_seq": before} if before is not None else {}
        until = None
        if as_of is not None:
            until = as_of % (at.head + 2)
            query["as_of"] = until
            if by_time and 1 <= until <= at.head:
                time = at.events[until - 1].recorded_at
                assert time is not None
                query["as_of"] = time
                until = max(event.seq for event in at.events if event.recorded_at and event.recorded_at <= time)
        page = self.call("GET", f"/v1/conversations/{at.id}/events", params=query).json()
        events, has_more = self.log.read(at.id, after or 0, before, limit, descending, until)
        assert [event["seq"] for event in page["data"]] == [event.seq for event in events]
        assert (page["has_more"], page["head"]) == (has_more, at.head)
        for shown, event in zip(page["data"], events, strict=True):
            self.agree(shown, event)

    @precondition(lambda self: any(one.events for one in self.log.conversations.values()))
    @rule(place=PLACE, seq=PLACE, foreign=st.booleans())
    def read_one(self, place: int, seq: int, foreign: bool) -> None:
        every = [one for one in self.log.conversations.values() if one.events]
        at = every[place % len(every)]
        event = at.events[seq % at.head]
        if foreign:  # an event of one conversation is found in those that show it, and in no other
            other = self.pick(seq)
            event = next((one for one in other.events if one.id == event.id), event)
            answer = self.call("GET", f"/v1/conversations/{other.id}/events/{event.id}")
            assert answer.status_code == (200 if event in other.events else 404), answer.text
            return
        self.agree(self.call("GET", f"/v1/conversations/{at.id}/events/{event.id}").json(), event)

    def agree(self, shown: dict[str, Any], event: Event) -> None:
        """Compare what an answer shows with what the model holds."""
        assert shown["seq"] == event.seq
        assert shown["recorded_at"] == (event.recorded_at or shown["recorded_at"])
        event.recorded_at = shown["recorded_at"]
        if event.body is None:
            assert set(shown) <= {"id", "seq", "type", "role", "occurred_at", "recorded_at", "erased_at"}
            assert shown["erased_at"]
            assert shown["id"].startswith("evt_")
            return
        assert shown["id"] == event.id
        expected = dict(event.body)
        expected.setdefault("occurred_at", shown["recorded_at"])
        assert {name: value for name, value in shown.items() if name != "type" or value != "message"} == {
            **{name: value for name, value in expected.items() if name != "type" or value != "message"},
            "id": event.id,
            "seq": event.seq,
            "recorded_at": shown["recorded_at"],
        }

    @invariant()
    def every_conversation_shows_what_it_should(self) -> None:
        """The whole of one conversation after each step (each in its turn); what is gone stays gone."""
        for at in list(self.log.conversations.values())[-3:]:
            page = self.call("GET", f"/v1/conversations/{at.id}/events", params={"limit": 1000}).json()
            assert page["head"] == at.head
            assert len(page["data"]) == at.head
            for shown, event in zip(page["data"], at.events, strict=True):
                self.agree(shown, event)
            times = [shown["recorded_at"] for shown in page["data"]]
            assert times == sorted(times)
        for gone in self.gone[-1:]:
            assert self.call("GET", f"/v1/conversations/{gone}/events").status_code == 404
            assert self.call("GET", f"/v1/conversations/{gone}").status_code == 404

    def teardown(self) -> None:
        for at in list(self.log.conversations.values()):
            page = self.call("GET", f"/v1/conversations/{at.id}/events", params={"limit": 1000}).json()
            for shown, event in zip(page["data"], at.events, strict=True):
                self.agree(shown, event)
        for user in ("u1", "u2"):  # the next story begins with neither
            self.call("DELETE", f"/v1/users/{user}")


@pytest.mark.timeout(600)
def test_the_log_agrees_with_its_model(story: type[RuleBasedStateMachine]) -> None:
    profile = settings.get_current_profile_name()
    run_state_machine_as_test(story, settings=LONG if profile == "long" else STORIES)
