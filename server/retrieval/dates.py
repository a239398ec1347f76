"""Calendar dates that a question names, matched against when events occurred; needs no clock.

"In May 2023", "on 7 July", "am 3. Mai", "2023-05-07". What is relative ("last week") is not for here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from server.retrieval.analysis import LONGEST_QUERY, fold

_MONTHS: Final = """
january jan januar janvier enero gennaio janeiro januari
february feb februar fevrier febrero febbraio fevereiro februari
march mar marz mars marzo marco maart
april apr avril abril aprile
may mai mayo maggio maio mei
june jun juni juin junio giugno junho
july jul juli juillet julio luglio julho
august aug aout agosto augustus
september sep sept septembre septiembre settembre setembro
october oct oktober okt octobre octubre ottobre outubro
november nov novembre noviembre novembro
december dec dezember dez decembre diciembre dicembre dezembro
"""
_MONTH_OF: Final = {
    name: number for number, line in enumerate(_MONTHS.strip().splitlines(), 1) for name in line.split()
}
# These are other words too: a month only beside a number, or after one of these.
_DOUBTFUL: Final = frozenset({"may", "march", "mar", "mars", "jan", "mai", "sep", "dec", "set"})
_BEFORE_MONTHS: Final = """
in on of this last next since until till by before after during early mid late between and from to
im seit vor nach bis en de depuis avant apres em del nel fra il le
"""
_AFTER_THESE: Final = frozenset(_BEFORE_MONTHS.split())
_WORD: Final = re.compile(r"[^\W\d_]+|\d+")
_ISO: Final = re.compile(r"(?<!\d)((?:19|20)\d\d)-(\d\d)(?:-(\d\d))?(?!\d)")
_ORDINAL: Final = frozenset({"st", "nd", "rd", "th", "of", "de", "the", "er", "o"})
# A month is right in one of twelve; a day in one of thirty of those.
MONTH: Final = 0.6
DAY: Final = 1.0


class Date(NamedTuple):
    """What is known of a date."""

    year: int | None
    month: int | None
    day: int | None


def dates_in(question: str) -> list[Date]:
    """Return the calendar dates that a question names, in order, each once."""
    question = question[:LONGEST_QUERY]
    found = [Date(int(year), int(month), int(day) if day else None) for year, month, day in _ISO.findall(question)]
    words = [fold(word) for word in _WORD.findall(_ISO.sub(" ", question))]
    for place, word in enumerate(words):
        month = _MONTH_OF.get(word)
        if month is None:
            continue
        earlier = [one for one in words[max(0, place - 4) : place] if one not in _ORDINAL]
        later = [one for one in words[place + 1 : place + 5] if one not in _ORDINAL]
        day = _day(earlier[-1:]) or _day(later[:1])
        year = _year(later[:2])
        sure = day or year or (place > 0 and words[place - 1] in _AFTER_THESE)
        if sure or word not in _DOUBTFUL:
            found.append(Date(year, month, day))
    if not found:
        found = [Date(int(word), None, None) for word in words if _year([word])]
    return [one for one in dict.fromkeys(found) if one.month is None or 1 <= one.month <= 12]


def match(dates: Sequence[Date], at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how well each time (seconds since 1970) fits any of the dates: DAY, MONTH (or the year alone), or 0."""
    best = np.zeros(len(at))
    if not dates:
        return best
    days = np.floor(at / 86_400.0).astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    year_of = days.astype("datetime64[Y]").astype(np.int64) + 1970
    month_of = months.astype(np.int64) % 12 + 1
    day_of = (days - months).astype(np.int64) + 1
    for year, month, day in dates:
        fits = np.ones(len(at), np.bool_)
        if year is not None:
            fits &= year_of == year
        if month is not None:
            fits &= month_of == month
        best = np.maximum(best, np.where(fits, MONTH, 0.0))
        if day is not None:
            best = np.maximum(best, np.where(fits & (day_of == day), DAY, 0.0))
    return best


def _day(words: list[str]) -> int | None:
    return int(words[0]) if words and words[0].isdecimal() and len(words[0]) <= 2 and 1 <= int(words[0]) <= 31 else None


def _year(words: list[str]) -> int | None:
    return next((int(word) for word in words if re.fullmatch(r"(?:19|20)\d\d", word)), None)
