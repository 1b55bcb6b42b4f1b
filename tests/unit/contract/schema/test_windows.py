"""The window of a value is part of its contract (R44): 10 seconds and 5 minutes are not one column."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from holdfast.contract import ColumnFacts, Contract, Integer, Number, Text, Timestamp
from holdfast.contract.evolution.compatibility import Boundary, Compatibility, Difference
from holdfast.contract.evolution.diff import compare
from holdfast.contract.schema.source_metadata import ColumnMismatch, column_conversion, column_conversions
from holdfast.errors import InputError
from holdfast.features import Aggregate
from holdfast.features.asof import aggregate_rows


def contract(**load: object) -> Contract:
    """A contract whose `load` declares a window or none."""
    column = Number("load", unit="1", **load)  # type: ignore[arg-type]
    return Contract(Text("id"), column, Timestamp("at", tz="UTC"), key="id", event_time="at")


def test_one_window_has_one_form_and_one_hash() -> None:
    assert contract(window="5min").hash == contract(window="300s").hash != contract(window="10s").hash
    assert Contract.from_json(contract(window="5min").to_json()) == contract(window="300s")
    assert Integer("count", window="250ms").window == "250ms"


def test_a_contract_without_windows_has_the_hash_that_it_had_before_there_were_any() -> None:
    assert "window" not in contract().to_json()


@pytest.mark.parametrize("window", ["often", "0s", "-5min", 5])
def test_what_is_no_duration_is_refused_where_it_is_declared(window: object) -> None:
    with pytest.raises(InputError, match=r"HF1(?:04|13).*load"):
        contract(window=window)


@pytest.mark.parametrize(
    ("before", "after", "what", "kind"),
    [
        ("5min", "10s", Difference.WINDOW, Compatibility.BREAKING),
        (None, "5min", Difference.WINDOW_STATED, Compatibility.EXPAND_CONTRACT),
        ("5min", None, Difference.WINDOW_DROPPED, Compatibility.COMPATIBLE),
    ],
)
def test_a_changed_window_is_judged_like_a_changed_meaning(
    before: str | None, after: str | None, what: Difference, kind: Compatibility
) -> None:
    (change,) = compare(contract(window=before), contract(window=after)).changes
    assert (change.what, change.kind) == (what, kind)
    assert change.misreads == (kind is Compatibility.BREAKING)
    assert change.at(Boundary.ROWS) is kind


@pytest.mark.parametrize(
    ("stated", "fits"), [("5min", True), ("300s", True), (None, True), ("10s", False), ("?", False)]
)
def test_a_source_with_another_window_is_refused(stated: str | None, fits: bool) -> None:
    found = column_conversion(contract(window="5min").column("load"), ColumnFacts(window=stated))
    assert (found is None) == fits
    assert fits or (isinstance(found, ColumnMismatch) and found.reason == "load|window")
    if not fits:
        with pytest.raises(InputError, match=r"HF202.*load.*300s"):
            column_conversions(contract(window="5min"), {"load": ColumnFacts(window=stated)})


def test_without_a_declared_window_any_is_accepted() -> None:
    assert column_conversion(contract().column("load"), ColumnFacts(window="10s")) is None


@pytest.mark.parametrize("seed", range(5))
def test_readings_that_are_resampled_to_the_window_give_the_value_that_training_computes(seed: int) -> None:
    """Resample parity: the caller's mean over 5 minutes of 10-second readings, and ours; the mean over 10 s differs."""
    random = np.random.default_rng(seed)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    readings = pl.DataFrame(
        {
            "host": ["a"] * 360,
            "at": [start + timedelta(seconds=10 * number) for number in range(1, 361)],
            "load": random.normal(50, 20, 360),
        }
    )
    ours = aggregate_rows(
        Aggregate("load", over="f", by="host", value="load", known_at="at", window="5min", every="5min"),
        readings,
    )
    resampled = readings.group_by_dynamic("at", every="5m", closed="right", label="right").agg(
        pl.col("load").mean()
    )
    theirs = dict(zip(resampled["at"].dt.epoch("us"), resampled["load"], strict=True))
    known = [(at_us, value) for _, at_us, value in ours.rows() if at_us in theirs]
    assert len(known) >= 11
    assert all(abs(value - theirs[at_us]) < 1e-9 for at_us, value in known)
    raw = dict(zip(readings["at"].dt.epoch("us"), readings["load"], strict=True))
    assert max(abs(value - raw[at_us]) for at_us, value in known if at_us in raw) > 1
