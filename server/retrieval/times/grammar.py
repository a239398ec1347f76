"""Where a text names a time, and which form the name has; what it means is resolved elsewhere."""

from __future__ import annotations

import re
from functools import cache
from typing import Final, NamedTuple

from server.retrieval.times.words import ENGLISH, LANGUAGES, Words

_YEAR: Final = r"(?:19|20)\d\d"
_TOKEN: Final = re.compile(r"[^\W_]+")


class Named(NamedTuple):
    """A time that is named: its span, its form, and the words in it that matter, lower case."""

    start: int
    end: int
    form: str
    groups: dict[str, str]


class Grammar(NamedTuple):
    """A language's patterns, over lower-case text. ``gate``: without one of these words or a digit, nothing matches."""

    words: Words
    gate: frozenset[str]
    names: re.Pattern[str]
    offset: re.Pattern[str]
    part: re.Pattern[str]
    since: re.Pattern[str]
    before: re.Pattern[str]
    after: re.Pattern[str]
    until: re.Pattern[str]
    between: re.Pattern[str]
    start: re.Pattern[str]
    both: re.Pattern[str]
    to: re.Pattern[str]


def _any(words: dict[str, str] | dict[str, int]) -> str:
    return "|".join(sorted(words, key=lambda word: (-len(word), word)))


def _compile(words: Words) -> Grammar:
    weekday, unit, season, days = _any(words.weekdays), _any(words.units), _any(words.seasons), _any(words.days)
    number = rf"(?P<n>\d{{1,3}}|{_any(words.numbers)})"
    month, short = words.months, rf"(?:{words.months}|(?:{words.short_months})\b\.?)"
    of = rf"(?:(?:{words.of}) )?"
    day = rf"(?P<day{{}}>[0-3]?\d)(?:{words.ordinal})?"
    named = f"{weekday}|{month}|{season}|{words.weekend}|{unit}"
    turn = f"(?P<last{{}}>{words.last})|(?P<this{{}}>{words.this})|(?P<next{{}}>{words.next})"
    ago = words.ago.format(n=number, unit=f"(?P<unit>{unit})")
    window = words.window.format(n=number.replace("<n>", "<wn>"), unit=f"(?P<wunit>{unit})")
    nth = _any(words.ordinals)
    into_season = words.into.replace("|of|", "|")  # "the name of the Winter Garden"
    forms = (
        r"(?P<iso>\d{4}-\d\d?-\d\d?)",
        r"(?P<numeric>\d\d?[/.]\d\d?[/.](?:\d{4}|\d\d)(?!\d))",
        rf"(?P<nth>{nth}) (?P<part>{words.week}|{words.weekend}) (?:{words.of}) (?P<in_month>{month})"
        rf"(?:,? (?:{words.of} )?(?P<in_year>{_YEAR}))?",
        rf"(?P<days_of>(?P<from_day>[0-3]?\d)(?:{words.ordinal})? ?(?:[–—-]|{words.to}) ?(?P<to_day>[0-3]?\d)"
        rf"(?:{words.ordinal})? ?{of}(?P<days_month>{short})(?:,? ?(?:{words.of} )?(?P<days_year>{_YEAR}))?)\b",
        rf"(?P<dm>{day.format('')} ?{of}(?P<dm_month>{short})(?:,? ?(?:{words.of} )?(?P<dm_year>{_YEAR}))?)\b",
        rf"(?P<md>(?P<md_month>{short}) (?:the )?{day.format('2')}\b(?!\d|:)(?:,? ?(?P<md_year>{_YEAR}))?)",
        rf"(?P<my>(?P<my_month>{short}),? ?(?:{words.of} )?(?P<my_year>{_YEAR}))",
        rf"(?P<ago>{ago})",
        rf"(?P<window>{window})",
        rf"(?P<days>{days})",
        rf"(?P<turned>(?:{turn.format('', '', '')}) (?P<what>{named}))",
        rf"(?P<turned_after>(?P<what2>{named}) (?:{turn.format('2', '2', '2')}))",
        rf"(?P<season_year>(?P<season>{season}) (?:of |de |del |des )?(?P<season_in>{_YEAR}))",
        rf"(?:(?:{into_season}) (?:the |la |el )?|\bl')(?P<into_season>{season})"
        rf"(?! (?:(?:of|de|del|des) )?{_YEAR})(?! (?:{words.last}|{words.this}|{words.next}))",
        rf"(?P<into_month>{month})",
        rf"(?P<into_year>{_YEAR})",
        rf"(?P<weekday>{weekday})",
    )
    gate = "|".join((month, words.short_months, weekday, unit, season, days, words.weekend, words.between))
    ends = r"(?<!\w)(?:{}) (?:the |le |el |dem |der )?$"
    return Grammar(
        words=words,
        gate=frozenset(_TOKEN.findall(gate)) - words.telling - {"a", "an", "this", "de", "d"},
        names=re.compile(rf"(?<!\w)(?<!\d-)(?:{'|'.join(forms)})(?![\w-])"),
        offset=re.compile(
            rf"(?<!\w)(?:{number} )?(?P<unit>{unit}|{weekday}|{words.weekend}) "
            rf"(?:(?P<before>{words.before})|(?P<after>{words.after})|(?P<of>of|vom|du|del)) (?:the |le |el |dem )?$"
        ),
        part=re.compile("|".join(rf"(?P<p{i}>(?<!\w)(?:{part}) ?$)" for i, part in enumerate(words.parts))),
        since=re.compile(ends.format(words.since)),
        before=re.compile(ends.format(words.before)),
        after=re.compile(ends.format(words.after)),
        until=re.compile(ends.format(words.until)),
        between=re.compile(ends.format(words.between)),
        start=re.compile(ends.format(words.start)),
        both=re.compile(rf"^ (?:{words.both}) (?:the )?$"),
        to=re.compile(rf"^(?: ?[–—-] ?| (?:{words.to}) (?:the |le |el )?)$"),
    )


@cache
def grammar(words: Words) -> Grammar:
    """Return the compiled patterns of a language."""
    return _compile(words)


@cache
def gates() -> frozenset[str]:
    """Return every word of every language without one of which (and without a digit) no time can be named."""
    return frozenset().union(*(grammar(words).gate for words in LANGUAGES))


def spoken(tokens: frozenset[str], *, digits: bool) -> list[Words]:
    """Return the languages whose times may be in a text of these words, the likeliest first."""
    possible = [words for words in LANGUAGES if digits or not grammar(words).gate.isdisjoint(tokens)]
    telling = {words.code: len(words.telling & tokens) for words in possible}
    possible.sort(key=lambda words: (-telling[words.code], LANGUAGES.index(words)))
    return possible if possible else [ENGLISH] if digits else []


def names(lowered: str, rules: Grammar) -> list[Named]:
    """Return the times that a lower-case text names, by place; "may" and a bare year only where a time fits."""
    found = []
    for match in rules.names.finditer(lowered):
        groups = {name: value for name, value in match.groupdict().items() if value is not None}
        form = next(form for form in _FORMS if form in groups)
        start = match.start(form) if form != "nth" else match.start()
        if form in ("into_month", "into_year") and not _introduced(lowered, start, match.end(), rules):
            continue
        if form == "weekday" and _repeats(lowered, start):
            continue
        found.append(Named(start, match.end(), form, groups))
    return found


_FORMS: Final = re.findall(
    r"\w+",
    "iso numeric nth days_of dm md my ago window days turned turned_after season_year into_season into_month into_year "
    "weekday",
)
_REPEATS: Final = re.compile(r"(?:every|each|jeden|chaque|cada|todos los|tous les) $")


@cache
def _introduction(words: Words) -> re.Pattern[str]:
    parts = "|".join(words.parts)
    return re.compile(
        rf"(?<!\w)(?:(?:{words.into}|{words.last}|{words.next}|{words.this}) (?:the |year )?|(?:{parts}) ?|l')$"
    )


@cache
def _range_ends(words: Words) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what stands before the second and behind the first end of a range: the other end, and "to" or "and"."""
    end, link = rf"(?:{words.months}|\d)", rf"(?:{words.to}|{words.both})"
    return re.compile(rf"{end} {link} $"), re.compile(rf" {link} (?:{end})")


def _introduced(lowered: str, start: int, end: int, rules: Grammar) -> bool:
    """Whether a time fits here: behind "in", "since" and the like, or as one end of a range with another time."""
    if _introduction(rules.words).search(lowered, max(0, start - 30), start) is not None:
        return True
    before, after = _range_ends(rules.words)
    return before.search(lowered, max(0, start - 40), start) is not None or after.match(lowered, end) is not None


def _repeats(lowered: str, start: int) -> bool:
    return _REPEATS.search(lowered, max(0, start - 12), start) is not None
