"""R24, R26: what stands in for a missing value is declared, and comes from the training snapshot only."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from holdfast.contract import Constant, Contract, Integer, Keep, Mean, Median, Number, Timestamp
from holdfast.contract.batch.compiler import dtype
from holdfast.contract.schema.missing import as_policy, fill_values, policy_from_json, policy_json
from holdfast.errors import InputError

CONTRACT = Contract(
    Integer("n"),
    Timestamp("at", tz="UTC"),
    Number("median", unit="1", missing="median"),
    Number("mean", unit="1", missing=Mean(flag=True)),
    Integer("whole", missing=Median()),
    Number("constant", unit="1", missing=Constant(7)),
    Number("kept", unit="1", missing="keep"),
    key="n",
    event_time="at",
)

POLICIES = {column.name: as_policy(column.missing) for column in CONTRACT.columns}


def frame(**values: list[object]) -> pl.DataFrame:
    rows = {"n": [1, 2, 3, 4], "at": [datetime(2013, 1, 1, tzinfo=UTC)] * 4}
    empty = {column.name: [None] * 4 for column in CONTRACT.columns if column.name not in rows}
    return pl.DataFrame(
        rows | empty | values, schema={column.name: dtype(column) for column in CONTRACT.columns}
    )


def test_fill_values_come_from_the_values_that_are_there() -> None:
    known = frame(
        median=[1.0, 100.0, None, 2.0],
        mean=[1.0, None, None, 4.0],
        whole=[1, 2, None, None],
        constant=[0.0] * 4,
    )
    assert fill_values(POLICIES, known) == {"median": 2.0, "mean": 2.5, "whole": 1.5, "constant": 7.0}


def test_a_column_without_any_value_has_no_median() -> None:
    with pytest.raises(InputError, match="'median'") as caught:
        fill_values(POLICIES, frame())
    assert caught.value.code == "HF401"


def test_only_the_columns_requested_are_fitted() -> None:
    assert fill_values({name: POLICIES[name] for name in ("constant", "kept")}, frame()) == {"constant": 7.0}


def test_values_that_are_not_finite_do_not_impact_a_constant() -> None:
    hostile = frame(
        median=[float("nan"), float("inf"), 3.0, None], mean=[float("-inf"), 5.0, None, None], whole=[1] * 4
    )
    assert fill_values(POLICIES, hostile)["median"] == 3.0
    assert fill_values(POLICIES, hostile)["mean"] == 5.0


@pytest.mark.parametrize(
    "policy",
    ["reject", "median", "mean", "keep", Median(flag=True), Constant("?", flag=True), Keep(flag=True)],
)
def test_policies_survive_json(policy: object) -> None:
    wanted = as_policy(policy)  # type: ignore[arg-type]  # both forms that a column takes
    assert policy_from_json(policy_json(wanted)) == wanted
