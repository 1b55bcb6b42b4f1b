"""Rules over whole rows: built without traps, distinguished by kind and unit, the same for a batch and a row."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from holdfast.contract import (
    Boolean,
    Category,
    Contract,
    Expression,
    Integer,
    Label,
    Number,
    Rule,
    Text,
    Timestamp,
    col,
)
from holdfast.contract.batch.compiler import compile_batch, dtypes
from holdfast.contract.batch.reasons import REASONS
from holdfast.contract.row.compiler import compile_row
from holdfast.errors import InputError

NOON = datetime(2013, 3, 10, 12, tzinfo=UTC)
COLUMNS = (
    Integer("id"),
    Timestamp("departed", tz="America/New_York"),
    Timestamp("arrived", tz="UTC", missing="keep"),
    Number("distance", unit="mi", missing="keep"),
    Number("planned", unit="mi", low=0, high=6000, missing="keep"),
    Number("hours", unit="h", missing="keep"),
    Integer("seats", missing="keep"),
    Category("origin", missing="keep"),
    Category("dest"),
    Text("tail", missing="keep"),
    Boolean("cancelled", missing="keep"),
)
ROW = {
    "id": 1,
    "departed": NOON,
    "arrived": NOON + timedelta(hours=3),
    "distance": 1400.0,
    "planned": 1400.0,
    "hours": 3.0,
    "seats": 150,
    "origin": "EWR",
    "dest": "MIA",
    "tail": "N14228",
    "cancelled": False,
    "late": True,
}


def contract(*rules: Rule, **more: Any) -> Contract:
    return Contract(
        *COLUMNS,
        key="id",
        event_time="departed",
        label=Label("late", delay="12h", missing="keep"),
        rules=rules,
        **more,
    )


def both(made: Contract, *rows: dict[str, Any]) -> list[list[str]]:
    """The reasons of each row, from the row check and from the batch check, which must agree."""
    by_row = [list(compile_row(made, request=False)(row)) for row in rows]
    verdict = compile_batch(made)(pl.DataFrame(rows, schema=dtypes(made), orient="row"))
    reported = iter(verdict.quarantined[REASONS].to_list())
    assert [next(reported) if reasons else [] for reasons in by_row] == by_row
    assert verdict.valid.height == sum(not reasons for reasons in by_row)
    return by_row


HOLDS: dict[str, tuple[Expression, dict[str, Any], bool | None]] = {
    "sum": (col("distance") + col("planned") == 2800, {}, True),
    "whole and broken numbers": (col("seats") < 150.5, {}, True),
    "0.0 is -0.0": (col("distance") == 0, {"distance": -0.0}, True),
    "quotient": (col("distance") / col("hours") < 400, {}, False),
    "quotient of the nearest double": (
        col("distance") / 49 == 3.0000000000000004,
        {"distance": 147.00000000000003},
        True,
    ),
    "division by zero": (col("distance") / col("hours") < 400, {"hours": 0.0}, None),
    "overflow": (col("distance") * col("distance") > 0, {"distance": 1e200}, None),
    "2**53 + 2**53 as doubles": (col("seats") + col("seats") == 2.0**54, {"seats": 2**53}, True),
    "missing number": (col("distance") > 0, {"distance": None}, None),
    "missing word": (col("origin") != col("dest"), {"origin": ""}, None),
    "words differ": (col("origin") != col("dest"), {}, True),
    "order of code points": (col("tail") < "\U0001f6eb", {"tail": "\ufeff"}, True),
    "false & missing": (col("cancelled") & (col("hours") > 1), {"hours": None}, False),
    "true & missing": (~col("cancelled") & (col("hours") > 1), {"hours": None}, None),
    "true | missing": (~col("cancelled") | (col("hours") > 1), {"hours": None}, True),
    "false | missing": (col("cancelled") | (col("hours") > 1), {"hours": None}, None),
    "not missing": (~col("cancelled"), {"cancelled": None}, None),
    "is missing": (col("tail").is_missing(), {"tail": ""}, True),
    "is there": (col("tail").is_missing(), {}, False),
    "implies": ((~col("cancelled")).implies(~col("tail").is_missing()), {"tail": None}, False),
    "one of numbers": (col("seats").is_in([149, 150.0]), {}, True),
    "one of many words": (col("dest").is_in([f"D{n}" for n in range(40)]), {}, False),
    "one of, missing": (col("seats").is_in([150]), {"seats": None}, None),
    "pattern": (col("tail").matches(r"N[0-9]+"), {}, True),
    "pattern of the whole": (col("tail").matches(r"N[0-9]+"), {"tail": "N1\n"}, False),
    "characters": (col("tail").length() == 1, {"tail": "\U0001f6eb"}, True),
    "between": (col("hours").between(1, 3), {}, True),
    "negative": (-col("hours") < 0, {}, True),
    "size": (col("distance").abs() == 5, {"distance": -5.0}, True),
    "later": (col("arrived") > col("departed"), {}, True),
    "duration": (col("arrived") - col("departed") <= "3h", {}, True),
    "duration in text and timedelta": (
        col("arrived") - "15min" >= col("departed") + timedelta(hours=3),
        {},
        False,
    ),
    "duration as a number": (
        (col("arrived") - col("departed")) / timedelta(hours=1) == col("hours") * 1,
        {},
        True,
    ),
    "duration with a number": (
        col("hours") * timedelta(hours=1) == col("arrived") - col("departed"),
        {},
        True,
    ),
    "timestamp in text": (col("departed") < "2013-03-10T12:00:00.000001Z", {}, True),
    "one of timestamps": (col("departed").is_in([NOON, NOON + timedelta(days=1)]), {}, True),
    "a label": (col("late") == True, {"late": None}, None),  # noqa: E712 - it builds an expression
    "from a constant": (5 - col("hours") == 2, {}, True),
}


@pytest.mark.parametrize(("expression", "changed", "wanted"), HOLDS.values(), ids=HOLDS.keys())
def test_an_expression_means_the_same_to_a_row_and_a_batch(
    expression: Expression, changed: dict[str, Any], wanted: bool | None
) -> None:
    """A rule is broken where it is false, and kept where it is missing."""
    row = ROW | changed
    probes = {"is": expression, "is_not": ~expression, "is_missing": ~expression.is_missing()}
    broken = {True: [["is_not|rule"]], False: [["is|rule"]], None: [["is_missing|rule"]]}
    made = contract(*(Rule(name, probe) for name, probe in probes.items()))
    assert both(made, row) == broken[wanted]


@pytest.mark.parametrize(("expression", "changed", "wanted"), HOLDS.values(), ids=HOLDS.keys())
def test_the_json_of_a_rule_keeps_its_meaning(
    expression: Expression, changed: object, wanted: object
) -> None:
    rule = Rule("r", expression)
    again = Rule.from_json(json.loads(json.dumps(rule.to_json())))
    assert again == rule
    assert hash(again) == hash(rule)
    made = contract(rule)
    assert Contract.from_json(made.to_json()) == made


def test_a_rule_is_judged_only_where_its_columns_are_valid() -> None:
    rules = (Rule("on_plan", col("distance") <= col("planned")), Rule("seated", col("seats") > 0))
    assert both(
        contract(*rules),
        ROW | {"id": 1, "planned": -1.0, "seats": 0},
        ROW | {"id": 2, "distance": float("nan"), "seats": 2**53 + 1},
        ROW | {"id": 3, "distance": 1500.0, "seats": 0},
        ROW | {"id": 4},
    ) == [
        ["planned|range", "seated|rule"],
        ["distance|not_finite", "seats|not_exact"],
        ["on_plan|rule", "seated|rule"],
        [],
    ]


def test_a_request_is_not_judged_by_a_rule_about_the_label() -> None:
    made = contract(Rule("never_late", ~col("late")), Rule("seated", col("seats") > 0))
    request = {name: value for name, value in ROW.items() if name != "late"}
    assert compile_row(made, request=True)(request) == ()
    assert compile_row(made, request=True)(request | {"seats": 0}) == ("seated|rule",)
    assert compile_row(made, request=False)(ROW) == ("never_late|rule",)


def test_what_is_unique_is_so_among_the_rows_that_are_kept() -> None:
    """A row without a part is like no other; one that repeats a quarantined row is kept."""
    made = contract(unique=("tail", ("origin", "seats")))
    rows = [
        ROW | {"id": 1, "tail": "A"},
        ROW | {"id": 1, "tail": "B", "origin": "JFK"},
        ROW | {"id": 2, "tail": "B", "origin": "JFK"},
        ROW | {"id": 3, "tail": "B", "origin": "LGA"},
        ROW | {"id": 4, "tail": "C", "origin": "EWR"},
        ROW | {"id": 5, "tail": "", "origin": None},
        ROW | {"id": 6, "tail": None, "origin": ""},
    ]
    verdict = compile_batch(made)(pl.DataFrame(rows, schema=dtypes(made), orient="row"))
    assert verdict.counts == {"id|duplicate": 1, "tail|unique": 1, "origin+seats|unique": 1}
    assert verdict.valid["id"].to_list() == [1, 2, 5, 6]
    assert verdict.quarantined[REASONS].to_list() == [
        ["id|duplicate"],
        ["tail|unique"],
        ["origin+seats|unique"],
    ]


def test_python_words_for_and_or_not_in_and_chains_are_refused() -> None:
    traps: list[Callable[[], object]] = [
        lambda: (col("seats") > 0) and (col("hours") > 0),
        lambda: (col("seats") > 0) or (col("hours") > 0),
        lambda: not col("cancelled"),
        lambda: 0 < col("seats") < 500,
        lambda: col("seats") == 1 != 2,
        lambda: 150 in col("seats"),
        lambda: list(col("seats")),
        lambda: col("origin") in ("EWR", "JFK"),
    ]
    for trap in traps:
        with pytest.raises(InputError, match=r"HF104.*no truth value.*write & for and"):
            trap()


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "no such column": (lambda: Rule("r", col("speed") > 0), "rule 'r': there is no column 'speed'"),
    "number and text": (lambda: Rule("r", col("seats") == "many"), "seats is a number and 'many' a text"),
    "units": (lambda: Rule("r", col("distance") < col("hours")), "unit of distance is 'mi' and of hours 'h'"),
    "sum of units": (lambda: Rule("r", col("distance") + col("hours") > 0), "unit of distance is 'mi'"),
    "duration and number": (
        lambda: Rule("r", col("arrived") - col("departed") < 5),
        "divide a duration by a timedelta to have a number",
    ),
    "sum of timestamps": (
        lambda: Rule("r", col("arrived") + col("departed") > 0),
        r"timestamp \+ timestamp is undefined",
    ),
    "no verdict": (lambda: Rule("r", col("seats") + 1), "is a number, and a rule is true or false"),
    "no column": (
        lambda: Rule.from_json(
            {"name": "r", "must": {"operator": "==", "of": [{"number": 1}, {"number": 1}]}}
        ),
        "reads no column",
    ),
    "order of booleans": (lambda: Rule("r", col("cancelled") < col("late")), "true and false have no order"),
    "not of a number": (lambda: Rule("r", ~col("seats")), "seats is a number; it must be a boolean"),
    "length of a number": (lambda: Rule("r", col("seats").length() > 1), "it must be a text"),
    "pattern of a number": (lambda: Rule("r", col("seats").matches("1")), "it must be a text"),
    "text that is no timestamp": (lambda: Rule("r", col("departed") > "noon"), "'noon' is no timestamp"),
    "text that is no duration": (
        lambda: Rule("r", col("arrived") - col("departed") > "long"),
        "'long' is not a duration",
    ),
    "mixed values": (lambda: Rule("r", col("seats").is_in([1, "2"])), "seats is a number and '2' a text"),
    "values as one text": (lambda: col("dest").is_in("EWR"), "needs several values"),
    "no values": (lambda: col("dest").is_in([]), "at least one value"),
    "broken pattern": (lambda: col("dest").matches("("), "not a regular expression"),
    "nan": (lambda: col("hours") > float("nan"), "cannot be part of a rule"),
    "large": (lambda: col("seats") > 2**53 + 1, "cannot be part of a rule"),
    "naive": (lambda: col("departed") > datetime(2013, 1, 1), "no time zone"),  # noqa: DTZ001 - what is refused
    "none": (lambda: col("seats") == None, "cannot be part of a rule"),  # noqa: E711 - what a user may type
    "a bool by and": (lambda: Rule("r", True), "is not an expression"),  # type: ignore[arg-type]  # what a user may type
    "its name": (lambda: Rule("No Name", col("seats") > 0), "cannot name a rule"),
    "name of a column": (
        lambda: Rule("seats", col("seats") > 0),
        "share a name with a column or a rule: seats",
    ),
}


@pytest.mark.parametrize(("declare", "reported"), WRONG.values(), ids=WRONG.keys())
def test_a_rule_that_cannot_mean_what_it_declares_is_refused(
    declare: Callable[[], Any], reported: str
) -> None:
    with pytest.raises(InputError, match=reported) as caught:
        contract(declare())
    assert caught.value.code == ("HF109" if reported == "cannot name a rule" else "HF104")


def test_what_is_unique_twice_or_nothing_is_refused() -> None:
    for unique in (("id",), ("tail", ("tail",)), ((),), ("speed",), ("distance",), (("dest", "dest"),)):
        with pytest.raises(InputError, match="HF104"):
            contract(unique=unique)


def test_rules_uniqueness_and_semantics_are_part_of_the_hash() -> None:
    plain = contract()
    for other in (
        contract(Rule("r", col("seats") > 0)),
        contract(unique=("tail",)),
        Contract(*COLUMNS[:2], Integer("zip", semantic="postal_code"), key="id", event_time="departed"),
    ):
        assert Contract.from_json(other.to_json()) == other
        assert other.hash != plain.hash


@pytest.mark.parametrize(
    "value",
    [
        {"name": "r"},
        {"name": "r", "must": {}},
        {"name": "r", "must": {"operator": "^", "of": [{"column": "a"}, {"number": 1}]}},
        {"name": "r", "must": {"operator": "~", "of": []}},
        {"name": "r", "must": {"operator": "is_in", "of": [{"column": "a"}], "values": []}},
        {"name": "r", "must": {"operator": "matches", "of": [{"column": "a"}], "pattern": "("}},
        {"name": "r", "must": {"number": "1"}},
        {"name": "r", "must": {"number": 1, "text": "a"}},
        {"name": "r", "must": {"column": "A B"}},
    ],
    ids=json.dumps,
)
def test_json_that_is_no_rule_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"HF10[49]"):
        Rule.from_json(value)


def test_a_rule_deeper_than_anybody_reads_is_refused() -> None:
    deep = col("cancelled")
    for _ in range(80):
        deep = ~deep
    with pytest.raises(InputError, match="nested more than 60 levels"):
        Rule("deep", deep)
