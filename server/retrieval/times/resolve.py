"""What a named time means, from the conversation's own clock: naive local times, half-open.

Calendar dates and distances ("7 May", "im Mai 2023", "3 weeks ago") are read by dateparser, which knows month names,
orders of day and month, and which year is meant; what it has no notion of (seasons, weekends, the n-th week of a month)
is counted here. Seasons are the meteorological ones of the northern hemisphere; weeks begin on Monday.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Final

from dateutil.relativedelta import relativedelta

from server.retrieval.times.grammar import Named
from server.retrieval.times.words import Words

Period = tuple[datetime, datetime, str]
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SEASONS: Final = {"spring": 3, "summer": 6, "autumn": 9, "winter": 12}
_DAY: Final = timedelta(days=1)
_NUMBERED: Final = {"hour": "day", "day": "day", "week": "week", "month": "month", "year": "year", "decade": "decade"}


def around(at: datetime, granularity: str) -> Period:
    """Return the day, week, month, year or decade that holds a moment."""
    day = datetime.combine(at.date(), time())
    if granularity == "week":
        monday = day - timedelta(days=day.weekday())
        return monday, monday + 7 * _DAY, granularity
    if granularity == "month":
        first = day.replace(day=1)
        return first, first + relativedelta(months=1), granularity
    if granularity == "year":
        first = day.replace(month=1, day=1)
        return first, first + relativedelta(years=1), granularity
    if granularity == "decade":
        first = day.replace(year=max(1, day.year // 10 * 10), month=1, day=1)
        return first, first + relativedelta(years=10), granularity
    return day, day + _DAY, "day"


def meaning(named: Named, words: Words, base: datetime) -> Period | None:
    """Return the period that is named, None when there is no such date ("31 February")."""
    groups, form = named.groups, named.form
    if form in ("iso", "numeric", "dm", "md", "my"):
        found = read(groups[form].replace("sept ", "sep "), words.code, base.date())
        return None if found is None else around(found, "month" if form == "my" else "day")
    if form == "into_month":
        found = read(groups[form], words.code, base.date())
        return None if found is None else around(found, "month")
    if form == "into_year":
        return around(datetime(int(groups[form]), 1, 1), "year")  # noqa: DTZ001 - local, without a zone
    if form == "days":
        found = read(words.days[groups[form]], "en", base.date())
        return None if found is None else around(found, "day")
    if form == "ago":
        unit = words.units[groups["unit"]]
        found = read(f"{_number(groups['n'], words)} {unit}s ago", "en", base.date())
        return None if found is None else around(found, _NUMBERED[unit])
    if form == "window":
        count = _number(groups["wn"], words) if "wn" in groups else 1
        begun = base - step(words.units[groups["wunit"]], count)
        return around(begun, "day")[0], base + timedelta(microseconds=1), "span"
    if form == "days_of":
        return _days_of(groups, words, base)
    if form in ("turned", "turned_after"):
        return _turned(groups, words, base)
    if form in ("season_year", "into_season"):
        name = words.seasons[groups["season" if form == "season_year" else form]]
        return _season(name, base, int(groups["season_in"]) if form == "season_year" else None, "this")
    if form == "weekday":
        return weekday(words.weekdays[groups[form]], base, "last")
    return _nth(groups, words, base)


@lru_cache(maxsize=1024)
def read(text: str, language: str, base: date) -> datetime | None:
    """Read a date by dateparser; None when it is none. Loading the library takes 0.2 s, once."""
    from dateparser.date import DateDataParser  # here, since most processes never meet a date

    settings = {
        "RELATIVE_BASE": datetime.combine(base, time(12)),
        "PREFER_DATES_FROM": "past",
        "PREFER_DAY_OF_MONTH": "first",
        "PREFER_MONTH_OF_YEAR": "first",
        "TIMEZONE": "UTC",
        "RETURN_AS_TIMEZONE_AWARE": False,
    }
    try:
        found = DateDataParser(languages=[language], settings=settings).get_date_data(text).date_obj
    except (ValueError, OverflowError, TypeError, AttributeError, KeyError, IndexError):
        return None  # a library's surprise about strange words must not fail a search
    return None if found is None else found.replace(tzinfo=None)


def weekday(name: str, base: datetime, turn: str) -> Period:
    """Return the last such day before today, this week's, or the next after today."""
    today, number = around(base, "day")[0], _WEEKDAYS.index(name)
    if turn == "this":
        day = around(base, "week")[0] + timedelta(days=number)
    elif turn == "next":
        day = today + timedelta(days=(number - today.weekday() - 1) % 7 + 1)
    else:
        day = today - timedelta(days=(today.weekday() - number - 1) % 7 + 1)
    return day, day + _DAY, "day"


def weekend(base: datetime, turn: str) -> Period:
    """Return this week's Saturday and Sunday, the next week's, or the last ones that are over."""
    saturday = around(base, "week")[0] + 5 * _DAY
    if turn == "last":
        saturday -= 7 * _DAY
    elif turn == "next":
        saturday += 7 * _DAY
    return saturday, saturday + 2 * _DAY, "weekend"


def step(unit: str, count: int) -> relativedelta:
    """Return so many hours, days, weeks, months, years or decades."""
    if unit == "decade":
        return relativedelta(years=10 * count)
    return relativedelta(
        hours=count * (unit == "hour"),
        days=count * (unit == "day"),
        weeks=count * (unit == "week"),
        months=count * (unit == "month"),
        years=count * (unit == "year"),
    )


def _days_of(groups: dict[str, str], words: Words, base: datetime) -> Period | None:
    month = " ".join(groups[name] for name in ("days_month", "days_year") if name in groups)
    first = read(f"{groups['from_day']} {month}", words.code, base.date())
    last = read(f"{groups['to_day']} {month}", words.code, base.date())
    if first is None or last is None or first > last:
        return None
    return around(first, "day")[0], around(last, "day")[1], "span"


def _turned(groups: dict[str, str], words: Words, base: datetime) -> Period | None:
    what = groups.get("what") or groups["what2"]
    turn = next(turn for turn in ("last", "this", "next") if turn in groups or turn + "2" in groups)
    if what in words.weekdays:
        return weekday(words.weekdays[what], base, turn)
    if what in words.seasons:
        return _season(words.seasons[what], base, None, turn)
    if what in words.units:
        unit = words.units[what]
        if unit == "hour":
            return None
        found = read({"last": f"1 {unit} ago", "this": "today", "next": f"in 1 {unit}"}[turn], "en", base.date())
        return None if found is None else around(found, _NUMBERED[unit])
    if what == words.weekend:
        return weekend(base, turn)
    found = read(what, words.code, base.date())
    if found is None:
        return None
    month = around(found, "month")
    if turn == "last" and month[1] > base:
        return around(found - relativedelta(years=1), "month")
    if turn == "next" and month[0] <= base:
        return around(found + relativedelta(years=1), "month")
    return month


def _season(name: str, base: datetime, year: int | None, turn: str) -> Period:
    start = datetime(year or base.year, _SEASONS[name], 1)  # noqa: DTZ001
    if year is None:
        if start > base:
            start -= relativedelta(years=1)  # it has begun by now
        if turn == "last" and start + relativedelta(months=3) > base:
            start -= relativedelta(years=1)
        if turn == "next":
            start += relativedelta(years=1)
    return start, start + relativedelta(months=3), "season"


def _nth(groups: dict[str, str], words: Words, base: datetime) -> Period | None:
    date_text = f"{groups['in_month']} {groups['in_year']}" if "in_year" in groups else groups["in_month"]
    found = read(date_text, words.code, base.date())
    number = next((n for word, n in words.ordinals.items() if _same(word, groups["nth"])), None)
    if found is None or number is None:
        return None
    first, end, _ = around(found, "month")
    if groups["part"] == words.week:
        if number == -1:
            return end - 7 * _DAY, end, "week"
        start = first + (number - 1) * 7 * _DAY
        return start, min(start + 7 * _DAY, end), "week"
    saturday = first + timedelta(days=(5 - first.weekday()) % 7)
    if number == -1:
        saturday = end - _DAY - timedelta(days=((end - _DAY).weekday() - 5) % 7)
    else:
        saturday += (number - 1) * 7 * _DAY
    return saturday, saturday + 2 * _DAY, "weekend"


def _same(pattern: str, word: str) -> bool:
    return word == pattern or (pattern.startswith(word[:4]) and "[" in pattern)


def _number(word: str, words: Words) -> int:
    return int(word) if word.isdecimal() else words.numbers[word]
