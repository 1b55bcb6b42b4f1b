"""Labels of a feed of their own train: each row by the label that was known at the snapshot, none before it was known."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from holdfast.contract import Contract, Text, Timestamp
from holdfast.control.backout.backout import execute_backout
from holdfast.control.training.examples import read_examples, split_days
from holdfast.control.training.train import train
from holdfast.errors import InputError, RefusedError
from holdfast.feeds import Feed
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.tables.labels import KNOWN_AT
from tests.support.late_labels import (
    A_WEEK,
    LATER,
    LOANS,
    MODEL,
    OUTCOMES,
    START,
    WEEKS,
    examples_at,
    is_repaid,
    load_labels,
    load_labels_of,
    load_week,
    loan_time,
    micros,
    model,
    snapshot_of,
)  # fmt: skip
from tests.support.queries import read


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


def test_a_correction_before_a_rows_own_label_is_due_counts(tmp_path: Path, store: Store) -> None:
    load_week(store, tmp_path, 0, labelled=True)
    soon = timedelta(hours=6)  # the label is due after a day
    load_labels(store, tmp_path, "corrected", [(0, not is_repaid(0), loan_time(0) + soon)])
    frame = examples_at(store, MODEL, START + timedelta(weeks=2)).frame
    assert frame.filter(pl.col("id") == "l0")["repaid"].to_list() == [not is_repaid(0)]


def test_a_rows_own_label_that_is_not_due_is_counted_as_not_due_with_a_label_feed(
    tmp_path: Path, store: Store
) -> None:
    load_week(store, tmp_path, 0, labelled=True)
    load_labels(store, tmp_path, "other", [(1, is_repaid(1), loan_time(1) + LATER)])
    found = examples_at(store, MODEL, START + timedelta(days=4))
    assert found.unlabelled == 0
    assert found.frame.height + found.not_due == A_WEEK
    assert found.not_due > 0


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
