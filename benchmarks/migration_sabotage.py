"""Candidates that must not come through: each is stopped where it shows, and the reason names what is wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.migration_fleet import Fleet, Refused, fleet
from benchmarks.migration_models import LONG, Models
from benchmarks.migration_report import Notes
from schema.embeddings import relation_name

_QUESTIONS: Final = 960
_SEARCHES: Final = 120  # that the shadow sees
_TOGETHER: Final = 60  # events of a conversation
_EACH: Final = 32  # one event in so many is long: too few to tell in the mean of all
_PLACES: Final = ["attic", "cellar", "garage", "kitchen", "library", "harbour", "orchard", "stable"]
# What the log calls a thing, and what questions do: only meaning joins them.
_WORDS: Final = {
    "bicycle": "bike", "carpet": "rug", "sofa": "couch", "lantern": "lamp", "violin": "fiddle", "blanket": "quilt",
    "boat": "ship", "car": "automobile", "dog": "puppy", "cat": "kitten", "doctor": "physician", "stone": "rock",
    "money": "cash", "gift": "present", "shop": "store", "movie": "film", "photo": "picture", "bag": "purse",
    "forest": "woods", "baby": "infant",
}  # fmt: skip
_THINGS: Final = tuple(_WORDS)


class Sabotage(NamedTuple):
    """A candidate: ``model`` at the embedding server, ``then`` done once it is backfilled, ``stops``: where and why."""

    name: str
    model: str
    stops: str
    named: tuple[str, ...]
    then: Callable[[Fleet, Models, int], None] | None = None
    before: Callable[[Fleet, Models, int], None] | None = None


def _swap(_: Fleet, models: Models, __: int) -> None:
    models.swapped = True


def _half_index(fleet: Fleet, _: Models, version: int) -> None:
    relation = relation_name(version)
    with fleet.database() as connection:
        connection.execute("SET ROLE turnstone_owner")
        connection.execute(
            f"CREATE INDEX {relation}_hnsw ON {relation} USING hnsw (embedding vector_cosine_ops) "
            "WHERE seq % 2 = 0".encode()
        )


def _broken_index(fleet: Fleet, _: Models, version: int) -> None:
    relation = relation_name(version)
    with fleet.database() as connection:
        connection.execute("SET ROLE turnstone_owner")
        connection.execute(
            f"CREATE INDEX {relation}_hnsw ON {relation} USING hnsw (embedding vector_cosine_ops)".encode()
        )
        connection.execute("RESET ROLE")
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(%s)", (f"{relation}_hnsw",)
        )


def _shuffled(fleet: Fleet, _: Models, version: int) -> None:
    relation = relation_name(version)
    with fleet.database() as connection:
        connection.execute(
            f"UPDATE {relation} v SET embedding = w.embedding FROM {relation} w WHERE w.user_key = v.user_key "
            "AND w.conversation = v.conversation AND w.seq = v.seq + 1 AND v.seq % 2 = 0".encode()
        )


CANDIDATES: Final = (
    Sabotage("random vectors", "random", "compare", ("recall",)),
    Sabotage("good on short texts, broken on long ones", "long-broken", "compare", ("length=",)),
    Sabotage("other weights under the same name, before the backfill", "good", "backfill", ("changed under its name",),
             before=_swap),
    Sabotage("other weights under the same name, after the backfill", "good", "verify", ("fingerprint",), then=_swap),
    Sabotage("vectors of other texts", "good", "verify", ("re_embedded",), then=_shuffled),
    Sabotage("an index built half", "good", "verify", ("index_complete",), then=_half_index),
    Sabotage("an index whose build failed", "good", "verify", ("index_valid",), then=_broken_index),
    Sabotage("NaN", "nan", "add", ("finite", "cannot be read", "not_finite")),
    Sabotage("zero vectors", "zero", "add", ("no length",)),
    Sabotage("one vector for all", "constant", "add", ("same vector",)),
    Sabotage("NaN, hidden from the probe", "nan-hidden", "verify", ("dead_letters", "refuses even a probe")),
    Sabotage("zero vectors, hidden from the probe", "zero-hidden", "verify", ("dead_letters",)),
    Sabotage("one vector for all, hidden from the probe", "constant-hidden", "verify", ("duplicates", "constant")),
)  # fmt: skip


def run(notes: Notes, directory: Path, models: Models, url: str) -> None:
    """Try to migrate a small database to each of them."""
    with fleet(directory, "sabotage", 1) as one:
        log, golden = _write(directory)
        one.load(log, "jsonl")
        one.embedded()
        one.golden(golden, "things")
        for number, sabotage in enumerate(CANDIDATES):
            models.swapped = False
            notes.say(f"a candidate with {sabotage.name}")
            stopped, why = _try(one, models, url, f"candidate-{number}", sabotage)
            met = stopped == sabotage.stops and any(word in why for word in sabotage.named)
            notes.claim(
                sabotage.name, f"stopped at {stopped}: {_cut(why)}", f"stopped at {sabotage.stops}, naming it", met
            )
            models.swapped = False
            _give_up(one, f"candidate-{number}")


def _cut(text: str) -> str:
    return text if len(text) < 260 else text[:257] + "…"


def _try(one: Fleet, models: Models, url: str, name: str, sabotage: Sabotage) -> tuple[str, str]:
    """Return where a candidate was stopped, and why; ``nowhere`` if it came as far as a ramp."""
    step = "add"
    try:
        one.add(name, provider="openai", model=sabotage.model, options={"url": url})
        step = "start"
        one.step("start", name=name)
        version = one.number(name)
        if sabotage.before is not None:
            sabotage.before(one, models, version)
        step = "backfill"
        one.step("backfill")
        problem = _backfilled(one)
        if problem is not None:
            return "backfill", problem
        if sabotage.then is not None:
            sabotage.then(one, models, version)
        step = "verify"
        one.step("verify")
        one.step("shadow", percent=100)
        _search(one)
        step = "compare"
        compared = one.step("compare")
        failed = [gate for gate in compared["record"]["gates"] if gate["outcome"] == "fail"]
        if failed:
            try:
                one.step("ramp", percent=5)
            except Refused:
                told = "; ".join(f"{gate['name']} [{gate['segment']}]: {gate['why']}" for gate in _telling(failed))
                return "compare", told
            return "nowhere", "the ramp went through although gates fail"
        one.step("ramp", percent=5)
    except Refused as error:
        failed = [gate for gate in error.gates if gate["outcome"] == "fail"]
        return step, "; ".join(f"{gate['name']}: {gate['why']}" for gate in failed) or error.message
    return "nowhere", "it answers users"


def _telling(failed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return failed gates, those of a length first where that of all does not fail: then only these tell."""
    if all(gate["segment"] != "all" for gate in failed):
        return sorted(failed, key=lambda gate: not gate["segment"].startswith("length="))
    return sorted(failed, key=lambda gate: gate["name"] != "recall")


def _backfilled(one: Fleet) -> str | None:
    """Wait for the end of the backfill; returns why it does not come to one, if its worker says so."""
    until = time.monotonic() + 120
    said = 0
    while (found := one.status()["backfill"]) and found["waiting"]:
        why = [worker["why"] for worker in found["workers"] if "tries again" in worker["why"]]
        said = said + 1 if why else 0
        if said > 5:
            return str(why[0])
        if time.monotonic() > until:
            return "it does not end"
        time.sleep(0.2)
    return None


def _search(one: Fleet) -> None:
    for place in range(_SEARCHES):
        body = {"query": _question(_THINGS[place % len(_THINGS)]), "user": f"user {place % 4}", "k": 10}
        one.client.post("/v1/search", json=body).raise_for_status()


def _question(thing: str) -> str:
    return f"What became of our {_WORDS[thing]}?"


def _give_up(one: Fleet, name: str) -> None:
    for step, body in (("rollback", {}), ("contract", {"name": name, "confirm": name})):
        try:
            one.step(step, **body)
        except Refused as error:
            if error.code not in ("nothing_to_roll_back", "no_such_version"):
                raise


def _write(directory: Path) -> tuple[Path, Path]:
    """Write a log of short texts and a few long ones about things, and questions that call them by other words."""
    log, golden = directory / "things.jsonl", directory / "golden.jsonl"
    lines, questions = [], []
    for number in range(_QUESTIONS):
        thing, place = _THINGS[number % len(_THINGS)], _PLACES[number // len(_THINGS) % len(_PLACES)]
        text = f"On day {number} we found the {thing} in the {place}."
        if number % _EACH == 5:
            text = " ".join(f"Then the {thing} was in the {place} again ({day})." for day in range(LONG // 30))
        chat = number // _TOGETHER
        event = {"id": f"e{number}", "role": "user", "content": text}
        lines.append({"conversation": f"things-{chat}", "user": f"user {chat}", **event})
        asked = {"question": _question(thing), "evidence": [f"e{number}"]}
        questions.append({"id": f"q{number}", "conversation": f"things-{chat}", **asked})
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    golden.write_text("".join(json.dumps(line) + "\n" for line in questions))
    return log, golden
