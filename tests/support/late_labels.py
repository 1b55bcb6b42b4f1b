"""Loans whose labels become known ten days later, in a feed of their own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from holdfast.contract import Boolean, Contract, Label, Number, Text, Timestamp
from holdfast.control.ingest.ingest import ingest
from holdfast.control.training.examples import Examples, read_examples
from holdfast.declaration import Model
from holdfast.features import Passthrough, Weekday
from holdfast.feeds import Expectations, Feed
from holdfast.records import Level
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from holdfast.tables import Snapshot
from holdfast.train import GroupMean, LogisticRegression
from tests.support.queries import write

START = datetime(2024, 1, 1, tzinfo=UTC)
WEEKS = 8
A_WEEK = 70
LATER = timedelta(days=10)
LOANS = Feed(
    "loans",
    Contract(
        Text("id"),
        Number("income", unit="EUR"),
        Timestamp("at", tz="UTC"),
        key="id",
        event_time="at",
        label=Label("repaid", delay="1d", missing="keep"),
    ),
    expects=Expectations(drift=True),
)
OUTCOMES = Feed(
    "outcomes",
    Contract(
        Text("id"), Boolean("repaid"), Timestamp("known_at", tz="UTC"),
        key=("id", "known_at"), event_time="known_at",
    ),
    labels_for="loans",
)  # fmt: skip

BY_PREDICTION = Feed(
    "outcomes",
    Contract(
        Text("prediction_id"), Boolean("repaid"), Timestamp("known_at", tz="UTC"),
        key=("prediction_id", "known_at"), event_time="known_at",
    ),
    labels_for="loans",
)  # fmt: skip


def model(*label_feeds: Feed) -> Model:
    return Model(
        "loan",
        examples=LOANS,
        feeds=(LOANS, *label_feeds),
        contract=LOANS.contract,
        features=(Passthrough("income"),),
        learner=LogisticRegression(),
        heuristic=GroupMean(by=(Weekday("at"),)),
        holdout="7d",
    )


MODEL = model(OUTCOMES)


def micros(time: datetime) -> int:
    return round(time.timestamp() * 1_000_000)


def loan_time(number: int) -> datetime:
    return START + timedelta(weeks=1) * number / A_WEEK


def is_repaid(number: int) -> bool:
    return number * 37 % 100 < 30 + number % 11


def load_week(store: Store, directory: Path, week: int, *, labelled: bool = False) -> Level | None:
    """Load a week of loans; without labels the file has no column of them."""
    numbers = range(week * A_WEEK, (week + 1) * A_WEEK)
    frame = pl.DataFrame(
        {
            "id": [f"l{number}" for number in numbers],
            "income": [float(number * 37 % 100) for number in numbers],
            "at": [loan_time(number) for number in numbers],
        }
    )
    if labelled:
        frame = frame.with_columns(repaid=pl.Series([is_repaid(number) for number in numbers]))
    frame.write_csv(path := directory / f"week{week}.csv", datetime_format="%Y-%m-%dT%H:%M:%S%.fZ")
    found = ingest(store, LOANS, f"week{week}", str(path), now_us=micros(START + timedelta(weeks=week + 1)))
    return max((each.level for each in found.violations), default=None)


def load_labels(store: Store, directory: Path, batch: str, labels: list[tuple[int, bool, datetime]]) -> None:
    frame = pl.DataFrame(
        [(f"l{number}", value, at) for number, value, at in labels],
        schema={"id": pl.String, "repaid": pl.Boolean, "known_at": pl.Datetime("us", "UTC")},
        orient="row",
    )
    frame.write_parquet(path := directory / f"{batch}.parquet")
    ingest(store, OUTCOMES, batch, str(path), now_us=1)


def load_labels_of(store: Store, directory: Path, week: int) -> None:
    numbers = range(week * A_WEEK, (week + 1) * A_WEEK)
    labels = [(number, is_repaid(number), loan_time(number) + LATER) for number in numbers]
    load_labels(store, directory, f"week{week}", labels)


def snapshot_of(store: Store, declared: Model, at: datetime) -> Snapshot:
    return write(
        store,
        snapshots.create,
        store.root,
        [feed.name for feed in declared.feeds],
        contract_hash=declared.contract.hash,
        now_us=micros(at),
        label_delays_us=declared.label_delays_us,
        may_be_empty={feed.name for feed in declared.label_feeds},
    )


def examples_at(store: Store, declared: Model, at: datetime) -> Examples:
    return read_examples(store, declared, (), snapshot_of(store, declared, at).snapshot)
