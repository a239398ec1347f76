"""The resident index of one scope: all events of a user, or of one conversation, with their vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from copy import deepcopy
from time import perf_counter
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import structs

from server.errors import InvalidInput
from server.retrieval import analysis, fusion, lexical, signals
from server.retrieval.plan import Plan
from server.retrieval.postings import MOST_ROWS, Postings
from server.retrieval.ranking import Evidence, Hit, Ranking
from server.retrieval.turns import Entry, Key, Mask, Turns, View
from server.retrieval.vectors import Vectors

# A question's words are stemmed in at most so many of the scope's languages, the most spoken first.
_MOST_LANGUAGES: Final = 4


class Index:
    """Events added in order, searched exactly. Not for use by several threads at once."""

    def __init__(self) -> None:
        self.turns = Turns()
        self._postings = Postings()
        self._vectors = Vectors()
        self._languages: Counter[str] = Counter()
        self._language_of: dict[int, str] = {}

    def __len__(self) -> int:
        return self.turns.live

    def __contains__(self, key: Key) -> bool:
        return key in self.turns.rows_of

    @property
    def nbytes(self) -> int:
        """Bytes held, in round figures. Reads every term: for accounting, not for every request."""
        return self.turns.nbytes + self._postings.nbytes + self._vectors.nbytes + 100 * len(self._language_of)

    def add(self, entries: Sequence[Entry], vectors: npt.ArrayLike | None = None) -> None:
        """Index events, each conversation's in ascending order of seq; time and memory go with their text alone.

        ``vectors``: one a row, in the same order; they may come later, by `embed`. Raises InvalidInput, and adds
        nothing, for events out of order or vectors of another shape than those before.
        """
        if not entries:
            return
        self.turns.check(entries)
        if len(self.turns) + len(entries) > MOST_ROWS:
            raise InvalidInput(f"An index holds at most {MOST_ROWS} events.")
        if vectors is not None:
            self._vectors.check(len(entries), vectors)
        rows = []
        for entry in entries:
            language = analysis.language_of(entry.text)
            terms = analysis.terms(entry.text, language)
            row = self.turns.add(entry, len(terms))
            self._postings.add(row, terms)
            if language != analysis.DEFAULT_LANGUAGE:
                self._language_of[row] = language
                self._languages[language] += 1
            rows.append(row)
        self._vectors.extend(len(rows))
        if vectors is not None:
            self._vectors.put(np.array(rows), vectors)

    def embed(self, keys: Sequence[Key], vectors: npt.ArrayLike) -> None:
        """Set the vectors of events; those that are not (or no longer) indexed are passed over."""
        known = [place for place, key in enumerate(keys) if key in self.turns.rows_of]
        if known:
            rows = np.array([self.turns.rows_of[keys[place]] for place in known])
            self._vectors.put(rows, np.asarray(vectors, np.float32)[known])

    def cosines(self, vector: npt.ArrayLike, keys: Sequence[Key]) -> npt.NDArray[np.float64]:
        """Return the cosine of a vector with each event's, NaN for one without. Raises KeyError for unknown ones."""
        rows = np.array([self.turns.rows_of[key] for key in keys], np.intp)
        return self._vectors.similarities(vector, rows)

    def without_vectors(self) -> Index:
        """Return a copy that shares nothing that changes, and has no vectors: to be searched by another model's."""
        vectors = Vectors()
        vectors.extend(len(self.turns))
        return deepcopy(self, {id(self._vectors): vectors})

    def remove(self, keys: Iterable[Key]) -> int:
        """Forget events, their terms and vectors, and return how many there were; what is left closes up."""
        rows = self.turns.remove(keys)
        if rows:
            self._postings.remove(rows)
            self._vectors.clear(np.array(rows))
            analysis.forget()
            for row in rows:
                language = self._language_of.pop(row, None)
                if language is not None:
                    self._languages[language] -= 1
        return len(rows)

    def search(
        self,
        question: str,
        vector: npt.ArrayLike | None,
        plan: Plan,
        k: int,
        *,
        within: Mask | View | None = None,
        only: Mask | None = None,
        times: Sequence[tuple[float, float]] = (),
    ) -> Ranking:
        """Rank the events that may hold a question's answer.

        ``vector``: the question's; None ranks without it, and then only events near a word of the question, of a
        session that has one, by a speaker that it names, or of its date. ``within``: what the search may see, by row
        (`Turns.select`), or a view of that which is kept until the index changes: what is outside neither is an answer
        nor counts for one. ``only``: what may be an answer.
        ``times``: see `signals.date`. Raises InvalidInput for a vector of another number of dimensions.
        """
        started = perf_counter()
        seconds = {}

        def lap(step: str) -> None:
            nonlocal started
            now = perf_counter()
            seconds[step], started = now - started, now

        view = within if isinstance(within, View) else View(self.turns, within)
        languages = [language for language, count in self._languages.most_common(_MOST_LANGUAGES) if count > 0]
        asked = signals.understand(question, view, self.turns.speakers, [analysis.DEFAULT_LANGUAGE, *languages])
        lap("understand")
        words = lexical.score(view, self._postings, asked.terms, plan)
        lap("lexical")
        dense = None
        if vector is not None and self._vectors.dimensions is not None and np.any(vector):
            similar = self._vectors.similarities(vector, None if view.whole else view.rows)
            dense = fusion.blend(view, similar, plan.before, plan.after)
        lap("dense")
        dated = signals.date(asked, view, times)
        allowed = None if only is None else np.flatnonzero(only[view.rows])
        legs = [words.window] if dense is None else [words.window, dense]
        if dated is not None and dated.any():
            legs.append(np.where(dated > 0, 1e-9 + words.window if dense is None else dense, 0.0))
        pool = fusion.pool(legs, allowed, view.size, plan.pool)
        features = signals.measure(asked, view, words, dense, dated, pool, plan) if len(pool) else {}
        scores = fusion.total(features, structs.asdict(plan.weights), len(pool))
        nothing = np.zeros(len(pool), np.bool_)
        if dense is None and len(pool):
            evidence = [words.sessions[view.column("session")[pool]], features["speaker"], features["date"]]
            nothing = (features["coverage"] == 0) & ~np.any(evidence, axis=0)
        found = Evidence(self.turns, view, only, pool, features, scores, nothing)
        best = found.best(k)
        hits = tuple(Hit(found.key(int(pool[place])), float(scores[place])) for place in best)
        lap("fusion")
        return Ranking(
            hits=hits,
            plan=plan,
            question=asked,
            dense=dense is not None,
            searched=view.size,
            pooled=len(pool),
            seconds=seconds,
            terms=words.terms,
            evidence=found,
            places=best,
        )
