"""Time expressions against a clock that stands on Thursday, 20 July 2023."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.retrieval.times import TimeRange, find_times, states_time

NOW = datetime(2023, 7, 20, 12, tzinfo=UTC)
SETTINGS = settings(max_examples=200, derandomize=True, deadline=None, database=None)


def shown(one: TimeRange) -> str:
    start, end = (f"{at:%Y-%m-%d}" if at is not None else "" for at in (one.start, one.end))
    return f"{start}..{end}"


@pytest.mark.parametrize(
    ("text", "range_", "granularity"),
    [
        ("What did we decide yesterday?", "2023-07-19..2023-07-20", "day"),
        ("the day before yesterday", "2023-07-18..2023-07-19", "day"),
        ("What did John say last Tuesday?", "2023-07-18..2023-07-19", "day"),
        ("And last Thursday?", "2023-07-13..2023-07-14", "day"),  # today is one
        ("this Friday", "2023-07-21..2023-07-22", "day"),
        ("Who came two weeks ago?", "2023-07-03..2023-07-10", "week"),
        ("3 months ago", "2023-04-01..2023-05-01", "month"),
        ("last week", "2023-07-10..2023-07-17", "week"),
        ("last weekend", "2023-07-15..2023-07-17", "weekend"),
        ("What happened in May?", "2023-05-01..2023-06-01", "month"),
        ("in December", "2022-12-01..2023-01-01", "month"),
        ("last May", "2023-05-01..2023-06-01", "month"),
        ("last July", "2022-07-01..2022-08-01", "month"),
        ("next month", "2023-08-01..2023-09-01", "month"),
        ("in 2022", "2022-01-01..2023-01-01", "year"),
        ("last year's trip", "2022-01-01..2023-01-01", "year"),
        ("last summer", "2022-06-01..2022-09-01", "season"),
        ("during the summer", "2023-06-01..2023-09-01", "season"),
        ("in winter 2021", "2021-12-01..2022-03-01", "season"),
        ("on 7 May 2023", "2023-05-07..2023-05-08", "day"),
        ("on May 7th, 2023", "2023-05-07..2023-05-08", "day"),
        ("on December 1,2022", "2022-12-01..2022-12-02", "day"),
        ("on Feb 3rd", "2023-02-03..2023-02-04", "day"),
        ("the 29th of February", "2020-02-29..2020-03-01", "day"),
        ("2023-05-07", "2023-05-07..2023-05-08", "day"),
        ("5/7/2023", "2023-05-07..2023-05-08", "day"),
        ("between March and June", "2023-03-01..2023-07-01", "span"),
        ("between November and February", "2022-11-01..2023-03-01", "span"),
        ("from March to June 2021", "2021-03-01..2021-07-01", "span"),
        ("between August 11 and August 15 2022", "2022-08-11..2022-08-16", "span"),
        ("3-9 June", "2023-06-03..2023-06-10", "span"),
        ("in the last three weeks", "2023-06-29..2023-07-20", "span"),
        ("the week before 9 June", "2023-06-02..2023-06-09", "week"),
        ("the Sunday before October 25, 2022", "2022-10-23..2022-10-24", "day"),
        ("last weekend before April 10, 2023", "2023-04-08..2023-04-10", "weekend"),
        ("two weeks before August 11, 2022", "2022-07-25..2022-08-01", "week"),
        ("the day after 31 December 2022", "2023-01-01..2023-01-02", "day"),
        ("the week of 9 June", "2023-06-05..2023-06-12", "week"),
        ("the first weekend of August", "2022-08-06..2022-08-08", "weekend"),
        ("in the second week of November 2022", "2022-11-08..2022-11-15", "week"),
        ("at the beginning of November 2022", "2022-11-01..2022-11-10", "span"),
        ("the first half of September 2022", "2022-09-01..2022-09-16", "span"),
        ("mid-June", "2023-06-10..2023-06-22", "span"),
        ("since March", "2023-03-01..", "span"),
        ("before June", "..2023-06-01", "span"),
        ("after 9 June", "2023-06-10..", "span"),
        ("by July 10, 2022", "..2022-07-11", "span"),
        ("Was habe ich letzten Dienstag gesagt?", "2023-07-18..2023-07-19", "day"),
        ("vor zwei Wochen", "2023-07-03..2023-07-10", "week"),
        ("am 7. Mai 2023", "2023-05-07..2023-05-08", "day"),
        ("am 07.05.2023", "2023-05-07..2023-05-08", "day"),
        ("zwischen März und Juni", "2023-03-01..2023-07-01", "span"),
        ("letzten Sommer", "2022-06-01..2022-09-01", "season"),
        ("seit Januar", "2023-01-01..", "span"),
        ("vor dem 9. Juni", "..2023-06-09", "span"),
        ("Qu'est-ce que j'ai dit mardi dernier ?", "2023-07-18..2023-07-19", "day"),
        ("la semaine dernière", "2023-07-10..2023-07-17", "week"),
        ("il y a trois jours", "2023-07-17..2023-07-18", "day"),
        ("le 7 mai 2023", "2023-05-07..2023-05-08", "day"),
        ("l'été dernier", "2022-06-01..2022-09-01", "season"),
        ("entre mars et juin", "2023-03-01..2023-07-01", "span"),
        ("¿Qué dije el martes pasado?", "2023-07-18..2023-07-19", "day"),
        ("hace dos semanas", "2023-07-03..2023-07-10", "week"),
        ("el 7 de mayo de 2023", "2023-05-07..2023-05-08", "day"),
        ("desde marzo", "2023-03-01..", "span"),
        ("el verano pasado", "2022-06-01..2022-09-01", "season"),
    ],
)
def test_times_are_resolved_against_the_conversations_clock(text: str, range_: str, granularity: str) -> None:
    found = find_times(text, now=NOW).ranges
    assert [(shown(one), one.granularity) for one in found] == [(range_, granularity)]
    assert all(one.text == text[one.first : one.last] and one.text for one in found)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "You may go now.",
        "What did April say to May?",
        "They march on.",
        "every Tuesday",
        "We meet on Tuesdays",
        "room 2022",
        "31 February 2023",
        "the fall of Rome",
        "the address of the Winter Garden Theatre",
        "Call me before nine.",
        "Have I said this before?",
        "What are the new shoes used for?",
        "先週何を話しましたか",  # a language that is not read shows nothing
    ],
)
def test_what_is_no_time_shows_none(text: str) -> None:
    found = find_times(text, now=NOW)
    assert found.ranges == ()
    assert found.anchors == ()


def test_a_name_of_the_calendar_is_explicit_and_a_distance_from_today_is_not() -> None:
    def explicit(text: str) -> list[bool]:
        return [one.explicit for one in find_times(text, now=NOW).ranges]

    for text in ("in May 2023", "on 2023-05-07", "in 2022", "in May", "on 7 May", "the week before 9 June"):
        assert explicit(text) == [True]
    for text in ("last Tuesday", "two weeks ago", "last summer", "in the last three weeks", "yesterday"):
        assert explicit(text) == [False]


@pytest.mark.parametrize(
    ("text", "relation", "phrase"),
    [
        ("What did she do before we moved?", "before", "we moved"),
        ("How did Ada feel after the accident?", "after", "the accident"),
        ("The first time we met, what did I wear?", "first", "we met"),
        ("When was the last time that I called Jo?", "last", "I called Jo"),
        ("What has changed since Ada left the team?", "since", "Ada left the team"),
        ("Was hat sie getan, nachdem wir umgezogen sind?", "after", "wir umgezogen sind"),
        ("Das erste Mal, als wir uns trafen", "first", "wir uns trafen"),
        ("la première fois que nous avons dîné", "first", "nous avons dîné"),
        ("¿Qué pasó después de la boda?", "after", "la boda"),
    ],
)
def test_events_that_a_text_dates_by_are_anchors(text: str, relation: str, phrase: str) -> None:
    [anchor] = find_times(text, now=NOW).anchors
    assert (anchor.relation, anchor.phrase) == (relation, phrase)
    assert text[anchor.first : anchor.last].endswith(phrase)


def test_a_date_is_no_anchor() -> None:
    found = find_times("What happened after 9 June 2022?", now=NOW)
    assert len(found.ranges) == 1
    assert found.anchors == ()


def test_days_are_those_of_the_clocks_zone() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=10)))
    [one] = find_times("yesterday", now=east).ranges
    assert one.start == datetime(2023, 7, 18, 14, tzinfo=UTC)
    assert one.end == datetime(2023, 7, 19, 14, tzinfo=UTC)
    assert find_times("yesterday", now=NOW.replace(tzinfo=None)) == find_times("yesterday", now=NOW)


@pytest.mark.parametrize("year", [1, 2, 9999])
def test_the_ends_of_the_calendar_name_nothing(year: int) -> None:
    now = datetime(year, 1, 1, tzinfo=UTC)
    for text in ("last year", "a decade ago", "next month", "two weeks before 1 January", "in winter", "last weekend"):
        find_times(text, now=now)


def test_a_range_is_half_open() -> None:
    [one] = find_times("in May 2023", now=NOW).ranges
    assert one.start is not None
    assert one.end is not None
    assert one.holds(one.start)
    assert not one.holds(one.end)


PIECES = (
    "last next this the week weekend before after between and from to May march 7 7th 31 2023 02/30/2023 2023-13-45 "
    "ago two weeks Tuesday summer of in since until , - – vor zwei Wochen il y a derniers jours hace el pasado first "
    "time 99999999999 İ ﬁ \u0000 \ud800 🙂"
)
WORDS = st.sampled_from(PIECES.split(" "))


@SETTINGS
@given(
    st.one_of(st.text(st.characters(exclude_categories=[]), max_size=80), st.lists(WORDS, max_size=12).map(" ".join))
)
def test_any_text_is_read_the_same_way_twice_and_never_fails(text: str) -> None:
    found = find_times(text, now=NOW)
    assert found == find_times(text, now=NOW)
    for one in found.ranges:
        assert one.text == text[one.first : one.last]
        assert one.start is None or one.end is None or one.start < one.end
    for earlier, later in zip(found.ranges, found.ranges[1:], strict=False):
        assert earlier.last <= later.first


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["1 May 2003 ", "between 1 may and ", "the week before ", "before a", "a", "1/", '"', "İ"]
)
def test_a_hostile_text_is_read_in_bounded_time(piece: str) -> None:
    find_times(piece * (100_000 // len(piece)), now=NOW)


def test_turns_that_state_a_time_are_told() -> None:
    assert states_time("We went last week.")
    assert states_time("It was in 2019.")
    assert states_time("Das war vorgestern.")
    assert not states_time("You may march on, said May.")
    assert not states_time("")
