"""Analysis on any text: it never fails, and a text is found by its own words."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from server.retrieval import analysis, dates


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_a_text_is_found_by_itself(text: str) -> None:
    language = analysis.language_of(text)
    indexed = set(analysis.terms(text, language))
    asked = analysis.query_terms(text, [language])
    assert all(set(term.terms) & indexed for term in asked)
    assert bool(asked) == bool(indexed)


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_dates_never_fail(text: str) -> None:
    for year, month, day in dates.dates_in(text):
        assert year is None or 1900 <= year <= 2099
        assert month is None or 1 <= month <= 12
        assert day is None or 1 <= day <= 31
