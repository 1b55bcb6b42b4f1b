"""Labels that fit no row, the future or the labels before are reported; those of another model make the feed suspect."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from holdfast.control.ingest import dry_run
from holdfast.control.ingest.ingest import ingest
from holdfast.control.ingest.validate import DeliverySpec
from holdfast.feeds import Expectations, Feed
from holdfast.records import Level, Violation
from holdfast.store import Store
from tests.support.late_labels import (
    A_WEEK,
    BY_PREDICTION,
    LATER,
    OUTCOMES,
    START,
    load_labels_of,
    load_week,
    loan_time,
    micros,
)  # fmt: skip

NOW = micros(START + timedelta(weeks=8))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def load(
    store: Store,
    directory: Path,
    batch: str,
    names: list[str],
    feed: Feed = OUTCOMES,
    *,
    later: timedelta = LATER,
    share: float = 0.5,
) -> list[Violation]:
    """Check a delivery of labels for `names`, then load it; return the violations, which are the same."""
    frame = pl.DataFrame(
        {
            feed.label_key[0]: names,
            "repaid": [number % 10 < share * 10 for number in range(len(names))],
            "known_at": [loan_time(number) + later for number in range(len(names))],
        }
    )
    path = directory / f"{batch}.parquet"
    frame.with_columns(pl.col("known_at").dt.cast_time_unit("us")).write_parquet(path)
    checked = dry_run.check(store, feed, DeliverySpec(batch, path), now_us=NOW)
    found = ingest(store, feed, batch, path, now_us=NOW)
    assert checked.violations == found.violations
    return list(found.violations)


def test_labels_of_another_model_are_an_error_where_labels_had_rows(tmp_path: Path, store: Store) -> None:
    load_week(store, tmp_path, 0)
    load_labels_of(store, tmp_path, 0)
    (found,) = load(store, tmp_path, "foreign", [f"x{number}" for number in range(A_WEEK)])
    assert (found.check, found.level) == ("labelled_rows", Level.ERROR)
    assert found.explanation.startswith(f"0 of {A_WEEK} labels have a row in feed loans, ")
    (few,) = load(store, tmp_path, "few", [f"y{number}" for number in range(19)])
    assert few.level is Level.WARNING


def test_labels_may_come_before_their_rows(tmp_path: Path, store: Store) -> None:
    names = [f"l{number}" for number in range(A_WEEK)]
    (found,) = load(store, tmp_path, "early", names)
    assert (found.check, found.level) == ("labelled_rows", Level.WARNING)
    load_week(store, tmp_path, 0)
    assert load(store, tmp_path, "again", names, later=LATER * 2) == []


def test_a_batch_with_some_rows_is_not_reported(tmp_path: Path, store: Store) -> None:
    load_week(store, tmp_path, 0)
    names = ["l3", *(f"x{number}" for number in range(99))]
    assert load(store, tmp_path, "some", names) == []
    (found,) = load(store, tmp_path, "hardly", [*names, "x99"], later=LATER * 2)
    assert found.explanation.startswith("1 of 101 labels have a row")


def test_labels_of_predictions_that_were_not_collected_are_a_warning(tmp_path: Path, store: Store) -> None:
    load_week(store, tmp_path, 0)
    (found,) = load(store, tmp_path, "unknown", [f"p{number}" for number in range(30)], BY_PREDICTION)
    assert (found.check, found.level) == ("labelled_rows", Level.WARNING)
    assert "0 of 30 labels have a collected prediction" in found.explanation


def test_labels_that_are_known_in_the_future_are_a_warning(tmp_path: Path, store: Store) -> None:
    load_week(store, tmp_path, 0)
    names = [f"l{number}" for number in range(A_WEEK)]
    (found,) = load(store, tmp_path, "future", names, later=timedelta(weeks=20))
    assert (found.check, found.subject, found.level) == ("future_labels", "known_at", Level.WARNING)
    assert "is not used until then" in found.explanation


@pytest.mark.parametrize("is_declared", [False, True])
def test_inverted_labels_are_a_warning_after_one_batch(
    tmp_path: Path, store: Store, *, is_declared: bool
) -> None:
    feed = replace(OUTCOMES, expects=Expectations(drift=is_declared))
    names = loans(store, tmp_path)
    assert load(store, tmp_path, "usual", names, feed, share=0.1) == []
    (found,) = load(store, tmp_path, "inverted", names, feed, later=LATER * 2, share=0.9)
    assert (found.check, found.subject, found.level) == ("mix", "repaid", Level.WARNING)


@pytest.mark.parametrize(("is_declared", "level"), [(False, Level.WARNING), (True, Level.ERROR)])
def test_inverted_labels_are_an_error_where_drift_is_declared(
    tmp_path: Path, store: Store, *, is_declared: bool, level: Level
) -> None:
    feed = replace(OUTCOMES, expects=Expectations(drift=is_declared))
    names = loans(store, tmp_path)
    for day in range(8):
        later = LATER + timedelta(days=day)
        assert load(store, tmp_path, f"usual{day}", names, feed, later=later, share=0.1) == []
    found = load(store, tmp_path, "inverted", names, feed, later=LATER * 2, share=0.9)
    assert [(each.subject, each.level) for each in found if each.check == "mix"] == [("repaid", level)]


def loans(store: Store, directory: Path) -> list[str]:
    for week in range(4):
        load_week(store, directory, week)
    return [f"l{number}" for number in range(4 * A_WEEK)]
