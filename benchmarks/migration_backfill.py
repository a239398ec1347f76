"""The backfill alone: its rate against the bare embedder's, and what `kill -9` leaves of it.

``python -m benchmarks.migration_backfill`` is the bare embedder, in a process of its own as a worker is: a line of JSON
says which model and which texts, and a line answers how many it embedded in a second.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec
import psutil

from benchmarks.migration_checks import Held, hold_against_log
from benchmarks.migration_data import text_of
from benchmarks.migration_fleet import Fleet
from benchmarks.migration_report import Notes
from server.embeddings.backfill.__main__ import NICE
from server.embeddings.model import open_model
from server.embeddings.providers import Spec
from server.log.stored import COLUMNS, from_row

_AT_ONCE: Final = 8  # calls of the provider, as much as a worker hands over
_LOOK: Final = 0.02  # seconds
_SHARE: Final = 0.9
_PATIENCE: Final = 120.0  # seconds until a worker that was killed has a successor that works


class Order(msgspec.Struct):
    """Which model, and which texts."""

    spec: Spec
    texts: list[str]


def bare(spec: Spec, texts: Sequence[str]) -> float:
    """Return how many of these texts a model embeds in a second, in a process that does nothing else."""
    order = msgspec.json.encode(Order(spec, list(texts)))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.migration_backfill"], input=order, stdout=subprocess.PIPE, check=True
    )
    return float(done.stdout.split()[-1])


def rate(notes: Notes, fleet: Fleet, name: str, spec: Spec) -> None:
    """Backfill a quiet server's whole log, between two halves of the same texts through the bare embedder."""
    texts = _texts(fleet)
    half = len(texts) // 2
    notes.say(f"the bare embedder, {half:,} texts")
    first = bare(spec, texts[:half])
    version = fleet.number(name)
    fleet.step("start", name=name)
    fleet.step("backfill")
    notes.say("the backfill of a quiet server")
    while not fleet.count(version):
        time.sleep(_LOOK)
    # The first batch is there: from here on, so that opening the model is no part of it.
    began, before = time.perf_counter(), fleet.count(version)
    while (count := fleet.count(version)) < len(texts):
        time.sleep(_LOOK * 5)
    found = (count - before) / (time.perf_counter() - began)
    notes.say(f"the bare embedder, {len(texts) - half:,} texts")
    second = bare(spec, texts[half:])
    alone = len(texts) / (half / first + (len(texts) - half) / second)
    notes.report.figures["backfill"] = {"texts": len(texts), "rate": found, "bare": [first, second]}
    notes.claim(
        "backfill of a quiet server against the bare embedder",
        f"{found:,.0f}/s against {alone:,.0f}/s ({first:,.0f} before, {second:,.0f} after): {found / alone:.2f}",
        f"at least {_SHARE}",
        found / alone >= _SHARE,
    )


def kills(notes: Notes, fleet: Fleet, name: str, times: int) -> None:
    """Kill every worker again and again as soon as the backfill has come on, at no particular moment."""
    chance = random.Random(0)
    version = fleet.number(name)
    done, died = 0, 0
    while done < times and fleet.status()["backfill"]["waiting"]:
        with fleet.worker() as own:
            before, until = fleet.count(version), time.monotonic() + _PATIENCE
            # It is one of those at work, and the work goes on.
            while own.pid not in _workers(fleet) or fleet.count(version) <= before:
                if not fleet.status()["backfill"]["waiting"]:
                    break
                if time.monotonic() > until:
                    raise SystemExit("the backfill does not go on after a worker was killed")
                time.sleep(_LOOK)
            time.sleep(chance.uniform(0.0, 0.5))
            for pid in {own.pid, *_workers(fleet)}:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    died += 1
        done += 1
    left = fleet.status()["backfill"]["waiting"]
    notes.claim(
        "kill -9 of the backfill",
        f"{done} times, {died} processes, {left:,} events still waiting after the last",
        f"{times} times, before it ends",
        done >= times,
    )


def _workers(fleet: Fleet) -> list[int]:
    """Return the workers' processes; rows outlive those that were killed."""
    told = {int(worker["pid"]) for worker in fleet.status()["backfill"]["workers"]}
    found = []
    for pid in told:
        with suppress(psutil.Error):
            command = psutil.Process(pid).cmdline()
            if any("backfill" in part for part in command):
                found.append(pid)
    return found


def whole(notes: Notes, fleet: Fleet, name: str, spec: Spec) -> Held:
    """Hold a version's vectors against the log."""
    held = hold_against_log(fleet, fleet.number(name), spec)
    wrong = held.missing + held.doubled + held.extra + held.wrong
    notes.claim(
        "vectors missing, doubled, without an event, of another text",
        f"{held.missing}, {held.doubled}, {held.extra}, {held.wrong} of {held.texts:,} texts",
        "none",
        wrong == 0 and held.vectors == held.texts,
    )
    notes.claim(
        f"{held.sampled} vectors against their texts embedded anew",
        f"worst cosine {held.worst:.6f}",
        "at least 0.999",
        held.worst >= 0.999,
    )
    return held


def _texts(fleet: Fleet) -> list[str]:
    query = f"SELECT {COLUMNS} FROM event e WHERE e.erased_at IS NULL ORDER BY e.conversation DESC, e.seq"
    with fleet.database() as connection:
        rows = connection.execute(query.encode()).fetchall()
    return [text for row in rows if (text := text_of(from_row(tuple(row)))) is not None]


def main() -> None:
    """Embed what standard input names, and print texts a second."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    os.nice(NICE)
    model = open_model(order.spec)
    model.embed_documents(order.texts[: model.batch])  # what is slow only once
    size = _AT_ONCE * model.batch
    began = time.perf_counter()
    for start in range(0, len(order.texts), size):
        model.embed_documents(order.texts[start : start + size])
    print(len(order.texts) / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
