"""A back-out of a batch of labels taints the versions with training or held-out rows whose labels are from it (R7)."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.control.backout.backout import execute_backout, plan_backout
from holdfast.control.maintenance.verify import verify
from holdfast.control.training.train import Trained, train
from holdfast.declaration import Model
from holdfast.features import Aggregate
from holdfast.feeds import Feed
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.tables.backout import KeepVersions, TaintVersions, explain
from holdfast.tables.row_use import RowUse
from tests.support.late_labels import (
    A_WEEK,
    LOANS,
    MODEL,
    OUTCOMES,
    START,
    is_repaid,
    load_labels,
    load_week,
    loan_time,
    micros,
    model,
    snapshot_of,
)  # fmt: skip

WEEKS = 4
NOW = START + timedelta(weeks=WEEKS)
DELAY, HOLDOUT_DAYS = timedelta(days=1), 7
Labels = list[tuple[int, bool, timedelta]]
"""The number of a loan, its label, and when that became known, after `START`."""


def train_all(store: Store, declared: Model) -> Trained:
    return train(store, declared, snapshot_of(store, declared, NOW).snapshot, now_us=micros(NOW))


def planned(store: Store, batch: str, feed: str = "outcomes") -> dict[str, RowUse]:
    """What a plan to back `batch` out states of each version."""
    found = {}
    for step in plan_backout(store, MODEL.feeds, BatchId(feed, batch)).steps:
        if isinstance(step, TaintVersions):
            found |= dict.fromkeys(step.versions, RowUse.TRAINED)
            found |= dict.fromkeys(step.evaluated, RowUse.EVALUATED)
        elif isinstance(step, KeepVersions):
            found |= dict.fromkeys(step.versions, RowUse.UNUSED)
    return found


def load_all(store: Store, directory: Path, own: set[int], batches: dict[str, Labels]) -> None:
    for week in range(WEEKS):
        load_week(store, directory, week, labelled=week in own)
    for name, labels in batches.items():
        load_labels(store, directory, name, [(loan, value, START + at) for loan, value, at in labels])


def make_batches(seed: int) -> dict[str, Labels]:
    """First labels of most loans in one batch; small ones with corrections, repetitions and labels of the last days."""
    rng = random.Random(seed)
    last = WEEKS * A_WEEK
    first = [
        (loan, is_repaid(loan), loan_time(loan) - START + timedelta(hours=30)) for loan in range(last - 20)
    ]
    found = {"first": first}
    for number in range(10):
        center = rng.randrange(last)
        found[f"b{number}"] = [
            (
                loan,
                rng.random() < 0.5,
                # Whole hours, so that two batches label one loan at one time.
                timedelta(
                    hours=round((loan_time(loan) - START) / timedelta(hours=1)) + rng.choice([2, 50, 50, 400])
                ),
            )
            for loan in {min(last - 1, max(0, center + rng.randint(-4, 4))) for _ in range(rng.randint(1, 5))}
        ]
    return found


def use_by_hand(own: set[int], batches: dict[str, Labels], corrections: str) -> dict[str, RowUse]:
    """The use of each batch, loan by loan, from the words of the documentation."""
    history = defaultdict(list)
    for name, labels in batches.items():
        for loan, value, at in labels:
            history[loan].append((START + at, value, name))
    known = {}  # loan: when its label became known, and the batches that it is from
    for loan in range(WEEKS * A_WEEK):
        times = sorted(history[loan])
        if loan // A_WEEK in own:
            due = min(loan_time(loan) + DELAY, NOW)
            before = min([due, *(at - timedelta(microseconds=1) for at, _, _ in times)])
            times = [(before, is_repaid(loan), ""), *times]
        times = [each for each in times if each[0] <= NOW]
        if corrections == "first":
            times = [each for each in times if each[:2] == times[0][:2]]
        while len(times) > 1 and any(each[1] != times[-1][1] for each in times):
            times = times[1:]  # what was known before the last change
        if times:
            at, value = times[0][:2]
            known[loan] = (at, {name for when, what, name in times if (when, what) == (at, value)})
    due = {loan: found for loan, found in known.items() if loan_time(loan) + DELAY <= NOW}
    newest = loan_time(max(due)).replace(hour=0, minute=0, second=0, microsecond=0)
    split = newest - timedelta(days=HOLDOUT_DAYS - 1)
    trained, held_out = set(), set()
    for loan, (at, names) in due.items():
        if loan_time(loan) >= split:
            held_out |= names
        elif loan_time(loan) < split - DELAY and at < split:
            trained |= names
    return {
        name: RowUse.TRAINED if name in trained else RowUse.EVALUATED if name in held_out else RowUse.UNUSED
        for name in batches
    }


@pytest.mark.parametrize("seed", range(5))
def test_what_is_stated_of_a_version_is_what_it_did_with_the_labels(tmp_path: Path, seed: int) -> None:
    store = Store.open(tmp_path / "store")
    own = {1, 3} if seed % 2 else set()
    corrections = "first" if seed == 4 else "latest"
    declared = model(Feed("outcomes", OUTCOMES.contract, labels_for="loans", corrections=corrections))
    batches = make_batches(seed)
    load_all(store, tmp_path, own, batches)
    trained = train_all(store, declared)
    expected = use_by_hand(own, batches, corrections)
    assert {RowUse.TRAINED, RowUse.UNUSED} <= set(expected.values()), "the case is worth its time"
    both = (trained.version, trained.heuristic)
    assert {name: planned(store, name) for name in batches} == {
        name: dict.fromkeys(both, use) for name, use in expected.items()
    }
    assert [each.subject for each in verify(store, now_us=micros(NOW)).findings] == []


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Labels of loans that are trained on, of loans held out, and of loans of the last day, which are not due."""
    store = Store.open(tmp_path / "store")
    last = WEEKS * A_WEEK
    loans = {"old": range(150), "new": range(last - 50, last - 12), "undue": range(last - 8, last)}
    soon = timedelta(hours=2)
    batches = {
        name: [
            (loan, is_repaid(loan), loan_time(loan) - START + soon)
            for loan in each
            if loan_time(loan) + soon <= NOW
        ]
        for name, each in loans.items()
    }
    load_all(store, tmp_path, set(), batches)
    return store


def test_a_batch_of_labels_that_were_not_due_keeps_the_versions(store: Store) -> None:
    trained = train_all(store, MODEL)
    both = (trained.version, trained.heuristic)
    assert [planned(store, name) for name in ("old", "new", "undue")] == [
        dict.fromkeys(both, use) for use in (RowUse.TRAINED, RowUse.EVALUATED, RowUse.UNUSED)
    ]
    done = execute_backout(
        store, MODEL.feeds, BatchId("outcomes", "undue"), reason="swapped", actor="ann", now_us=micros(NOW)
    )
    lines = list(explain(done.plan.steps))
    assert any(line.startswith("keep 2 versions") for line in lines)
    assert not any("taint 2 versions" in line or "train again" in line for line in lines)
    again = train_all(store, MODEL)
    assert (again.version, again.is_new) == (trained.version, False), "without these labels it is the same"


def test_labels_that_an_aggregate_reads_are_held_for_trained_on(store: Store, tmp_path: Path) -> None:
    early = [(loan, is_repaid(loan), loan_time(loan) - timedelta(hours=1)) for loan in range(20, 150)]
    load_labels(store, tmp_path, "early", early)  # values for the aggregate
    aggregate = Aggregate(
        "repaid_before",
        over="outcomes",
        by="id",
        value="repaid",
        known_at="known_at",
        window="1d",
        every="1h",
    )
    declared = Model(
        "loan",
        examples=LOANS,
        feeds=MODEL.feeds,
        contract=LOANS.contract,
        features=MODEL.features,
        aggregates=(aggregate,),
        learner=MODEL.learner,
        heuristic=MODEL.heuristic,
        holdout="7d",
    )
    trained = train_all(store, declared)
    assert planned(store, "undue") == dict.fromkeys((trained.version, trained.heuristic), RowUse.TRAINED)
