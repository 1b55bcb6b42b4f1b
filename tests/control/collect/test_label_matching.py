"""Matching reads the labels that came since, and gives the predictions the labels that all labels together give them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from holdfast.control.backout.backout import execute_backout
from holdfast.control.collect import key_labels as sent_by_key
from holdfast.control.collect import label_history
from holdfast.control.collect.feed_labels import LEAST_REST_US, FeedLabels, declare_corrections
from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.compact import compact
from holdfast.control.maintenance.compact_collected import compact_collected
from holdfast.control.training.feedback_labels import load_key_feedback
from holdfast.declaration import Model
from holdfast.errors import RefusedError
from holdfast.feedback import FEED_SOURCE
from holdfast.records import BatchId
from holdfast.store.catalog import batches
from holdfast.store.files import data_files, parquet
from holdfast.store.telemetry import collected_log, labels
from holdfast.store.telemetry.collected_log import CollectedFile
from holdfast.tables.collected_files import OPEN_FILES
from holdfast.tables.labels import KNOWN_AT
from tests.control.collect.test_feed_labels import HOUR_US, NOW_US, Served
from tests.support.late_labels import (
    A_WEEK,
    BY_PREDICTION,
    MODEL,
    WEEKS,
    is_repaid,
    load_labels,
    loan_time,
    micros,
    model,
)

_AGAIN = 10_000
"""Prediction N + _AGAIN is of loan N too."""
_DAY_US = 24 * HOUR_US
_LAST = (WEEKS - 1) * A_WEEK
_FUTURE = (WEEKS + 4) * A_WEEK
_LOANS = [*range(_LAST, _LAST + 5), *range(_FUTURE, _FUTURE + 5)]


@dataclass
class World:
    """A store in which labels come, go and change at random, and the clock of its loop."""

    served: Served
    model: Model
    random: np.random.Generator
    now_us: int = NOW_US
    predicted: set[int] = field(default_factory=set)
    live: set[BatchId] = field(default_factory=set)
    removed: set[BatchId] = field(default_factory=set)
    loaded: int = 0

    def _time(self) -> int:
        return self.now_us + int(self.random.integers(-3 * 24, 24)) * HOUR_US

    def _some(self) -> list[int]:
        return [int(each) for each in self.random.choice(_LOANS, self.random.integers(1, 4), replace=False)]

    def predict(self) -> None:
        first = int(self.random.choice([0, _AGAIN]))
        new = [loan for loan in self._some() if loan + first not in self.predicted]
        self.served.predict(*new, first=first)
        self.predicted.update(loan + first for loan in new)

    def load_labels(self) -> None:
        self.loaded += 1
        self._load_labels(BatchId("outcomes", f"b{self.loaded}"))

    def _load_labels(self, batch: BatchId) -> None:
        feed = self.model.label_feeds[0]
        by_prediction = feed.label_key == ("prediction_id",)
        rows = [
            (
                f"s1-1-{loan + int(self.random.choice([0, _AGAIN]))}" if by_prediction else f"l{loan}",
                bool(self.random.integers(2)),
                self._time(),
            )
            for loan in self._some()
        ]
        time = pl.col("known_at").cast(pl.Datetime("us", "UTC"))
        frame = pl.DataFrame(rows, [*feed.label_key, "repaid", "known_at"], orient="row").with_columns(time)
        self._ingest(batch, frame)

    def load_rows(self) -> None:
        self.loaded += 1
        self._load_rows(BatchId("loans", f"r{self.loaded}"))

    def _load_rows(self, batch: BatchId) -> None:
        loans = self._some()
        frame = pl.DataFrame(
            {
                "id": [f"l{loan}" for loan in loans],
                "income": [float(self.loaded)] * len(loans),
                "at": [loan_time(loan) for loan in loans],
                "repaid": [is_repaid(loan) for loan in loans],
            }
        )
        self._ingest(batch, frame)

    def _ingest(self, batch: BatchId, frame: pl.DataFrame) -> None:
        path = self.served.directory / f"{batch.batch}.parquet"
        frame.write_parquet(path)
        feed = next(feed for feed in self.model.feeds if feed.name == batch.feed)
        try:
            ingest(self.served.store, feed, batch.batch, path, now_us=self.now_us)
        except RefusedError:  # of rows that are all there already
            return
        self.live.add(batch)
        self.removed.discard(batch)

    def backout(self) -> None:
        if self.live:
            batch = sorted(self.live, key=str)[self.random.integers(len(self.live))]
            execute_backout(
                self.served.store, self.model.feeds, batch, reason="wrong", actor="ann", now_us=self.now_us
            )
            self.live.remove(batch)
            self.removed.add(batch)

    def load_again(self) -> None:
        if self.removed:
            batch = sorted(self.removed, key=str)[self.random.integers(len(self.removed))]
            (self._load_labels if batch.feed == "outcomes" else self._load_rows)(batch)

    def send(self) -> None:
        if self.predicted:
            prediction = sorted(self.predicted)[self.random.integers(len(self.predicted))]
            self.served.send(prediction, float(self.random.integers(2)), self.now_us)

    def send_by_key(self) -> None:
        self.served.send_by_key(self._some()[0], float(self.random.integers(2)), self.now_us)

    def load_sent(self) -> None:
        found = load_key_feedback(self.served.store, self.model, now_us=self.now_us)
        if found is not None:
            self.live.add(BatchId("outcomes", found.batch))

    def compact(self) -> None:
        compact(self.served.store, now_us=self.now_us)

    def turn(self) -> None:
        """Run a round of the loop, soon after the one before."""
        self.now_us += int(self.random.integers(1, HOUR_US // 4))
        self.served.round(at_us=self.now_us)

    def turns_of_a_day(self) -> None:
        self.now_us += int(self.random.integers(HOUR_US, _DAY_US))
        for _ in range(2):
            self.served.round(at_us=self.now_us)
            self.now_us += 1

    def outcomes(self) -> dict[int, float]:
        """Return the labels of predictions after complete matchings. A label is matched before it is joined first."""
        for _ in range(2):
            self.now_us += HOUR_US
            found = self.served.round(at_us=self.now_us)
        return {int(name.rpartition("-")[2]): label for name, label in found.items()}

    def expected(self) -> dict[int, float]:
        """Return the labels that predictions should have, from every row that is there."""
        feed, store = self.model.label_feeds[0], self.served.store
        with store.ledger.read() as connection:
            version = batches.current_version(connection)
            after = sent_by_key.loaded_until(connection, sent_by_key.feed_of(self.model))
            sent = sent_by_key.read(connection, self.model, after)
            ids = [f"s1-1-{number}/0" for number in sorted(self.predicted)]
            held = labels.histories(connection, ids)
        others: dict[str, list[tuple[int, bool]]] = {}
        for key, value, at_us in sent.select("id", "repaid", KNOWN_AT).iter_rows():
            others.setdefault(key, []).append((at_us, value))
        rows = data_files.read_rows(store, version, feed.name)
        for row in rows.iter_rows(named=True):
            key = row.get("id")
            if key is None:
                number = int(row["prediction_id"].split("/")[0].rpartition("-")[2])
                key = f"l{number % _AGAIN}" if number in self.predicted else ""
            others.setdefault(key, []).append((micros(row["known_at"]), row["repaid"]))
        own: dict[str, list[tuple[int, bool]]] = {}
        for row in data_files.read_rows(store, version, "loans").iter_rows(named=True):
            if row["repaid"] is not None and micros(row["at"]) + _DAY_US <= self.now_us:
                first = min((at_us for at_us, _ in others.get(row["id"], [])), default=2**62)
                own.setdefault(row["id"], []).append((min(micros(row["at"]), first - 1), row["repaid"]))
        expected: dict[int, float] = {}
        for number in self.predicted:
            key = f"l{number % _AGAIN}"
            callers = [
                (min(each.received_at_us, self.now_us), bool(each.value))
                for each in held
                if each.prediction_id == f"s1-1-{number}/0" and each.source != FEED_SOURCE
            ]
            known = [
                each
                for each in (*others.get(key, []), *own.get(key, []), *callers[-1:])
                if each[0] <= self.now_us
            ]
            if known:
                expected[number] = float(max(known)[1])
        return expected


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    world = Served(tmp_path)
    yield world
    world.store.ledger.close()


@pytest.mark.parametrize(
    ("declared", "seed"), [(MODEL, 1), (model(BY_PREDICTION), 2)], ids=["by key", "by prediction id"]
)
def test_predictions_have_the_labels_that_all_rows_together_give_them(
    served: Served, declared: Model, seed: int
) -> None:
    world = World(served, declared, np.random.default_rng(seed))
    served.concern = FeedLabels(declared)
    declare_corrections(served.store, declared, now_us=NOW_US)
    actions = [
        world.predict, world.predict, world.load_labels, world.load_labels, world.load_rows, world.backout, world.load_again,
        world.send, world.send_by_key, world.load_sent, world.compact, world.turn, world.turn, world.turns_of_a_day,
    ]  # fmt: skip
    for place in range(60):
        actions[world.random.integers(len(actions))]()
        if place % 6 == 5:
            assert world.outcomes() == world.expected(), place


def test_for_the_labels_of_a_load_only_its_file_is_read_and_for_a_correction_every_file_in_parts(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, int]] = []
    whole = parquet.read_in_parts

    def counted(path: Path, *arguments: Any, **named: Any) -> Iterator[pl.DataFrame]:
        for frame in whole(path, *arguments, **named):
            read.append((path.name, frame.height))
            yield frame

    monkeypatch.setattr(parquet, "read_in_parts", counted)
    monkeypatch.setattr(label_history, "ROWS_AT_ONCE", 50)
    served.predict(_LAST, _LAST + 1)
    assert served.round() == {}
    assert len(read) >= 2 * (WEEKS - 1), "a week has 70 rows"
    read.clear()
    known = loan_time(_LAST)
    load_labels(served.store, served.directory, "b1", [(_LAST, True, known)])
    assert served.round(at_us=NOW_US + 1) == {f"s1-1-{_LAST}": 1.0}
    assert [rows for _, rows in read] == [1]
    read.clear()
    assert served.round(at_us=NOW_US + 2) == {f"s1-1-{_LAST}": 1.0}
    assert read == []
    load_labels(served.store, served.directory, "b2", [(_LAST, False, known + timedelta(days=1))])
    assert served.round(at_us=NOW_US + 3) == {f"s1-1-{_LAST}": 0.0}
    assert len({name for name, _ in read}) == WEEKS + 2
    assert max(rows for _, rows in read) == 50


@pytest.mark.parametrize("declared", [MODEL, model(BY_PREDICTION)], ids=["by key", "by prediction id"])
@pytest.mark.parametrize("between", ["nothing", "a load of another label", "a merge of files"])
def test_a_prediction_that_is_collected_after_its_label_is_labelled_after_a_short_rest(
    served: Served, declared: Model, between: str
) -> None:
    served.concern = FeedLabels(declared)
    by_prediction = declared.label_feeds[0].label_key == ("prediction_id",)
    key = "prediction_id" if by_prediction else "id"
    first, other = f"s1-1-{_LAST}", f"s1-1-{_LAST + 1}"

    def load(batch: str, loan: int) -> None:
        time = pl.col("known_at").cast(pl.Datetime("us", "UTC"))
        names = {key: [f"s1-1-{loan}" if by_prediction else f"l{loan}"]}
        frame = pl.DataFrame(names | {"repaid": [True], "known_at": [loan_time(loan)]}).with_columns(time)
        frame.write_parquet(served.directory / f"{batch}.parquet")
        ingest(
            served.store, declared.label_feeds[0], batch, served.directory / f"{batch}.parquet", now_us=NOW_US
        )

    now_us = NOW_US
    load("b1", _LAST)
    assert served.round(at_us=now_us) == {}
    for loan in (_LAST, _LAST + 1):
        served.predict(loan)
        now_us += LEAST_REST_US
        assert served.round(at_us=now_us) == {first: 1.0}, "the label was there before the prediction"
    again = [f"s1-1-{_LAST + each * _AGAIN}" for each in range(1, OPEN_FILES + 1)]
    for place in range(1, len(again) + 1):
        served.predict(_LAST, first=place * _AGAIN)
        assert served.round(at_us=now_us + place) == {first: 1.0}, "the matching rests"
    expected = dict.fromkeys((first, *again), 1.0)
    if between == "a load of another label":
        load("b2", _LAST + 1)
        expected[other] = 1.0
        assert served.round(at_us=now_us + 100) == {first: 1.0, other: 1.0}
    if between == "a merge of files":
        before = len(served.collected_files())
        compact_collected(served.store, now_us=now_us + 100)
        assert len(served.collected_files()) < before
    assert served.round(at_us=now_us + LEAST_REST_US) == expected


def test_when_only_predictions_are_new_no_other_prediction_is_read(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = collected_log.read_file_inputs

    def counted(root: Path, file: CollectedFile) -> Any:
        read.append(file.path)
        return whole(root, file)

    monkeypatch.setattr(collected_log, "read_file_inputs", counted)
    load_labels(served.store, served.directory, "b1", [(_LAST, True, loan_time(_LAST))])
    served.predict(_LAST)
    served.round()
    served.predict(_LAST, first=_AGAIN)
    earlier = set(served.collected_files())
    read.clear()
    served.round(at_us=NOW_US + LEAST_REST_US)
    assert {served.store.root / path for path in read} == set(served.collected_files()) - earlier
    read.clear()
    served.round(at_us=NOW_US + 3 * LEAST_REST_US)
    assert read == []
