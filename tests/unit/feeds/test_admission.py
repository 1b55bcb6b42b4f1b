"""What was delivered is measured and judged, in words and numbers (R18, R28, R37, R41, R43, R44)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contract import Category, Contract, Integer, Label, Number, Timestamp
from holdfast.feeds import (
    Completeness,
    Composition,
    Expectations,
    Feed,
    Granularity,
    Limits,
    TopValueShare,
    Volume,
)
from holdfast.feeds.admission import NOTHING, History, Past, judge, worst
from holdfast.feeds.measurements import DAY_US, HOUR_US, DeliveryFacts, digest_of, measure
from holdfast.feeds.schema_drift import changed_columns, likely_renames
from holdfast.records import Level, Violation

CONTRACT = Contract(
    Integer("number"),
    Category("origin"),
    Number("delay", unit="min", missing="keep"),
    Timestamp("at", tz="America/New_York"),
    key="number",
    event_time="at",
    label=Label("late", delay="1d", missing="keep"),
    slices=("origin",),
)
MIDNIGHT = datetime(2013, 3, 4, 5, tzinfo=UTC)
NOW_US = round(MIDNIGHT.timestamp() * 1e6) + 10 * DAY_US


def _rows(hours: list[float], **columns: object) -> pl.DataFrame:
    times = [MIDNIGHT + timedelta(hours=hour) for hour in hours]
    frame = pl.DataFrame(
        {
            "number": range(len(hours)),
            "origin": ["EWR" if row % 2 else "JFK" for row in range(len(hours))],
            "delay": [float(row) for row in range(len(hours))],
            "at": pl.Series(times, dtype=pl.Datetime("us", "UTC")).dt.convert_time_zone("America/New_York"),
            "late": [row % 3 == 0 for row in range(len(hours))],
        }
    )
    return frame.with_columns(**columns)


DAY = [hour + half for hour in range(24) for half in (0.0, 0.0)]


def _judged(
    expects: Expectations,
    valid: pl.DataFrame,
    history: History = NOTHING,
    *,
    bad: pl.DataFrame | None = None,
    rows_expected: int | None = None,
    now_us: int = NOW_US,
) -> list[Violation]:
    feed = Feed("f", CONTRACT, expects=expects)
    quarantined = pl.DataFrame() if bad is None else bad
    reasons = {"delay|range": quarantined.height} if quarantined.height else {}
    facts = measure(CONTRACT, expects, valid, quarantined, reasons, rows_expected=rows_expected)
    return list(judge(feed, facts, history, now_us=now_us))


def _short(found: list[Violation]) -> list[tuple[str, str, Level]]:
    return [(each.check, each.subject, each.level) for each in found]


def test_a_feed_that_expects_nothing_finds_nothing() -> None:
    assert _judged(Expectations(), _rows(DAY)) == []


def test_another_number_of_rows_than_the_sender_declares_is_no_batch() -> None:
    (found,) = _judged(Expectations(), _rows(DAY), rows_expected=49)
    assert (found.check, found.level, found.observed, found.bound) == ("row_count", Level.CRITICAL, 48, 49)
    assert _judged(Expectations(), _rows(DAY), rows_expected=48) == []


def test_the_discard_budget_holds_for_all_and_for_each_slice() -> None:
    valid = pl.concat([_rows(DAY)] * 10)
    bad = valid.filter(origin="EWR").head(30).with_columns(_reasons=pl.lit(["delay|range"]))
    expects = Expectations(invalid_rows=Limits(warning=0.01, error=0.11, critical=0.9))
    assert _short(_judged(expects, valid, bad=bad)) == [
        ("invalid_rows", "", Level.WARNING),
        ("invalid_rows", "origin=EWR", Level.ERROR),
    ]
    small = bad.head(3)
    assert _short(_judged(expects, _rows([1, 2]), bad=small)) == [("invalid_rows", "", Level.ERROR)]


def test_volume_is_held_against_bounds_and_against_the_past() -> None:
    past = tuple(
        Past(f"d{day}", 48 + day % 3, round(MIDNIGHT.timestamp() * 1e6) - day * DAY_US)
        for day in range(1, 30)
    )
    expects = Expectations(rows=Volume(at_least=10, at_most=200, deviation=Limits(warning=0.2, error=0.5)))
    assert _short(_judged(expects, _rows([1.0] * 9))) == [("rows", "", Level.ERROR)]
    assert _short(_judged(expects, _rows([1.0] * 201))) == [("rows", "", Level.ERROR)]
    assert _judged(expects, _rows([1.0] * 50), History(past)) == []
    assert _short(_judged(expects, _rows([1.0] * 20), History(past))) == [("rows", "", Level.ERROR)]
    assert _judged(expects, _rows([1.0] * 20), History(past[:7])) == []
    wild = tuple(replace(each, rows=each.rows * (1 + number % 5)) for number, each in enumerate(past))
    assert _judged(expects, _rows([1.0] * 20), History(wild)) == []


def test_a_monday_is_compared_with_mondays() -> None:
    week = (100, 50, 50, 50, 50, 10, 10)
    monday = round(MIDNIGHT.timestamp() * 1e6)
    past = tuple(Past(f"d{day}", week[-day % 7], monday - day * DAY_US) for day in range(1, 60))
    expects = Expectations(rows=Volume(deviation=Limits(error=0.3), weekdays=True))
    assert _judged(expects, _rows([1.0] * 100), History(past)) == []
    (found,) = _judged(expects, _rows([1.0] * 50), History(past))
    assert "the last 8 Mondays is 100" in found.explanation


def test_missing_batches_are_counted_in_event_time() -> None:
    low_us = round(MIDNIGHT.timestamp() * 1e6)
    expects = Expectations(interval="1d", grace="2h", missing_batches=Limits(warning=1, error=3))
    for hours, level in ((5, None), (25, None), (30, Level.WARNING), (24 * 5, Level.ERROR)):
        found = _judged(expects, _rows(DAY), History(high_before_us=low_us - hours * HOUR_US))
        assert [each.level for each in found] == ([level] if level else [])
    assert _judged(expects, _rows(DAY), History(high_before_us=None)) == []


def test_a_hole_in_a_day_is_found_for_the_entity_that_it_is_in() -> None:
    expects = Expectations(completeness=Completeness("3h", by="origin", daily=True, quiet_hours=(0, 5)))
    assert _judged(expects, _rows(DAY)) == []
    hole = (pl.col("origin") != "EWR") | ~pl.col("at").dt.hour().is_between(10, 12)
    (found,) = _judged(expects, _rows(DAY).filter(hole))
    assert (found.check, found.subject, found.observed) == ("gap", "origin=EWR", 4 * 3600)
    assert "from 2013-03-04 14:00:00Z to 2013-03-04 18:00:00Z" in found.explanation
    late = _rows(DAY).filter(pl.col("at").dt.hour() >= 8)
    assert _judged(expects, late) == []  # 0 to 5 is quiet, 5 to 8 is 3 h
    assert _short(_judged(expects, late.filter(pl.col("at").dt.hour() < 20))) == [
        ("gap", "origin=EWR", Level.ERROR),
        ("gap", "origin=JFK", Level.ERROR),
    ]


def test_rows_without_an_entity_have_no_gaps_and_no_steps() -> None:
    """A load with a gap of an entity and one of rows without an entity ended in HF901: None was compared with a text."""
    none = pl.lit(None, pl.String).alias("origin")
    sparse = pl.concat(
        [_rows(DAY), _rows(DAY).filter(pl.col("at").dt.hour().is_in([7, 23])).with_columns(none)]
    )
    complete = Expectations(completeness=Completeness("3h", by="origin", quiet_hours=(0, 5)))
    assert _judged(complete, sparse) == []
    holes = sparse.filter(~pl.col("at").dt.hour().is_between(10, 12))
    assert {each.subject for each in _judged(complete, holes)} == {"origin=EWR", "origin=JFK"}
    step = Expectations(granularity=Granularity("1h", by="origin"))
    assert _short(_judged(step, sparse)) == _short(_judged(step, _rows(DAY)))
    every = _rows(DAY).with_columns(none)
    assert _judged(complete, every) == _judged(step, every) == []


def test_rows_of_another_day_are_found_also_when_clocks_change() -> None:
    expects = Expectations(completeness=Completeness("3h", daily=True, other_days=Limits(warning=1, error=3)))
    spring = _rows(DAY).with_columns(at=pl.col("at").dt.offset_by("6d"))  # 10 March 2013 has 23 hours
    assert _judged(expects, spring.unique("at", keep="first", maintain_order=True)) == []
    moved = _rows(DAY).with_columns(at=pl.col("at") + pl.duration(hours=1))
    assert _short(_judged(expects, moved)) == [("other_days", "at", Level.WARNING)]
    assert _short(_judged(expects, moved.with_columns(at=pl.col("at") + pl.duration(hours=1)))) == [
        ("other_days", "at", Level.ERROR)
    ]


def test_holes_in_a_sequence_are_found_in_a_batch_and_between_batches() -> None:
    expects = Expectations(sequence="number", sequence_gaps=Limits(warning=1, error=5))
    rows = _rows(DAY)
    assert _judged(expects, rows, History(sequence_before=-1)) == []
    (found,) = _judged(expects, rows.filter(~pl.col("number").is_in([5, 6])))
    assert (found.level, found.observed) == (Level.WARNING, 2)
    (found,) = _judged(expects, rows, History(sequence_before=-9))
    assert (found.level, found.observed) == (Level.ERROR, 8)
    assert _judged(expects, rows, History(sequence_before=500)) == []  # an older batch comes late


@pytest.mark.parametrize(("step", "level"), [("1h", None), ("10s", Level.CRITICAL), ("5min", Level.CRITICAL)])
def test_the_most_common_step_is_the_granularity(step: str, level: Level | None) -> None:
    expects = Expectations(granularity=Granularity(step, by="origin"))
    odd = _rows([*DAY[:20], *DAY[26:]])
    assert [each.level for each in _judged(expects, odd)] == ([level] if level else [])


def test_the_traffic_is_made_of_what_is_expected() -> None:
    rows = _rows([1.0] * 100, origin=pl.Series(["bot"] * 30 + ["web"] * 60 + ["app"] * 10))
    expects = Expectations(
        composition=(Composition("origin", at_most={"bot": 0.2}, at_least={"app": 0.1, "kiosk": 0.01}),),
        top_value_share=(TopValueShare("origin", Limits(warning=0.5, error=0.9)),),
    )
    assert _short(_judged(expects, rows)) == [
        ("composition", "origin=bot", Level.ERROR),
        ("composition", "origin=kiosk", Level.ERROR),
        ("top_value_share", "origin", Level.WARNING),
    ]


def test_what_cannot_be_known_yet_is_reported() -> None:
    expects = Expectations(early_labels="refuse", max_future="1h")
    rows = _rows(DAY)
    newest = rows["at"].dt.epoch("us").to_list()[-1]
    assert _judged(expects, rows, now_us=newest + DAY_US) == []
    assert _short(_judged(expects, rows, now_us=newest)) == [("early_labels", "late", Level.CRITICAL)]
    unlabelled = rows.with_columns(late=pl.lit(None, pl.Boolean))
    assert _judged(expects, unlabelled, now_us=newest) == []
    assert _short(_judged(expects, unlabelled, now_us=newest - 2 * HOUR_US)) == [
        ("max_future", "at", Level.ERROR)
    ]


def test_the_same_rows_are_the_same_in_any_order_and_any_other_rows_are_not() -> None:
    rows = _rows(DAY)
    assert digest_of(rows) == digest_of(rows.sample(fraction=1, shuffle=True, seed=7))
    assert digest_of(rows) != digest_of(rows.with_columns(delay=pl.col("delay") + 1e-9))
    assert digest_of(rows) != digest_of(pl.concat([rows, rows.head(1)]))
    anew = rows.with_columns(at=pl.col("at").dt.offset_by("1d"), number=pl.col("number") + 100)
    expects = Expectations(duplicates="stale")
    one, two = (measure(CONTRACT, expects, each, pl.DataFrame(), {}) for each in (rows, anew))
    assert one.rows_digest != two.rows_digest
    assert one.values_digest == two.values_digest != ""
    few = rows.with_columns(delay=pl.lit(0.0), late=pl.lit(value=True))
    assert measure(CONTRACT, expects, few, pl.DataFrame(), {}).values_digest == ""
    for history in (History(same_rows="d1"), History(same_values="d1")):
        assert _short(_judged(expects, rows, history)) == [("duplicates", "d1", Level.CRITICAL)]


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=30, unique=True),
    st.integers(-5, 5),
)
def test_holes_are_what_is_missing_between_the_ends(numbers: list[int], before: int) -> None:
    """Against counting one by one."""
    valid = _rows([0.0] * len(numbers), number=pl.Series(sorted(numbers)))
    expects = Expectations(sequence="number", sequence_gaps=Limits(error=1))
    found = _judged(expects, valid, History(sequence_before=before))
    first, last = min(numbers), max(numbers)
    holes = (last - first + 1 - len(numbers)) + max(0, first - before - 1)
    assert [each.observed for each in found] == ([holes] if holes else [])


def test_the_worst_level_decides() -> None:
    found = [Violation("rows", "", level, "") for level in (Level.WARNING, Level.CRITICAL, Level.ERROR)]
    assert worst(found) is Level.CRITICAL
    assert worst(found[:1]) is Level.WARNING
    assert worst([]) is None


@pytest.mark.parametrize(
    ("delivered", "reported"),
    [
        ({"dleay": "number"}, {"delay": "it is probably 'dleay' now"}),
        ({"wait": "number"}, {"delay": "it is probably 'wait' now"}),
        ({"wait": "text"}, {"delay": "'delay' is missing; the delivery has", "wait": "not in the contract"}),
        ({"delay": "text"}, {"delay": "comes as text; the contract declares number"}),
        ({"delay": "any"}, {}),
        ({}, {"delay": "'delay' is missing"}),
        ({"delay": "number", "gate": "text"}, {"gate": "not in the contract"}),
    ],
)
def test_what_happened_to_the_columns_is_named(delivered: dict[str, str], reported: dict[str, str]) -> None:
    """R41: a column that was renamed is reported with its likely new name."""
    columns = {"number": "number", "origin": "text", **delivered, "at": "time", "late": "boolean"}
    found = changed_columns(CONTRACT, columns)  # type: ignore[arg-type]  # a dictionary of literals
    assert {each.subject for each in found} == set(reported)
    assert all(reported[each.subject] in each.explanation for each in found)
    assert {each.level for each in found} <= {Level.CRITICAL}


@pytest.mark.parametrize(
    ("kind", "new", "is_renamed"),
    [
        ("any", "delays", True),
        ("any", "d_arr", True),
        ("any", "Cost", False),
        ("number", "Cost", True),
        ("any", "delay;gate;origin", False),
        ("any", "delay, minutes", True),
    ],
)
def test_a_new_name_is_like_the_old_one_or_its_values_fit(kind: str, new: str, *, is_renamed: bool) -> None:
    names = list(CONTRACT.names)
    columns = {name: kind if name == new else "any" for name in (*names[:2], new, *names[3:])}
    assert names[2] == "delay"
    found = likely_renames(CONTRACT, columns)  # type: ignore[arg-type]  # a dictionary of literals
    assert found == ({"delay": new} if is_renamed else {})


def test_facts_of_no_row_are_facts_too() -> None:
    expects = Expectations(
        completeness=Completeness("1h", daily=True),
        sequence="number",
        granularity=Granularity("1h"),
        top_value_share=(TopValueShare("origin", Limits(error=0.5)),),
        early_labels="refuse",
        duplicates="stale",
    )
    facts = measure(CONTRACT, expects, _rows([]), pl.DataFrame(), {})
    assert facts == DeliveryFacts(0, 0, None, None, "")
    assert judge(Feed("f", CONTRACT, expects=expects), facts, now_us=NOW_US) == ()


def _towns(
    column: Category, words: list[str], expects: Expectations, *, is_slice: bool = False
) -> list[Violation]:
    contract = Contract(
        Integer("n"), column, Timestamp("at", tz="UTC"), key="n", event_time="at",
        slices=("town",) if is_slice else (),
    )  # fmt: skip
    rows = pl.DataFrame({"n": range(len(words)), "town": words, "at": [MIDNIGHT] * len(words)}).with_columns(
        pl.col("at").cast(pl.Datetime("us", "UTC"))
    )
    facts = measure(contract, expects, rows, pl.DataFrame(), {})
    return list(judge(Feed("f", contract, expects=expects), facts, now_us=NOW_US))


KNOWN = Category("town", values=("Oslo", "Bergen"))


@pytest.mark.parametrize(
    ("new", "rows", "is_slice", "expected"),
    [
        (4, 100, False, []),
        (5, 100, False, [("unseen_words", "town", Level.WARNING)]),
        (30, 100, False, [("unseen_words", "town", Level.WARNING)]),
        (5, 100, True, [("unseen_slices", "town", Level.WARNING)]),
        (20, 100, True, [("unseen_slices", "town", Level.ERROR)]),
        (4, 10, True, []),  # four rows may be one mistake
        (49, 1_000, False, []),
        (50, 1_000, False, [("unseen_words", "town", Level.WARNING)]),
    ],
)
def test_a_word_that_a_category_does_not_list_is_reported_by_its_share(
    new: int, rows: int, is_slice: bool, expected: list[tuple[str, str, Level]]
) -> None:
    """R25: with unseen="other" it was accepted, encoded as any other, and reported nowhere; no earlier batch is needed."""
    words = ["Paris"] * new + ["Oslo"] * (rows - new)
    assert _short(_towns(KNOWN, words, Expectations(), is_slice=is_slice)) == expected


def test_rare_words_that_are_not_listed_are_what_other_is_for() -> None:
    words = [f"village {number % 30}" for number in range(300)] + ["Oslo"] * 700
    assert _towns(KNOWN, words, Expectations()) == []


def test_each_frequent_word_is_named_safely_and_bounded() -> None:
    words = ["\x1b[2J\n" + "x" * 90] * 30 + ["Paris"] * 20 + ["Rome"] * 6 + ["Oslo"] * 44
    (found,) = _towns(KNOWN, words, Expectations())
    assert found.explanation.startswith('town: "\\u001b[2J\\n' + "x" * 35)
    assert found.explanation.endswith(
        '"Paris" (20.0%), "Rome" (6.0%) of the rows, and its values do not list them'
    )
    assert found.explanation.isprintable()
    assert len(found.explanation) < 200
    assert (found.observed, found.bound) == (30, 5.0)


def test_the_limits_of_unseen_words_are_declared() -> None:
    words = ["Paris"] * 10 + ["Oslo"] * 90
    strict = Expectations(unseen_words=Limits(critical=0.1))
    assert _short(_towns(KNOWN, words, strict)) == [("unseen_words", "town", Level.CRITICAL)]
    assert _towns(KNOWN, words, Expectations(unseen_words=None)) == []
    off = Expectations(unseen_slices=None)
    assert _towns(KNOWN, words, off, is_slice=True) == []
    # Where no words are declared, none is unlisted; where others are refused, none is accepted.
    assert _towns(Category("town"), words, strict) == []
