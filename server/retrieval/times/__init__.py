"""The times that a text names, resolved against the conversation's own clock, and the events it dates by.

``now`` is the ``occurred_at`` of the conversation's newest event: "last Tuesday" in a chat of 2023 is a day of 2023.
Days are those of its zone. What is named in English, German, French and Spanish is read; other languages show nothing.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Literal

import msgspec

from server.retrieval.times.anchors import GATE, Anchor, anchors
from server.retrieval.times.grammar import Grammar, Named, gates, grammar, names, spoken
from server.retrieval.times.resolve import Period, around, meaning, read, step, weekday
from server.retrieval.times.words import Words

__all__ = ["Anchor", "Granularity", "TimeRange", "Times", "find_times", "may_hold_time", "states_time", "warm"]

# Longer texts are pastes; a question names its time at one of the ends or not at all.
_READ: Final = 4_000
_MOST: Final = 16  # times of one text: each costs a millisecond when it is new
_TOKEN: Final = re.compile(r"[^\W_]+")
_DIGIT: Final = re.compile(r"\d")
_DAY: Final = timedelta(days=1)

Granularity = Literal["day", "weekend", "week", "month", "season", "year", "decade", "span"]


class TimeRange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A half-open stretch of time in UTC; None is open to that side.

    ``granularity``: how finely it was named; ``span`` for what was put together ("between March and June").
    ``explicit``: a name of the calendar was written (a date, a month, a year), not a distance from today. ``first`` and
    ``last``: where ``text`` stands, as characters, half-open.
    """

    start: datetime | None
    end: datetime | None
    granularity: Granularity
    explicit: bool
    text: str
    first: int
    last: int

    def holds(self, at: datetime) -> bool:
        """Whether a moment lies in it."""
        return (self.start is None or self.start <= at) and (self.end is None or at < self.end)


class Times(msgspec.Struct, frozen=True, omit_defaults=True):
    """The ranges and the anchors of a text, by place."""

    ranges: tuple[TimeRange, ...] = ()
    anchors: tuple[Anchor, ...] = ()


# Words that name a time, less those that mostly mean something else.
_STATED: Final = gates() - {
    "may",
    "march",
    "mars",
    "fall",
    "spring",
    "été",
    "second",
    "lange",
    "an",
    "entre",
    "between",
}


def may_hold_time(tokens: frozenset[str], text: str) -> bool:
    """Whether a text of these lower-case words can name a time or an anchor at all: the gate before all else."""
    return not gates().isdisjoint(tokens) or not GATE.isdisjoint(tokens) or _DIGIT.search(text) is not None


def states_time(text: str) -> bool:
    """Whether a turn says when something is or was: a date, a weekday, "last week", "two years ago".

    On LoCoMo five of six turns that answer a "when" do, against one of six of all turns.
    """
    tokens = _TOKEN.findall(text[:_READ].lower())
    return not _STATED.isdisjoint(tokens) or any(
        len(one) == 4 and one[:2] in ("19", "20") and one.isdecimal() for one in tokens
    )


def find_times(text: str, *, now: datetime) -> Times:
    """Return the times that a text names; never raises, and reads at most the first 4,000 characters."""
    read_text = text[:_READ]
    lowered = lower(read_text)
    tokens = frozenset(_TOKEN.findall(lowered))
    found = anchors(read_text, lowered, tokens)
    zone = now.tzinfo or UTC
    base = now.replace(tzinfo=None)
    ranges: tuple[TimeRange, ...] = ()
    for words in spoken(tokens, digits=_DIGIT.search(lowered) is not None):
        ranges = tuple(_ranges(read_text, lowered, grammar(words), base, zone))
        if ranges:
            break
    free = tuple(one for one in found if not any(one.first < r.last and r.first < one.last for r in ranges))
    return Times(ranges=ranges, anchors=free)


def lower(text: str) -> str:
    """Return a text in lower case, letter for letter: a few letters ("İ") would grow, and stay as they are."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)


def warm(languages: tuple[str, ...] = ("en",)) -> None:
    """Load the library and its languages, so that the first question with a time does not wait for it."""
    for language in languages:
        read("2 january 2020", language, datetime(2020, 1, 3, tzinfo=UTC).date())


def _ranges(text: str, lowered: str, rules: Grammar, base: datetime, zone: tzinfo) -> list[TimeRange]:
    named = names(lowered, rules)[:_MOST]
    found: list[TimeRange] = []
    made: TimeRange | None
    skip = False
    for place, one in enumerate(named):
        if skip:
            skip = False
            continue
        try:
            after = named[place + 1] if place + 1 < len(named) else None
            pair = None if after is None else _pair(lowered, rules, one, after, base)
            if after is not None and pair is not None:
                (start, end), first, skip = pair, _first(lowered, one, rules), True
                made = _range(text, first, after.end, start, end, "span", _explicit(after), zone)
            else:
                made = _single(text, lowered, rules, one, base, zone)
        except (OverflowError, ValueError):
            continue  # beyond the years 1 to 9999: no event is there
        if made is not None:
            # "the Sunday before 25 October": the Sunday was no time of its own.
            found = [earlier for earlier in found if earlier.last <= made.first]
            found.append(made)
    return found


def _pair(lowered: str, rules: Grammar, one: Named, after: Named, base: datetime) -> tuple[datetime, datetime] | None:
    """Read "between March and June" and "from 3 to 9 June": one range, when the words between say so."""
    between, prefix = lowered[one.end : after.start], (max(0, one.start - 30), one.start)
    both = rules.both.match(between) and rules.between.search(lowered, *prefix)
    to = rules.to.match(between) and (rules.start.search(lowered, *prefix) or not between.strip("–—- "))
    if not both and not to:
        return None
    later = meaning(after, rules.words, base)
    if later is None:
        return None
    # Without a year of its own the first date is the last one before the second.
    clock = base if _has_year(one) else max(later[1] - _DAY, later[0])
    earlier = meaning(one, rules.words, clock)
    if earlier is None or earlier[0] >= later[1]:
        return None
    return earlier[0], later[1]


def _single(text: str, lowered: str, rules: Grammar, one: Named, base: datetime, zone: tzinfo) -> TimeRange | None:
    period = meaning(one, rules.words, base)
    if period is None:
        return None
    explicit = _explicit(one)
    window = (max(0, one.start - 40), one.start)
    part = rules.part.search(lowered, *window)
    first = one.start
    if part is not None and period[2] in ("month", "year", "season", "week"):
        period, first = _part(period, rules.words, part.lastgroup or "p0"), part.start()
        window = (max(0, first - 40), first)
    offset = rules.offset.search(lowered, *window)
    if offset is not None and one.form not in ("ago", "window"):
        moved = _offset(period, offset, rules.words)
        if moved is not None:
            return _range(text, offset.start(), one.end, moved[0], moved[1], moved[2], explicit, zone)
    if one.form in ("ago", "window"):
        return _range(text, first, one.end, *period, explicit, zone)
    start: datetime | None
    end: datetime | None
    start, end, granularity = period
    for pattern, opened in (
        (rules.since, (start, None)),
        (rules.before, (None, start)),
        (rules.after, (end, None)),
        (rules.until, (None, end)),
    ):
        match = pattern.search(lowered, *window)
        if match is None:
            continue
        start, end = opened
        return _range(text, match.start(), one.end, start, end, "span", explicit, zone)
    return _range(text, first, one.end, start, end, granularity, explicit, zone)


def _part(period: Period, words: Words, group: str) -> Period:
    """Return the early, middle or late third, or a half, of a period."""
    start, end, _ = period
    part = list(words.parts.values())[int(group[1:])]
    length = end - start
    low, high = {"early": (0, 3), "mid": (3, 7), "late": (7, 10), "half1": (0, 5), "half2": (5, 10)}[part]
    day = timedelta(days=1)
    return start + length * low // 10 // day * day, start + length * high // 10 // day * day, "span"


def _offset(period: Period, offset: re.Match[str], words: Words) -> Period | None:
    """Return "the week before", "the Sunday after", "two weeks before" or "the week of" a period."""
    start, end, _ = period
    unit, count = offset["unit"], offset["n"]
    number = 0 if count is None else int(count) if count.isdecimal() else words.numbers[count]
    if offset["of"]:
        return around(start, "week") if unit == words.week and count is None else None
    forward = offset["after"] is not None
    if unit in words.weekdays:
        return weekday(words.weekdays[unit], end - _DAY if forward else start, "next" if forward else "last")
    if unit == words.weekend:
        saturday = weekday("saturday", end - _DAY, "next") if forward else weekday("saturday", start - _DAY, "last")
        return saturday[0], saturday[0] + 2 * _DAY, "weekend"
    name = words.units.get(unit, "hour")
    if name == "hour":
        return None
    far = step(name, number or 1)
    if number == 0:
        return (end, end + far, name) if forward else (start - far, start, name)
    return around(end - _DAY + far if forward else start - far, name)


def _explicit(one: Named) -> bool:
    return one.form in ("dm", "md", "days_of", "nth", "into_month") or _has_year(one)


def _has_year(one: Named) -> bool:
    return one.form in ("iso", "numeric", "my", "season_year", "into_year") or any(
        year in one.groups for year in ("dm_year", "md_year", "in_year", "days_year")
    )


def _first(lowered: str, one: Named, rules: Grammar) -> int:
    window = (max(0, one.start - 30), one.start)
    match = rules.between.search(lowered, *window) or rules.start.search(lowered, *window)
    return one.start if match is None else match.start()


def _range(
    text: str,
    first: int,
    last: int,
    start: datetime | None,
    end: datetime | None,
    granularity: str,
    explicit: bool,
    zone: tzinfo,
) -> TimeRange:
    return TimeRange(
        start=None if start is None else start.replace(tzinfo=zone).astimezone(UTC),
        end=None if end is None else end.replace(tzinfo=zone).astimezone(UTC),
        granularity=granularity,  # type: ignore[arg-type]
        explicit=explicit,
        text=text[first:last],
        first=first,
        last=last,
    )
