"""Labels of a feed of their own train: each row by the label that was known at the snapshot, none before it was known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from holdfast.contract import Boolean, Contract, Label, Number, Text, Timestamp
from holdfast.control.backout.backout import execute_backout
from holdfast.control.ingest.ingest import ingest
from holdfast.control.training.examples import Examples, read_examples, split_days
from holdfast.control.training.train import train
from holdfast.declaration import Model
from holdfast.errors import InputError, RefusedError
from holdfast.features import Passthrough, Weekday
from holdfast.feeds import Expectations, Feed
from holdfast.records import BatchId, Level
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.catalog import snapshots
from holdfast.tables import Snapshot
from holdfast.tables.labels import KNOWN_AT
from holdfast.train import GroupMean, LogisticRegression
from tests.support.queries import read, write

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


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_weeks_without_labels_load_clean_and_train_once_their_labels_come(
    tmp_path: Path, store: Store
) -> None:
    levels = [load_week(store, tmp_path, week, labelled=week < 4) for week in range(WEEKS)]
    assert levels == [None] * WEEKS
    end = START + timedelta(weeks=WEEKS)
    before = examples_at(store, MODEL, end)
    assert (before.frame.height, before.unlabelled) == (4 * A_WEEK, 4 * A_WEEK)

    for week in (4, 5, 6):
        load_labels_of(store, tmp_path, week)
    snapshot = snapshot_of(store, MODEL, end)
    after = read_examples(store, MODEL, (), snapshot.snapshot)
    # The label of a loan of week 6 became known ten days later: of some only after the snapshot was made.
    known = [number for number in range(4 * A_WEEK, 7 * A_WEEK) if loan_time(number) + LATER <= end]
    assert set(after.frame["id"]) == {f"l{number}" for number in (*range(4 * A_WEEK), *known)}
    assert after.unlabelled == WEEKS * A_WEEK - 4 * A_WEEK - len(known)
    assert after.frame["repaid"].to_list() == [is_repaid(int(name[1:])) for name in after.frame["id"]]

    split = split_days(MODEL, after.frame)
    assert split.train[KNOWN_AT].max() < split.split_at_us <= split.holdout["at"].dt.epoch("us").min()  # type: ignore[operator]  # Polars types a maximum as anything
    assert split.embargoed == after.frame.height - split.train.height - split.holdout.height
    trained = train(store, MODEL, snapshot.snapshot, now_us=micros(end))
    assert (trained.rows_unlabelled, trained.rows_trained) == (after.unlabelled, split.train.height)


def test_a_label_before_the_cutoff_is_not_replaced_by_a_correction_after_it(
    tmp_path: Path, store: Store
) -> None:
    load_week(store, tmp_path, 0)
    first, corrected = START + timedelta(days=10), START + timedelta(days=40)
    load_labels(store, tmp_path, "month1", [(number, True, first) for number in range(A_WEEK)])
    load_labels(store, tmp_path, "month2", [(3, False, corrected), (4, True, corrected)])
    early = examples_at(store, MODEL, corrected - timedelta(days=1)).frame
    assert early["repaid"].all()
    late = examples_at(store, MODEL, corrected + timedelta(days=1)).frame
    assert late.filter(~pl.col("repaid"))["id"].to_list() == ["l3"]
    # What was sent twice became known when it was sent first.
    assert dict(late.select("id", KNOWN_AT).rows())["l4"] == micros(first)
    kept = model(Feed("outcomes", OUTCOMES.contract, labels_for="loans", corrections="first"))
    assert examples_at(store, kept, corrected + timedelta(days=1)).frame["repaid"].all()


def test_a_backed_out_batch_of_labels_taints_what_was_trained_on_it(tmp_path: Path, store: Store) -> None:
    for week in range(WEEKS):
        load_week(store, tmp_path, week)
        load_labels_of(store, tmp_path, week)
    end = START + timedelta(weeks=WEEKS + 4)
    trained = train(store, MODEL, snapshot_of(store, MODEL, end).snapshot, now_us=micros(end))
    done = execute_backout(
        store,
        MODEL.feeds,
        BatchId("outcomes", "week3"),
        reason="a wrong month",
        actor="ann",
        now_us=micros(end),
    )
    assert {trained.version, trained.heuristic} <= set(done.plan.versions)
    with pytest.raises(RefusedError, match="HF406"):
        read(store, taints.refuse, "version", trained.version)
    again = examples_at(store, MODEL, end + timedelta(days=1))
    assert again.unlabelled == A_WEEK
    load_labels_of(store, tmp_path, 3)
    assert examples_at(store, MODEL, end + timedelta(days=2)).unlabelled == 0


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (lambda: Feed("o", OUTCOMES.contract, labels_for="o"), "it cannot label its own rows"),
        (
            lambda: Feed(
                "o",
                Contract(Text("id"), Timestamp("known_at", tz="UTC"), key="id", event_time="known_at"),
                labels_for="loans",
            ),
            r"declare key=\('id', 'known_at'\)",
        ),
        (
            lambda: model(Feed("o", OUTCOMES.contract, labels_for="rows")),
            "labels 'rows', which is not the feed",
        ),
        (lambda: model(Feed("o", LOANS.contract, labels_for="loans")), "declare key="),
        (
            lambda: model(OUTCOMES, Feed("late", OUTCOMES.contract, labels_for="loans", corrections="first")),
            "declare different corrections",
        ),
    ],
)
def test_a_label_feed_that_cannot_be_joined_is_refused(declared: object, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        declared()  # type: ignore[operator]  # the table holds functions
