"""Declarations as flat fields: stable between processes, named by part, without secrets, and compared field by field."""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdfast.contract import Category, Contract, Number, Rule, Text, Timestamp, col
from holdfast.contract.evolution.declared_fields import (
    MOST_SHOWN,
    FieldChange,
    compare_declarations,
    describe_field_changes,
    flatten_declaration,
)
from holdfast.feeds import Expectations, Feed, PostgresQuery, Volume


def contract(*columns: object, **options: object) -> Contract:
    """A contract of a key, a time and `columns`."""
    parts = (Text("id"), Timestamp("at", tz="UTC"), *columns)
    return Contract(*parts, key="id", event_time="at", **options)  # type: ignore[arg-type]


FEED = Feed("trips", contract(Number("far", unit="km", low=0)), expects=Expectations(rows=Volume(at_least=3)))


def test_an_equal_declaration_has_equal_fields() -> None:
    again = Feed(
        "trips", contract(Number("far", unit="km", low=0)), expects=Expectations(rows=Volume(at_least=3))
    )
    assert flatten_declaration(again) == flatten_declaration(FEED)


def test_a_part_that_is_inserted_changes_no_path_of_another() -> None:
    wider = replace(FEED, contract=contract(Category("town"), Number("far", unit="km", low=0)))
    found = compare_declarations(flatten_declaration(FEED), flatten_declaration(wider))
    assert [(each.field, each.before, each.after) for each in found] == [
        ("contract.columns[town]", None, "Category")
    ]


def test_a_bound_a_unit_and_an_expectation_are_each_a_change() -> None:
    other = Feed(
        "trips", contract(Number("far", unit="mi", low=1)), expects=Expectations(rows=Volume(at_least=5))
    )
    found = compare_declarations(flatten_declaration(FEED), flatten_declaration(other))
    assert [str(each) for each in found] == [
        "contract.columns[far].low 0.0 -> 1.0",
        "contract.columns[far].unit 'km' -> 'mi'",
        "expects.rows.at_least 3 -> 5",
    ]


def test_rules_differ_by_their_expressions() -> None:
    far = Number("far", unit="km")
    one, other = (
        flatten_declaration(contract(far, rules=Rule("short", col("far") < bound))) for bound in (10, 20)
    )
    (found,) = compare_declarations(one, other)
    assert found.field == "rules[short].expression"


def test_the_url_of_a_database_is_no_field() -> None:
    query = PostgresQuery("${env:WAREHOUSE_URL}", "select * from trips where day = $1")
    found = flatten_declaration(replace(FEED, source=query))
    assert found["source.query"] == "'select * from trips where day = $1'"
    assert not any("WAREHOUSE" in text for text in found.values())


def test_long_texts_that_begin_alike_differ() -> None:
    one, other = (replace(FEED, missing_words=("x" * 300 + end,)) for end in "ab")
    assert flatten_declaration(one) != flatten_declaration(other)


def test_an_object_of_a_user_is_its_class_and_parameters() -> None:
    class Own:
        name = "own"
        parameters = {"depth": 3}  # noqa: RUF012 - as users write it

    class Bare:
        pass

    @dataclass
    class Holder:
        learner: object
        other: object

    assert flatten_declaration(Holder(Own(), Bare())) == {
        "declaration": "Holder",
        "learner": "Own",
        "learner.parameters[depth]": "3",
        "other": "Bare",
    }


def test_many_changes_are_counted() -> None:
    changes = [FieldChange(f"f{n}", None, "1") for n in range(MOST_SHOWN + 2)]
    assert describe_field_changes(changes).endswith("; and 2 more")
