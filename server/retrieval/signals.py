"""What a search knows of each event that it may answer with, one array a signal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from server.retrieval import analysis, dates
from server.retrieval.analysis import QueryTerm
from server.retrieval.dates import Date
from server.retrieval.fusion import standardise
from server.retrieval.lexical import Lexical
from server.retrieval.plan import Plan
from server.retrieval.turns import Rows, View

Floats = npt.NDArray[np.float64]


class Question(Struct, frozen=True):
    """A question as it is understood: its telling words, the speakers of the scope that it names, its dates."""

    text: str
    terms: tuple[QueryTerm, ...]
    speakers: tuple[int, ...]
    dates: tuple[Date, ...]


def understand(text: str, view: View, speakers: Sequence[str], languages: Sequence[str]) -> Question:
    """Read a question against a view; ``speakers``: names by number, folded.

    A named speaker is matched against who speaks, not against the text: in a chat a name is mostly said by the other.
    """
    terms = analysis.query_terms(text, languages)
    said = {term.word for term in terms}
    heard = np.bincount(view.column("speaker") + 1, minlength=len(speakers) + 1)[1:]
    names_of = {
        number: {word.text for word in analysis.words(speakers[number])} for number in np.flatnonzero(heard).tolist()
    }
    named = [number for number, names in names_of.items() if any(len(name) > 1 and name in said for name in names)]
    names = {name for number in named for name in names_of[number]}
    # All of them named tell none of them apart, but the names are still no words to look for.
    telling = [term for term in terms if term.word not in names] or terms
    return Question(text, tuple(telling), tuple(named), tuple(dates.dates_in(text)))


def measure(
    question: Question,
    view: View,
    lexical: Lexical,
    dense: Floats | None,
    dated: Floats,
    pool: Rows,
    plan: Plan,
) -> dict[str, Floats]:
    """Return every signal over the pool, by the names of the plan's weights.

    ``dense``: similarities with the question over the view, blended with neighbours; None without a query vector.
    ``dated``: how well each event of the view fits the question's dates.
    """
    session = view.column("session")
    spoken = np.unique(session[pool])
    found = {
        "lexical": standardise(lexical.window[pool]),
        "lexical_session": _by_session(lexical.sessions, spoken)[session[pool]],
        "coverage": lexical.coverage[pool],
        "coverage_turn": lexical.turn[pool],
    }
    if dense is not None:
        best = np.full(view.sessions, -np.inf)
        known = ~np.isnan(dense)
        np.maximum.at(best, session[known], dense[known])
        best[np.isinf(best)] = np.nan
        found["dense"] = standardise(dense[pool])
        found["dense_session"] = _by_session(best, spoken)[session[pool]]
    asks = np.append(view.column("asks"), False)
    lengths = view.column("length")[pool]
    return found | {
        "speaker": _speaker(question, view)[pool],
        "length": np.minimum(lengths, plan.full_length) / plan.full_length,
        "asks": asks[pool].astype(np.float64),
        "answers": asks[view.steps.before(1)[pool]].astype(np.float64),
        "date": dated[pool],
        "recency": 0.5 ** ((view.size - 1 - pool) / plan.half_life) if plan.weights.recency else np.zeros(len(pool)),
    }


def _by_session(values: Floats, spoken: npt.NDArray[np.int32]) -> Floats:
    standardised = np.zeros(len(values))
    standardised[spoken] = standardise(values[spoken])
    return standardised


def _speaker(question: Question, view: View) -> Floats:
    speaker = view.column("speaker")
    is_named = np.zeros(int(speaker.max(initial=-1)) + 2, np.bool_)  # the last is for -1: nobody
    is_named[list(question.speakers)] = True
    named = is_named[speaker]
    # Where every turn is by someone named, or none, who speaks says nothing.
    if not named.any() or named[speaker >= 0].all():
        return np.zeros(view.size)
    return np.asarray(named, np.float64)


def date(question: Question, view: View, times: Sequence[tuple[float, float]]) -> Floats:
    """Return how well each event of the view fits the question's dates, from 0 to 1.

    ``times``: half-open ranges, seconds since 1970, that the question is about; they replace the dates it names.
    """
    at = view.column("at")
    if not times:
        return dates.match(question.dates, at)
    inside = np.zeros(len(at))
    for start, end in times:
        inside[(at >= start) & (at < end)] = dates.DAY
    return inside
