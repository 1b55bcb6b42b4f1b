"""No label is used before it was due (R55, R65): neither by training, nor by the rows that the gates judge by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from holdfast.contract import Contract, Label, Number, Text, Timestamp
from holdfast.control.ingest.ingest import ingest
from holdfast.control.training.examples import read_examples
from holdfast.control.training.train import train
from holdfast.declaration import Model
from holdfast.errors import InputError
from holdfast.features import Passthrough, Weekday
from holdfast.feeds import Feed
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from holdfast.train import GroupMean, LogisticRegression
from tests.support.queries import write

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 30
DELAY_DAYS = 4
ROWS = Feed(
    "loans",
    Contract(
        Text("id"),
        Number("income", unit="EUR"),
        Timestamp("at", tz="UTC"),
        key="id",
        event_time="at",
        label=Label("default", delay=f"{DELAY_DAYS}d", missing="keep"),
    ),
)
MODEL = Model(
    "loan-default",
    examples=ROWS,
    feeds=(ROWS,),
    contract=ROWS.contract,
    features=(Passthrough("income"),),
    learner=LogisticRegression(),
    heuristic=GroupMean(by=(Weekday("at"),)),
    holdout="5d",
)


def micros(timestamp: datetime) -> int:
    return round(timestamp.timestamp() * 1_000_000)


def load(store: Store, directory: Path, first_day: int, days: int) -> None:
    """Four loans a day, each with a label at once, whatever it is worth by then."""
    numbers = range(first_day * 4, (first_day + days) * 4)
    path = directory / f"{first_day}.parquet"
    pl.DataFrame(
        {
            "id": [f"l{number}" for number in numbers],
            "income": [float(number * 37 % 100) for number in numbers],
            "at": [START + timedelta(hours=6 * number) for number in numbers],
            "default": [number * 37 % 100 < 30 + number % 11 for number in numbers],
        }
    ).write_parquet(path)
    ingest(store, ROWS, str(first_day), path, now_us=1)


def test_a_label_that_was_not_due_when_the_snapshot_was_made_takes_no_part(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    load(store, tmp_path, 0, DAYS)
    made = START + timedelta(days=DAYS)
    snapshot = write(
        store, snapshots.create, store.root, ["loans"], contract_hash=MODEL.contract.hash, now_us=micros(made)
    ).snapshot

    examples = read_examples(store, MODEL, (), snapshot)
    assert examples.not_due == DELAY_DAYS * 4 - 1  # a label is due at the very time of event time plus delay
    assert examples.unlabelled == 0
    assert examples.frame["at"].max() == made - timedelta(days=DELAY_DAYS)

    year_later = micros(made + timedelta(days=365))
    trained = train(store, MODEL, snapshot, now_us=year_later)
    # The newest of five held-out days is the one that had just become due; four days before them are embargoed.
    assert trained.rows_not_due == DELAY_DAYS * 4 - 1
    assert trained.rows_held_out == 4 * 4 + 1
    assert trained.rows_embargoed == DELAY_DAYS * 4
    assert trained.rows_trained == DAYS * 4 - (trained.rows_not_due + trained.rows_held_out + 16)
    assert train(store, MODEL, snapshot, now_us=year_later + 1).version == trained.version

    load(store, tmp_path, DAYS, 1)
    later = write(
        store, snapshots.create, store.root, ["loans"], contract_hash=MODEL.contract.hash, now_us=year_later
    ).snapshot
    assert read_examples(store, MODEL, (), later).not_due == 0
    assert read_examples(store, MODEL, (), snapshot).not_due == DELAY_DAYS * 4 - 1


def test_labels_of_which_none_is_due_train_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    load(store, tmp_path, 0, 2)
    snapshot = write(
        store,
        snapshots.create,
        store.root,
        ["loans"],
        contract_hash=MODEL.contract.hash,
        now_us=micros(START + timedelta(days=2)),
    ).snapshot
    with pytest.raises(InputError, match="8 of them with a label and none with one that was due") as refused:
        train(store, MODEL, snapshot, now_us=micros(START + timedelta(days=9)))
    assert refused.value.code == "HF401"
