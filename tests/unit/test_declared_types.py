"""A wrong value of any field of any declaration is refused where it is written, with the field's name, and never later."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import holdfast
from holdfast import (
    Category,
    Contract,
    Expectations,
    Feed,
    GroupMean,
    Label,
    LightGBM,
    Limits,
    Model,
    Number,
    Passthrough,
    Reference,
    Rule,
    Text,
    Timestamp,
    Volume,
    Weekday,
    col,
)
from holdfast.errors import InputError
from holdfast.records import Level

CONTRACT = Contract(
    Text("id"),
    Timestamp("at", tz="UTC"),
    Number("x", unit="1"),
    Category("c"),
    key="id",
    event_time="at",
    label=Label("y", delay="1d"),
)
FEED = Feed("rows", CONTRACT)
BUILT: dict[str, dict[str, Any]] = {
    "Feed": {"name": "rows", "contract": CONTRACT},
    "Completeness": {"max_gap": "1h"},
    "Granularity": {"step": "1h"},
    "Reference": {"column": "c", "feed": "f", "key": "k"},
    "Composition": {"column": "c"},
    "TopValueShare": {"column": "c", "limits": Limits(error=1)},
    "PostgresQuery": {"url": "${env:X}", "query": "SELECT 1 WHERE $1 = $1"},
    **{name: {"name": "b"} for name in ("Boolean", "Category", "Integer", "Text")},
    "Label": {"name": "b", "delay": "1d"},
    "Number": {"name": "b", "unit": "1"},
    "Timestamp": {"name": "b", "tz": "UTC"},
    "Constant": {"value": 1},
    "Rule": {"name": "r", "expression": col("x") > 1},
    "Filter": {"name": "r", "expression": col("x") > 1},
    "Forbidden": {"name": "r", "expression": col("x") > 1},
    "Contract": {"key": "id", "event_time": "at"},
    "Model": {
        "name": "m",
        "examples": FEED,
        "feeds": (FEED,),
        "contract": CONTRACT,
        "features": (Passthrough("x"),),
        "learner": LightGBM(),
        "heuristic": GroupMean(by=(Weekday("at"),)),
    },
    "Aggregate": {
        "name": "a", "over": "rows", "by": "c", "value": "x", "known_at": "at", "window": "1d", "every": "1h",
    },
    "Bucket": {"column": "x", "edges": (1.0, 2.0)},
    "Clip": {"column": "x", "low": 0.0, "high": 1.0},
    "Difference": {"left": "x", "right": "x"},
    "Ratio": {"numerator": "x", "denominator": "x"},
    **{name: {"column": "x"} for name in ("Hour", "Impute", "Log", "Month", "Ordinal", "Passthrough", "Weekday")},
    "Sample": {"share": 0.5},
    "Cap": {"columns": "c", "at_most": 10},
    "Quota": {"column": "c", "at_least": 10},
    "Weights": {"column": "c", "factors": {"a": 2.0}},
    "Source": {"name": "s", "loads": "s-*"},
    "GroupMean": {"by": (Weekday("at"),)},
    "Objective": {"metric": "auc", "at_least": 0.6},
    "GoldenQuery": {"name": "g", "row": {"x": 1.0}, "between": (0.0, 1.0)},
    "Hook": {"name": "h", "url": "http://x"},
    "DiscardBudget": {"at_most": 0.1},
}  # fmt: skip
JUNK = (
    object(),
    lambda value: value,
    b"x",
    math.nan,
    datetime(2026, 1, 1, tzinfo=UTC),
    int,
    [object()],
    {"a": object()},
    1j,
)
OTHERS = (
    None,
    True,
    3,
    -1,
    0,
    1.5,
    -0.5,
    math.inf,
    "",
    "x",
    (),
    ("x",),
    [3],
    {"a": 1},
    timedelta(-1),
    Limits(),
)
ANYTHING = {
    ("Model", "learner"),
    ("Model", "features"),
    ("GoldenQuery", "row"),
    ("GroupMean", "by"),
    ("Timestamp", "low"),
    ("Timestamp", "high"),
}
"""Fields that have a judgement of their own, by what training does with them."""


def declarations() -> Iterator[tuple[str, type]]:
    for name in holdfast.__all__:
        declared = getattr(holdfast, name)
        if inspect.isclass(declared):
            yield name, declared


def build(name: str, declared: type, changed: dict[str, Any]) -> object:
    columns = (Text("id"), Timestamp("at", tz="UTC")) if name == "Contract" else ()
    return declared(*columns, **(BUILT.get(name, {}) | changed))


def given_fields() -> Iterator[tuple[str, type, str]]:
    for name, declared in declarations():
        known = {field.name for field in fields(declared)}
        for parameter in inspect.signature(declared).parameters:
            if parameter in known and parameter != "columns":
                yield name, declared, parameter


FIELDS = list(given_fields())


@pytest.mark.parametrize(("name", "declared"), [pytest.param(*each, id=each[0]) for each in declarations()])
def test_the_table_builds_every_declaration(name: str, declared: type) -> None:
    build(name, declared, {})


@pytest.mark.parametrize(
    ("name", "declared", "field"), [pytest.param(*each, id=f"{each[0]}.{each[2]}") for each in FIELDS]
)
def test_a_value_of_no_declared_type_is_refused_with_the_name_of_its_field(
    name: str, declared: type, field: str
) -> None:
    for value in JUNK:
        if (name, field) in ANYTHING:
            continue
        with pytest.raises(InputError) as refused:
            build(name, declared, {field: value})
        named = (field, repr(value)[:20], name.lower())
        assert any(each in refused.value.what for each in named), refused.value.what


@pytest.mark.parametrize(
    ("name", "declared", "field"), [pytest.param(*each, id=f"{each[0]}.{each[2]}") for each in FIELDS]
)
def test_no_value_of_a_field_ends_in_another_error(name: str, declared: type, field: str) -> None:
    for value in OTHERS:
        with suppress(InputError):
            build(name, declared, {field: value})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Expectations(rows=3), "Expectations: rows is a Volume or None, not 3"),
        (lambda: Expectations(drift="yes"), "Expectations: drift is True or False, not 'yes'"),
        (lambda: Expectations(invalid_rows=0.05), "Expectations: invalid_rows is a Limits or None, not 0.05"),
        (lambda: Expectations(duplicates="row"), "Expectations: duplicates is 'rows' or 'stale', not 'row'"),
        (lambda: Expectations(max_future="1d", grace=timedelta(-1)), "grace is at least 0"),
        (lambda: Expectations(max_future=timedelta(-1)), "max_future is at least 0"),
        (lambda: Volume(at_least=-1), "at_least is a number of rows, not -1"),
        (lambda: Volume(at_least=True), "Volume: at_least is a whole number or None, not True"),
        (lambda: Volume(level="loud"), "Volume: level is 'warning' or 'error' or 'critical', not 'loud'"),
        (lambda: Reference("c", "f", "k", timedelta(0)), "lookback must be positive"),
        (lambda: Feed("rows", 3), "Feed 'rows': contract is a Contract, not 3"),
        (lambda: Feed("rows", CONTRACT, csv="german"), "Feed 'rows': csv is a Csv, not 'german'"),
        (lambda: Contract(Text("id"), key=3, event_time="at"), "key is a column's name or several"),
        (lambda: Contract(Text("id"), key="id", event_time="at", rules="x"), "rules are a Rule"),
        (lambda: Number("x", unit="\ud800"), r"Number 'x': unit is a text, not '\\ud800'"),
        (lambda: col(3), r"col\(3\): a column is named by a text"),
    ],
)  # fmt: skip
def test_the_error_states_what_the_field_is(make: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_other_notations_of_a_right_value_are_taken() -> None:
    reference = Reference("c", "f", "k")
    assert Expectations(references=reference).references == (reference,)
    assert Expectations(references=[reference]).references == (reference,)
    assert Volume(level="critical").level is Level.CRITICAL
    assert Feed("rows", CONTRACT, missing_words=["", "NA"]).missing_words == ("", "NA")
    assert issubclass(holdfast.Filter, Rule)
    assert isinstance(Model(**BUILT["Model"]), Model)


def test_a_reference_to_a_column_that_its_feed_lacks_is_refused() -> None:
    wrong = Feed("rows", CONTRACT, expects=Expectations(references=(Reference("c", "rows", "code"),)))
    with pytest.raises(InputError, match=r"HF107.*refers by 'c' to 'code', which 'rows' does not have"):
        Model(**BUILT["Model"] | {"examples": wrong, "feeds": (wrong,)})
