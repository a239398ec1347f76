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
from server.retrieval.lexical import Lexical, cover
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
    names_of = view.keep("names", lambda: _names(view, speakers))
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
    dated: Floats | None,
    pool: Rows,
    plan: Plan,
) -> dict[str, Floats]:
    """Return every signal over the pool, by the names of the plan's weights.

    ``dense``: similarities with the question over the view, blended with neighbours; None without a query vector.
    ``dated``: how well each event of the view fits the question's dates; None without any.
    """
    session = view.column("session")[pool]
    spoken = np.flatnonzero(np.bincount(session))
    near, own = cover(view, lexical.found, pool, plan)
    found = {
        "lexical": standardise(lexical.window[pool]),
        "lexical_session": _by_session(lexical.sessions, spoken)[session],
        "coverage": near,
        "coverage_turn": own,
    }
    if dense is not None:
        found["dense"] = standardise(dense[pool])
        found["dense_session"] = _by_session(_best_of_sessions(view, dense), spoken)[session]
    asks = view.keep("asks", lambda: np.append(view.column("asks"), False))
    lengths = view.column("length")[pool]
    return found | {
        "speaker": _speaker(question, view, pool),
        "length": np.minimum(lengths, plan.full_length) / plan.full_length,
        "asks": asks[pool].astype(np.float64),
        "answers": asks[view.around(1)[1, pool]].astype(np.float64),
        "date": np.zeros(len(pool)) if dated is None else dated[pool],
        "recency": 0.5 ** ((view.size - 1 - pool) / plan.half_life) if plan.weights.recency else np.zeros(len(pool)),
    }


def _names(view: View, speakers: Sequence[str]) -> dict[int, set[str]]:
    """Return the words of each name of those who speak in a view."""
    heard = np.flatnonzero(_heard(view)[:-1]).tolist()
    return {number: {word.text for word in analysis.words(speakers[number])} for number in heard}


def _heard(view: View) -> npt.NDArray[np.intp]:
    """Return how often each speaker speaks in a view; the last is for -1: nobody."""
    return view.keep("heard", lambda: np.roll(np.bincount(view.column("speaker") + 1, minlength=1), -1))


def _best_of_sessions(view: View, values: Floats) -> Floats:
    """Return the greatest value of each session; NaN for one without any."""

    def parts() -> tuple[Rows | None, Rows, Rows]:
        session = view.column("session")
        order = np.argsort(session, kind="stable")
        ordered = session[order]
        first = np.flatnonzero(np.diff(ordered, prepend=-1))
        # Mostly one conversation comes after the other, and so do its sessions.
        return None if np.array_equal(order, np.arange(len(order))) else order, first, ordered[first]

    order, first, sessions = view.keep("sessions", parts)
    best = np.full(view.sessions, np.nan)
    best[sessions] = np.fmax.reduceat(values if order is None else values[order], first)
    return best


def _by_session(values: Floats, spoken: Rows) -> Floats:
    standardised = np.zeros(len(values))
    standardised[spoken] = standardise(values[spoken])
    return standardised


def _speaker(question: Question, view: View, pool: Rows) -> Floats:
    heard = _heard(view)
    is_named = np.zeros(len(heard))
    is_named[list(question.speakers)] = 1.0
    # Where every turn is by someone named, or none, who speaks says nothing.
    if not question.speakers or heard[:-1] @ is_named[:-1] == heard[:-1].sum():
        return np.zeros(len(pool))
    return np.asarray(is_named[view.column("speaker")[pool]])


def date(question: Question, view: View, times: Sequence[tuple[float, float]]) -> Floats | None:
    """Return how well each event of the view fits the question's dates, from 0 to 1; None where it names none.

    ``times``: half-open ranges, seconds since 1970, that the question is about; they replace the dates it names.
    """
    at = view.column("at")
    if not times:
        return dates.match(question.dates, at) if question.dates else None
    inside = np.zeros(len(at))
    for start, end in times:
        inside[(at >= start) & (at < end)] = dates.DAY
    return inside
