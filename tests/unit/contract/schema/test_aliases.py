"""R25, "map": an alias is read as its word, the same in text, JSON, Parquet and requests."""

from __future__ import annotations

import io
import json
import pickle
from collections import Counter
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contract import Category, Constant, Contract, Number, Rule, Text, Timestamp, col
from holdfast.contract.batch.compiler import compile_batch
from holdfast.contract.batch.json_input import from_objects
from holdfast.contract.batch.reasons import REASONS
from holdfast.contract.batch.text_input import from_text
from holdfast.contract.batch.typed_input import from_frame
from holdfast.contract.row.adapter import RowAdapter
from holdfast.contract.row.aliases import map_row
from holdfast.contract.row.compiler import compile_row
from holdfast.contract.row.explain import describe
from holdfast.errors import InputError
from holdfast.serve.inference.fast_check import compile_fast_check
from tests.support.profile import examples

TOWNS = ("New York", "Oslo")
TOWN = Category(
    "town",
    values=TOWNS,
    unseen="reject",
    aliases={"NYC": "New York", "new york": "New York", "Kristiania": "Oslo"},
)
AT = Timestamp("at", tz="UTC")
WHEN = "2026-01-01T00:00:00Z"


def contract(town: Category = TOWN, **facts: Any) -> Contract:
    open_town = Category("open", aliases={"a": "b", "x\0": "y"}, missing="keep")
    columns = (Text("id"), AT, town, open_town)
    return Contract(*columns, **{"key": ("id", "town"), "event_time": "at", "slices": "town"} | facts)


REFUSED = [
    ({"NYC": "Bergen"}, "not one of its values"),
    ({"Oslo": "New York"}, "a word itself"),
    ({"Oslo": "Oslo"}, "a word itself"),
    ({"NYC": "N.Y.", "N.Y.": "New York"}, "which is an alias"),
    ({"A": "B", "B": "A"}, "which is an alias"),
    ({"": "Oslo"}, "not empty"),
    ({"NYC": ""}, "not empty"),
    ({"\ud83d": "Oslo"}, "not empty"),
]


@pytest.mark.parametrize(("aliases", "why"), REFUSED)
def test_aliases_that_contradict_themselves_are_refused(aliases: dict[str, str], why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        Category("town", values=TOWNS, aliases=aliases)
    assert caught.value.code == "HF104"
    assert "'town'" in caught.value.what


def test_a_cycle_is_refused_where_no_words_are_declared_too() -> None:
    with pytest.raises(InputError, match="which is an alias"):
        Category("town", aliases={"A": "B", "B": "A"})
    with pytest.raises(InputError, match="a word itself"):
        Category("town", aliases={"A": "A"})


@pytest.mark.parametrize("aliases", [["NYC"], "NYC", {"NYC": None}, {1: "Oslo"}, {"NYC": ["Oslo"]}, None])
def test_aliases_of_another_type_are_refused(aliases: Any) -> None:
    with pytest.raises(InputError) as caught:
        Category("town", values=TOWNS, aliases=aliases)
    assert caught.value.code == "HF113"


def test_a_declaration_that_names_an_alias_in_the_place_of_a_word_is_refused() -> None:
    with pytest.raises(InputError, match="is an alias"):
        replace(TOWN, missing=Constant("NYC"))
    rules = [col("town") == "NYC", col("town").is_in(["Oslo", "NYC"]), ~(col("town") != "NYC")]
    for rule in rules:
        with pytest.raises(InputError, match="compare with its word, 'New York'"):
            contract(rules=[Rule("r", rule)])


def test_aliases_are_part_of_the_hash_and_their_order_is_not() -> None:
    one = Category("town", values=TOWNS, aliases={"a": "Oslo", "b": "New York"})
    other = Category("town", values=TOWNS, aliases={"b": "New York", "a": "Oslo"})
    assert contract(one).hash == contract(other).hash
    assert contract(one).hash != contract(replace(one, aliases={})).hash
    assert contract(one).hash != contract(replace(one, aliases={"a": "Oslo", "b": "Oslo"})).hash
    assert "aliases" not in Contract(Text("id"), AT, Category("town"), key="id", event_time="at").to_json()
    assert Contract.from_json(contract(one).to_json()).aliases == contract(one).aliases
    assert pickle.loads(pickle.dumps(contract(one))).hash == contract(one).hash
    assert hash(one) == hash(other)


def test_later_changes_of_the_given_mapping_change_nothing() -> None:
    given_aliases = {"a": "Oslo"}
    town = Category("town", values=TOWNS, aliases=given_aliases)
    given_aliases["Oslo"] = "a"
    assert town.aliases == {"a": "Oslo"}


def test_the_metadata_has_the_aliases_bounded() -> None:
    assert describe(TOWN)["aliases"] == {"Kristiania": "Oslo", "NYC": "New York", "new york": "New York"}
    many = describe(Category("town", aliases={f"a{number:02}": "b" for number in range(50)}))
    assert (len(many["aliases"]), many["aliases_total"]) == (20, 50)


WORDS = st.sampled_from(
    [None, "", "NYC", "new york", "New York", "Oslo", "Kristiania", "Bergen", "a", "b", "x\0", "y", "NYC "]
)
ROWS = st.lists(
    st.tuples(st.sampled_from(["1", "2"]), WORDS, WORDS).map(
        lambda each: {"id": each[0], "at": WHEN, "town": each[1], "open": each[2]}
    ),
    min_size=1,
    max_size=12,
)
PARITY = contract(
    rules=[Rule("known", ~((col("town") == "Oslo") & (col("open") == "b")))], unique=(("town", "open"),)
)


def read_csv(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(PARITY.names, pl.String))


@examples(150)
@given(ROWS)
def test_text_json_parquet_and_requests_read_the_same_rows(rows: list[dict[str, Any]]) -> None:
    parquet, kinds = (
        io.BytesIO(),
        dict.fromkeys(PARITY.names, pl.Categorical()) | {"at": pl.Datetime("us", "UTC")},
    )
    typed_rows = [{**row, "at": pl.Series([WHEN]).str.to_datetime(time_zone="UTC")[0]} for row in rows]
    pl.DataFrame(typed_rows, schema=kinds).write_parquet(parquet)
    parquet.seek(0)
    typed = pl.read_parquet(parquet)
    check = compile_batch(PARITY)
    verdicts = [
        check(from_text(PARITY, read_csv(rows))),
        check(from_objects(PARITY, [json.loads(json.dumps(row)) for row in rows])),
        check(from_frame(PARITY, typed)),
    ]
    for each in verdicts[1:]:
        assert each.valid.equals(verdicts[0].valid)
        assert each.quarantined[REASONS].to_list() == verdicts[0].quarantined[REASONS].to_list()
        assert (each.counts, each.aliases) == (verdicts[0].counts, verdicts[0].aliases)
    verdict = verdicts[0]
    # The rejected rows are kept as they came.
    kept = [(row["town"] or None, row["open"] or None) for row in rows]
    assert not Counter(
        (town or None, other or None) for town, other in verdict.quarantined.select("town", "open").rows()
    ) - Counter(kept)
    assert set(verdict.valid["town"]) <= set(TOWNS)
    # The row: the same reasons but for repeats, and the words of the valid rows.
    by_row = compile_row(PARITY, request=True)
    reasons = [by_row(row) for row in rows]
    assert [by_row(map_row(PARITY, row)) for row in rows] == reasons
    repeats = ("|duplicate", "|unique")
    given_reasons = Counter(reason for each in reasons for reason in each)
    assert given_reasons == {
        reason: count for reason, count in verdict.counts.items() if not reason.endswith(repeats)
    }
    words = [map_row(PARITY, row) for row, each in zip(rows, reasons, strict=True) if not each]
    found = Counter((row["town"], row["open"] or None) for row in words)
    assert not Counter(verdict.valid.select("town", "open").rows()) - found
    expected = {
        name: dict(Counter(row[name] for row in rows if row[name] in aliases))
        for name, aliases in PARITY.aliases.items()
    }
    assert verdict.aliases == {name: counts for name, counts in expected.items() if counts}


@examples(60)
@given(st.lists(WORDS, min_size=1, max_size=6), st.booleans())
def test_the_fast_check_of_a_server_agrees(values: list[str | None], in_key: bool) -> None:
    nul = Category(
        "town",
        values=("New York", "a\0"),
        unseen="reject",
        aliases={"NYC": "New York", "x\0": "New York", "Oslo": "a\0"},
    )
    for town in (TOWN, nul, Category("town", aliases={"NYC": "Oslo"})):
        key = ("id", "town") if in_key else ("id",)
        by_row = compile_row(Contract(Text("id"), AT, town, key=key, event_time="at"), request=True)
        fast = compile_fast_check(town, in_key=in_key)
        assert fast is not None
        if fast(values):
            assert not any(by_row({"id": "1", "at": WHEN, "town": value}) for value in values)


def test_a_key_and_what_is_unique_are_those_of_the_words() -> None:
    rows = [{"id": "1", "at": WHEN, "town": town, "open": None} for town in ("NYC", "New York", "Oslo")]
    verdict = compile_batch(PARITY)(from_objects(PARITY, rows))
    assert verdict.valid["town"].to_list() == ["New York", "Oslo"]
    assert verdict.counts == {"id+town|duplicate": 1}
    assert verdict.quarantined["town"].to_list() == ["New York"]
    assert verdict.aliases == {"town": {"NYC": 1}}


def test_a_recorded_row_is_read_by_the_aliases_of_its_own_contract_and_then_of_the_other() -> None:
    recorded = contract(replace(TOWN, aliases={"NYC": "New York"}))
    target = contract(
        Category("town", values=("Big Apple", "Oslo"), unseen="reject", aliases={"New York": "Big Apple"})
    )
    rows, reasons = RowAdapter(recorded, target).admit([["1", WHEN, "NYC", None]])
    assert (rows[0]["town"], reasons) == ("Big Apple", ())


def test_a_number_column_has_no_aliases() -> None:
    with pytest.raises(TypeError):
        Number("v", unit="1", aliases={})  # type: ignore[call-arg]
