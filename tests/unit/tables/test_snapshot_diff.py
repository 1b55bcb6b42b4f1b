"""The difference of two snapshots, from profiles alone (R36)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from holdfast.contract import Category, Contract, Integer, Label, Number, Timestamp
from holdfast.contract.batch.compiler import dtypes
from holdfast.contract.profile.profile import merge_compatible, profile_batch
from holdfast.tables.snapshot_diff import TableFacts, compare_tables


def contract(unit: str = "mi") -> Contract:
    return Contract(
        Integer("id"),
        Number("distance", unit=unit, low=0, high=6000, missing="keep"),
        Category("carrier"),
        Timestamp("at", tz="UTC"),
        key="id",
        event_time="at",
        label=Label("late", delay="1h"),
    )


def facts(seed: int, rows: int = 2000, scale: float = 1.0, late: float = 0.2, unit: str = "mi") -> TableFacts:
    draw = np.random.default_rng(seed)
    at = [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(minutes=n) for n in range(rows)]
    frame = pl.DataFrame(
        {
            "id": range(rows),
            "distance": draw.gamma(3, 200, rows).clip(0, 2000) * scale,
            "carrier": draw.choice(["AA", "UA"], rows).tolist(),
            "at": at,
            "late": draw.random(rows) < late,
        },
        schema=dtypes(contract()),
    )
    halves = [
        profile_batch(contract(), frame.head(rows // 2)),
        profile_batch(contract(), frame.tail(rows // 2)),
    ]
    return TableFacts(
        "flights",
        rows,
        frozenset({(f"b{seed}", 0), ("shared", 0)}),
        merge_compatible(halves)[0],
        contract(unit),
    )


def test_two_snapshots_of_the_same_law_have_not_moved():
    (change,) = compare_tables([facts(1)], [facts(2)])
    assert change.moved == ()
    assert (change.rows_before, change.rows_after, change.loads_added, change.loads_removed) == (
        2000,
        2000,
        1,
        1,
    )
    assert change.evolution is None
    assert max(column.stability for column in change.columns) < 0.05


def test_what_moved_comes_first_with_its_size():
    (change,) = compare_tables([facts(1)], [facts(2, scale=1.609344, late=0.5, unit="km")])
    assert [column.column for column in change.moved] == ["distance", "late"]
    distance = change.moved[0]
    assert distance.effect == pytest.approx(600 * 0.609 / 346, abs=0.15)
    assert "mean 598" in distance.description
    assert change.label_before == pytest.approx(0.2, abs=0.03)
    assert change.label_after == pytest.approx(0.5, abs=0.04)
    assert change.evolution is not None
    assert change.as_dict()["contract"]["kind"] == "breaking"


def test_what_cannot_be_compared_is_named():
    (change,) = compare_tables([facts(1)], [replace(facts(2), incompatible=("distance",))])
    assert [column for column, _ in change.not_compared] == ["distance"]
    (change,) = compare_tables([facts(1)], [replace(facts(2), profile=None)])
    assert change.not_compared == (("", "a load has no profile"),)
    assert change.as_dict()["not_compared"][0]["column"] == ""
    (change,) = compare_tables([facts(1)], [facts(2)])
    assert change.not_compared == ()


def test_tables_that_come_and_go_and_loads_without_profiles():
    new = TableFacts("weather", 10, frozenset({("w1", 0)}), None, None)
    gone, came = compare_tables([facts(1)], [new])
    assert (gone.table, gone.rows_before, gone.rows_after) == ("flights", 2000, 0)
    assert (came.table, came.loads_added, came.columns) == ("weather", 1, ())
