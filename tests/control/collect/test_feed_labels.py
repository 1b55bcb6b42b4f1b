"""Labels of a feed and labels by feedback are the same labels: those that train are those that quality is computed from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import select

from holdfast.control.backout.backout import execute_backout
from holdfast.control.collect import collector, prediction_keys
from holdfast.control.collect.feed_labels import FeedLabels, declare_corrections
from holdfast.control.ingest.acceptance import accept
from holdfast.control.ingest.ingest import ingest
from holdfast.control.training.feedback_labels import load_corrections, load_feedback, load_key_feedback
from holdfast.control.training.train import train
from holdfast.declaration import Model
from holdfast.errors import IntegrityError
from holdfast.feedback import Joined
from holdfast.feeds import Expectations
from holdfast.records import BatchId, Corrections
from holdfast.store import Store
from holdfast.store.db import events, leases, schema
from holdfast.store.db.leases import Lease
from holdfast.store.integrations import openlineage
from holdfast.store.serving import servers
from holdfast.store.serving.prediction_log import FeedbackRecord, KeyFeedbackRecord, PredictionRecord, frame
from holdfast.store.serving.servers import Server
from holdfast.store.telemetry import collected_log, key_labels, labels, quarantined_labels
from tests.support.late_labels import (
    A_WEEK,
    BY_PREDICTION,
    MODEL,
    OUTCOMES,
    START,
    WEEKS,
    examples_at,
    is_repaid,
    load_labels,
    load_week,
    loan_time,
    micros,
    model,
    snapshot_of,
)  # fmt: skip

END = START + timedelta(weeks=WEEKS + 4)
NOW_US = micros(END)


class Served:
    """A store with a version, the log of its server, and the control loop's lease."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = Store.open(directory / "store")
        for week in range(WEEKS):
            load_week(self.store, directory, week, labelled=week < WEEKS - 1)
        snapshot = snapshot_of(self.store, MODEL, START + timedelta(weeks=WEEKS)).snapshot
        self.version = train(self.store, MODEL, snapshot, now_us=NOW_US).version
        self.log = directory / "log" / "s1"
        self.log.mkdir(parents=True)
        with self.store.ledger.write() as connection:
            servers.announce(connection, Server("s1", MODEL.name, "http://127.0.0.1:1", self.log, NOW_US))
            lease = leases.acquire(
                connection, "control-loan", holder="test", duration_us=10**9, now_us=NOW_US
            )
        assert isinstance(lease, Lease)
        self.lease = lease
        self.concern = FeedLabels(MODEL)

    def predict(self, *numbers: int, first: int = 0) -> None:
        """Log a prediction for each of these loans: prediction `s1-1-N` is of loan N less `first`."""
        records = [
            PredictionRecord(
                id=f"s1-1-{number + first}", at_us=NOW_US + number, event_time_us=NOW_US, unit=b"u", arm="champion",
                version=self.version, challenger_failed="", rollout=None, result="ok", latency_us=9, probabilities=[0.5],
                inputs=[[f"l{number}", 1.0, loan_time(number).isoformat()]],
            )
            for number in numbers
        ]  # fmt: skip
        self._log(*records)

    def log_request(self, name: str, inputs: list[list[object]]) -> None:
        """Log one request with several rows."""
        record = PredictionRecord(
            id=name, at_us=NOW_US, event_time_us=NOW_US, unit=b"u", arm="champion", version=self.version,
            challenger_failed="", rollout=None, result="ok", latency_us=9, probabilities=[0.5] * len(inputs),
            inputs=inputs,  # type: ignore[arg-type]
        )  # fmt: skip
        self._log(record)

    def send(self, number: int, value: float, at_us: int = NOW_US, source: str = "client") -> None:
        """Log a label by feedback."""
        self._log(FeedbackRecord(f"s1-1-{number}/0", value, source, at_us))

    def send_by_key(self, number: int, value: float, at_us: int = NOW_US) -> None:
        """Log a label that a caller sent by the key of loan `number`."""
        self._log(KeyFeedbackRecord(f'{{"id":"l{number}"}}', value, "crm", at_us))

    def _log(self, *records: PredictionRecord | FeedbackRecord | KeyFeedbackRecord) -> None:
        with (self.log / "00000001.log").open("ab") as segment:
            segment.writelines(map(frame, records))

    def round(self, *, at_us: int = NOW_US) -> dict[str, float]:
        """Run a round of the loop, and return the joined labels by prediction."""
        collector.collect(self.store, MODEL.name, self.lease, now_us=at_us)
        self.concern(self.store, MODEL.name, self.lease, now_us=at_us)
        collector.join(self.store, MODEL.name, self.lease, now_us=at_us)
        with self.store.ledger.read() as connection:
            rows = connection.execute(select(schema.outcomes.c.prediction_id, schema.outcomes.c.label)).all()
        return dict(sorted((name.removesuffix("/0"), label) for name, label in rows))

    def events(self, kind: str) -> list[str]:
        with self.store.ledger.read() as connection:
            return [each.explanation for each in events.newest(connection, kind=kind)]

    def collected_files(self) -> list[Path]:
        """Return the files of collected predictions, the oldest first."""
        with self.store.ledger.read() as connection:
            return [self.store.root / file.path for file in collected_log.files_of(connection, MODEL.name)]

    def backout(self, batch: str) -> None:
        """Back a batch of labels out."""
        execute_backout(
            self.store, MODEL.feeds, BatchId("outcomes", batch), reason="wrong", actor="ann", now_us=NOW_US
        )


LAST = (WEEKS - 1) * A_WEEK


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    world = Served(tmp_path)
    yield world
    world.store.ledger.close()


def test_labels_of_a_feed_are_joined_with_the_predictions_of_their_rows(served: Served) -> None:
    served.predict(LAST, LAST + 1, LAST + 2)
    known = START + timedelta(weeks=WEEKS)
    load_labels(served.store, served.directory, "b1", [(LAST, True, known), (LAST + 1, False, known)])
    assert served.round() == {f"s1-1-{LAST}": 1.0, f"s1-1-{LAST + 1}": 0.0}
    assert served.round() == {f"s1-1-{LAST}": 1.0, f"s1-1-{LAST + 1}": 0.0}

    load_labels(served.store, served.directory, "b2", [(LAST, False, known + timedelta(days=3))])
    assert served.round()[f"s1-1-{LAST}"] == 0.0, "corrected"
    execute_backout(
        served.store, MODEL.feeds, BatchId("outcomes", "b2"), reason="wrong", actor="ann", now_us=NOW_US
    )
    assert served.round()[f"s1-1-{LAST}"] == 1.0, "the label from before"
    execute_backout(
        served.store, MODEL.feeds, BatchId("outcomes", "b1"), reason="wrong", actor="ann", now_us=NOW_US
    )
    assert served.round() == {}


@pytest.mark.parametrize("declared", [MODEL, model()], ids=["with a label feed", "without"])
def test_labels_that_come_with_their_rows_label_predictions_once_they_are_due(
    served: Served, declared: Model
) -> None:
    """They train, so they count for quality too, and a back-out of the rows withdraws them."""
    served.concern = FeedLabels(declared)
    first = WEEKS * A_WEEK
    served.predict(first, first + 1)
    due_us = micros(loan_time(first) + timedelta(days=1))
    assert served.round(at_us=due_us - 2) == {}
    load_week(served.store, served.directory, WEEKS, labelled=True)
    assert served.round(at_us=due_us - 1) == {}, "not due"
    both = {f"s1-1-{number}": float(is_repaid(number)) for number in (first, first + 1)}
    assert served.round() == both
    rows = BatchId("loans", f"week{WEEKS}")
    execute_backout(served.store, declared.feeds, rows, reason="wrong", actor="ann", now_us=NOW_US)
    assert served.round(at_us=NOW_US + 1) == {}


def test_a_label_of_a_row_is_the_first_of_its_history(served: Served) -> None:
    first = WEEKS * A_WEEK
    served.predict(first, first + 1)
    served.send(first, 1.0 - is_repaid(first))
    load_week(served.store, served.directory, WEEKS, labelled=True)
    load_labels(
        served.store, served.directory, "b1", [(first + 1, not is_repaid(first + 1), loan_time(first))]
    )
    corrected = {f"s1-1-{number}": 1.0 - is_repaid(number) for number in (first, first + 1)}
    assert served.round() == corrected


def test_labels_of_a_suspect_batch_label_no_prediction_until_it_is_accepted(tmp_path: Path) -> None:
    """R15: what is held back from training is held back from quality, and from the evidence of rollouts."""
    served = Served(tmp_path)
    strict = replace(OUTCOMES, expects=Expectations(max_future="1d"))
    served.concern = FeedLabels(model(strict))
    served.predict(LAST)
    path = tmp_path / "b1.parquet"
    label = (f"l{LAST}", True, START + timedelta(weeks=WEEKS))
    pl.DataFrame([label], ["id", "repaid", "known_at"], orient="row").with_columns(
        pl.col("known_at").cast(pl.Datetime("us", "UTC"))
    ).write_parquet(path)
    ingest(served.store, strict, "b1", path, now_us=1)
    assert served.round() == {}
    accept(served.store, BatchId("outcomes", "b1"), reason="their clock", actor="ann", now_us=NOW_US)
    assert served.round() == {f"s1-1-{LAST}": 1.0}
    served.store.ledger.close()


def test_a_prediction_that_is_collected_after_its_label_gets_it_within_an_hour(served: Served) -> None:
    load_labels(served.store, served.directory, "b1", [(LAST, True, START + timedelta(weeks=WEEKS))])
    assert served.round() == {}
    served.predict(LAST)
    assert served.round(at_us=NOW_US + 1) == {}
    assert served.round(at_us=NOW_US + 3_600_000_001) == {f"s1-1-{LAST}": 1.0}


@pytest.mark.parametrize("declared", [MODEL, model(BY_PREDICTION)], ids=["by key", "by prediction id"])
def test_labels_by_feedback_train_like_those_of_the_feed(served: Served, declared: Model) -> None:
    served.predict(LAST, LAST + 1, LAST + 2)
    for number, value in ((LAST, 1.0), (LAST + 1, 0.0)):
        served.send(number, value)
    served.round()
    unlabelled = examples_at(served.store, declared, END).unlabelled
    loaded = load_feedback(served.store, declared, now_us=NOW_US)
    assert loaded is not None
    assert (loaded.rows_loaded, loaded.rows_quarantined) == (2, 0)
    assert load_feedback(served.store, declared, now_us=NOW_US) is None
    after = examples_at(served.store, declared, END + timedelta(days=1))
    assert after.unlabelled == unlabelled - 2
    labels = dict(after.frame.select("id", "repaid").rows())
    assert (labels[f"l{LAST}"], labels[f"l{LAST + 1}"]) == (True, False)

    # A correction by the feed counts for both: what trains, and what quality is computed from.
    served.send(LAST + 2, 1.0)
    served.concern = FeedLabels(declared)
    served.round()
    again = load_feedback(served.store, declared, now_us=NOW_US)
    assert again is not None
    assert again.rows_loaded == 1
    execute_backout(
        served.store,
        declared.feeds,
        BatchId(again.feed, again.batch.partition("/")[2] or again.batch),
        reason="x", actor="ann", now_us=NOW_US,
    )  # fmt: skip
    assert load_feedback(served.store, declared, now_us=NOW_US) is None, "a backed-out batch stays out"
    assert served.round()[f"s1-1-{LAST + 2}"] == 1.0


def test_an_id_without_a_row_labels_no_row_of_several(served: Served, tmp_path: Path) -> None:
    """A label feed by prediction id: in quality as in training, and an event names the labels once."""
    declared = model(BY_PREDICTION)
    served.concern = FeedLabels(declared)
    inputs = [[f"l{LAST + row}", 1.0, loan_time(LAST + row).isoformat()] for row in range(2)]
    served.predict(LAST + 2)
    served.log_request("s1-1-9000", inputs)
    unlabelled = examples_at(served.store, declared, END).unlabelled
    sent = ["s1-1-9000", "s1-1-9000/1", f"s1-1-{LAST + 2}"]
    frame = pl.DataFrame({"prediction_id": sent, "repaid": [True] * 3, "known_at": [END] * 3})
    frame.write_parquet(path := tmp_path / "by-id.parquet")
    loaded = ingest(served.store, BY_PREDICTION, "by-id", str(path), now_us=NOW_US)
    assert loaded.rows_loaded == 3, loaded
    for later_us in (HOUR_US, HOUR_US + 1, 3 * HOUR_US):  # the ids are read in a round of their own
        served.round(at_us=NOW_US + later_us)
    assert served.round(at_us=NOW_US + 3 * HOUR_US + 1) == {"s1-1-9000/1": 1.0, f"s1-1-{LAST + 2}": 1.0}
    with served.store.ledger.read() as connection:
        (found,) = events.newest(connection, kind="labels.unmatched")
    assert "1 labels of label feeds label nothing" in found.explanation
    assert "(s1-1-9000)" in found.explanation
    after = examples_at(served.store, declared, END + timedelta(days=1))
    assert after.unlabelled == unlabelled - 2


def test_a_correction_by_the_feed_counts_for_a_label_by_feedback(served: Served) -> None:
    served.predict(LAST)
    served.send(LAST, 1.0)
    assert served.round() == {f"s1-1-{LAST}": 1.0}
    load_feedback(served.store, MODEL, now_us=NOW_US)
    load_labels(served.store, served.directory, "chargebacks", [(LAST, False, END + timedelta(hours=1))])
    later_us = NOW_US + 7_200_000_000
    assert served.round(at_us=later_us) == {f"s1-1-{LAST}": 0.0}
    assert load_feedback(served.store, MODEL, now_us=later_us) is None
    after = examples_at(served.store, MODEL, END + timedelta(days=1))
    assert dict(after.frame.select("id", "repaid").rows())[f"l{LAST}"] is False


HOUR_US = 3_600_000_000


def sent_labels(served: Served) -> list[tuple[str, float, str, int]]:
    with served.store.ledger.read() as connection:
        held = labels.histories(connection, [f"s1-1-{LAST}/0"])
    return [(each.prediction_id, each.value, each.source, each.received_at_us) for each in held]


def test_a_label_by_feedback_stays_as_it_was_sent(served: Served) -> None:
    """With the feed's value and the caller's time, training would know a label before anybody did."""
    served.predict(LAST)
    served.send(LAST, 1.0)
    served.round()
    load_labels(served.store, served.directory, "chargebacks", [(LAST, False, END + timedelta(hours=1))])
    assert served.round(at_us=NOW_US + 2 * HOUR_US) == {f"s1-1-{LAST}": 0.0}
    assert sent_labels(served) == [(f"s1-1-{LAST}/0", 1.0, "client", NOW_US)]
    load_feedback(served.store, MODEL, now_us=NOW_US + 2 * HOUR_US)
    before = examples_at(served.store, MODEL, END + timedelta(minutes=30))
    assert dict(before.frame.select("id", "repaid").rows())[f"l{LAST}"] is True, "as it was known then"
    served.backout("chargebacks")
    assert served.round(at_us=NOW_US + 3 * HOUR_US) == {f"s1-1-{LAST}": 1.0}, "the caller's label again"


def test_a_correction_by_prediction_id_counts_trains_and_keeps_its_history(served: Served) -> None:
    """Issue 11: by id as by key, the label feed's declaration decides; a chargeback is a corrected label."""
    declare_corrections(served.store, MODEL, now_us=NOW_US)
    served.predict(LAST, LAST + 1)
    for number in (LAST, LAST + 1):
        served.send(number, 1.0)
    served.send(LAST, 0.0)  # in the same microsecond, and before the label is joined
    served.send(LAST, 0.0, NOW_US + 1)
    assert served.round(at_us=NOW_US + 2) == {f"s1-1-{LAST}": 0.0, f"s1-1-{LAST + 1}": 1.0}
    served.send(LAST + 1, 0.0, NOW_US + HOUR_US)
    at_us = NOW_US + 2 * HOUR_US
    assert served.round(at_us=at_us) == {f"s1-1-{LAST}": 0.0, f"s1-1-{LAST + 1}": 0.0}
    assert sent_labels(served) == [
        (f"s1-1-{LAST}/0", 1.0, "client", NOW_US),
        (f"s1-1-{LAST}/0", 0.0, "client", NOW_US + 1),
    ]
    load_labels(served.store, served.directory, "old", [(LAST + 1, True, END - timedelta(days=1))])
    assert served.round(at_us=at_us + 1) == {f"s1-1-{LAST}": 0.0, f"s1-1-{LAST + 1}": 0.0}, "matched anew"

    assert load_feedback(served.store, MODEL, now_us=at_us) is not None
    loaded = load_corrections(served.store, MODEL, now_us=at_us)
    assert loaded is not None
    assert loaded.rows_loaded == 2
    assert load_corrections(served.store, MODEL, now_us=at_us) is None
    later = dict(
        examples_at(served.store, MODEL, END + timedelta(hours=3)).frame.select("id", "repaid").rows()
    )
    assert {later[f"l{number}"] for number in (LAST, LAST + 1)} == {False}
    with served.store.ledger.read() as connection:
        assert len(events.newest(connection, kind="labels.corrected")) >= 2


def test_a_correction_of_a_label_that_waits_trains_once_it_is_joined(served: Served) -> None:
    """Corrections are numbered, and a batch has those after the last one: none may be left behind."""
    declare_corrections(served.store, MODEL, now_us=NOW_US)
    served.predict(LAST)
    for number in (LAST + 1, LAST):
        served.send(number, 1.0)
        served.send(number, 0.0, NOW_US + 1)
    served.round(at_us=NOW_US + 2)
    first = load_corrections(served.store, MODEL, now_us=NOW_US + 2)
    assert first is not None
    served.predict(LAST + 1)
    assert served.round(at_us=NOW_US + 3) == {f"s1-1-{LAST}": 0.0, f"s1-1-{LAST + 1}": 0.0}
    second = load_corrections(served.store, MODEL, now_us=NOW_US + 3)
    assert second is not None
    assert (first.rows_loaded, second.rows_loaded) == (1, 1)


def test_without_a_declared_correction_the_first_label_stands(served: Served) -> None:
    declare_corrections(served.store, model(replace(OUTCOMES, corrections="first")), now_us=NOW_US)
    served.predict(LAST)
    served.send(LAST, 1.0)
    served.send(LAST, 0.0, NOW_US + 1)
    assert served.round(at_us=NOW_US + 2) == {f"s1-1-{LAST}": 1.0}
    with served.store.ledger.read() as connection:
        (reported,) = events.newest(connection, kind="labels.rejected")
    assert "1 contradict an earlier label" in reported.explanation


def test_two_labels_of_a_key_in_one_request_are_in_their_order(served: Served) -> None:
    """They have one time, and of two labels at one time true counted, whichever was sent last."""
    served.predict(LAST)
    for value in (1.0, 0.0):
        served.send_by_key(LAST, value)
    assert served.round(at_us=NOW_US + 1) == {f"s1-1-{LAST}": 0.0}


def test_another_source_cannot_change_a_label_by_key(served: Served) -> None:
    served.predict(LAST)
    served.send_by_key(LAST, 1.0)
    served._log(KeyFeedbackRecord(f'{{"id":"l{LAST}"}}', 0.0, "stranger", NOW_US + 1))
    assert served.round(at_us=NOW_US + 2) == {f"s1-1-{LAST}": 1.0}
    with served.store.ledger.read() as connection:
        (kept,) = quarantined_labels.newest(connection, MODEL.name, limit=9)
    assert (kept.key_json, kept.value, kept.source) == (f'{{"id":"l{LAST}"}}', 0.0, "stranger")
    assert "source 'crm' labelled it 1 before" in kept.reason


def test_an_older_label_of_a_feed_does_not_replace_newer_feedback(served: Served) -> None:
    served.predict(LAST)
    served.send(LAST, 1.0)
    served.round()
    load_labels(served.store, served.directory, "late", [(LAST, False, END - timedelta(days=1))])
    assert served.round(at_us=NOW_US + 1) == {f"s1-1-{LAST}": 1.0}


EARLIER, LATER = -timedelta(hours=1), timedelta(hours=1)
A_DAY_LATER = NOW_US + 24 * HOUR_US


@pytest.mark.parametrize(
    ("corrections", "wanted"), [("latest", {EARLIER: 1.0, LATER: 0.0}), ("first", {EARLIER: 0.0, LATER: 1.0})]
)
def test_whether_a_callers_label_or_the_feeds_comes_first_decides_nothing(
    served: Served, corrections: Corrections, wanted: dict[timedelta, float]
) -> None:
    """A caller sends true, the feed has false; which one counts is decided by when each was known."""
    declared = model(replace(OUTCOMES, corrections=corrections))
    declare_corrections(served.store, declared, now_us=NOW_US)
    served.concern = FeedLabels(declared)
    known_at = {LAST + place: END + span for place, span in enumerate((EARLIER, LATER, EARLIER, LATER))}
    feed_first, caller_first = list(known_at)[:2], list(known_at)[2:]
    served.predict(*known_at)

    def load(name: str, numbers: list[int]) -> None:
        load_labels(served.store, served.directory, name, [(each, False, known_at[each]) for each in numbers])

    load("before", feed_first)
    for each in caller_first:
        served.send(each, 1.0)
    served.round(at_us=A_DAY_LATER)
    load("after", caller_first)
    for each in feed_first:
        served.send(each, 1.0)
        served.send(each, 0.5, NOW_US + 1, source="stranger")
    found = {f"s1-1-{each}": wanted[at - END] for each, at in known_at.items()}
    at_once = served.round(at_us=A_DAY_LATER + 1)
    assert at_once == found
    assert served.round(at_us=A_DAY_LATER + 2 * HOUR_US) == found, "matched anew"
    with served.store.ledger.read() as connection:
        kept = quarantined_labels.newest(connection, MODEL.name, limit=9)
    assert [each.source for each in kept] == ["stranger", "stranger"], (
        "the first caller owns it, not the feed"
    )


def test_a_callers_label_outlives_that_of_the_feed(served: Served) -> None:
    """Its batch is backed out: the caller's label counts, trains, and can be corrected by its source."""
    served.predict(LAST)
    declare_corrections(served.store, MODEL, now_us=NOW_US)
    load_labels(served.store, served.directory, "wrong", [(LAST, False, END + LATER)])
    assert served.round(at_us=A_DAY_LATER) == {f"s1-1-{LAST}": 0.0}
    served.send(LAST, 1.0)
    assert served.round(at_us=A_DAY_LATER + 1) == {f"s1-1-{LAST}": 0.0}
    served.backout("wrong")
    assert served.round(at_us=A_DAY_LATER + 2) == {f"s1-1-{LAST}": 1.0}
    assert {value for _, value, _, _ in sent_labels(served)} == {1.0}
    seen = len(served.events("labels.corrected"))
    assert served.round(at_us=A_DAY_LATER + 2 * HOUR_US) == {f"s1-1-{LAST}": 1.0}, "matched anew"
    assert len(served.events("labels.corrected")) == seen
    served.send(LAST, 0.0, NOW_US + 2)
    assert served.round(at_us=A_DAY_LATER + 3 * HOUR_US) == {f"s1-1-{LAST}": 0.0}
    loaded = load_corrections(served.store, MODEL, now_us=A_DAY_LATER + 4 * HOUR_US)
    assert loaded is not None
    assert loaded.rows_loaded == 2
    assert load_feedback(served.store, MODEL, now_us=A_DAY_LATER + 4 * HOUR_US) is None


def test_a_round_reads_a_bounded_part_and_skips_a_damaged_file(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (LAST, LAST + 1, LAST + 2):
        served.predict(number)
        assert served.round() == {}
    files = served.collected_files()
    files[1].write_bytes(b"damaged")
    read: list[Path] = []
    whole = collected_log.read_file_inputs

    def counted(root: Path, file: collected_log.CollectedFile) -> object:
        read.append(root / file.path)
        return whole(root, file)

    monkeypatch.setattr(collected_log, "read_file_inputs", counted)
    served.concern.rows_per_round = served.concern.predictions_at_once = 1
    known = START + timedelta(weeks=WEEKS)
    load_labels(served.store, served.directory, "b1", [(LAST + each, True, known) for each in range(3)])
    assert served.round(at_us=NOW_US + 1) == {}
    assert read == files[:1], "the next round reads on"
    for at_us in range(NOW_US + 2, NOW_US + 20):
        before = len(read)
        found = served.round(at_us=at_us)
        assert len(read) <= before + 1
    assert found == {f"s1-1-{LAST}": 1.0, f"s1-1-{LAST + 2}": 1.0}
    assert read == files, "each file once"
    with served.store.ledger.read() as connection:
        assert len(events.newest(connection, kind="predictions.damaged")) == 1


def test_labels_of_an_unreadable_version_stay_and_none_counts_twice(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded: list[str] = []

    def fold(_connection: object, joined: list[Joined], _now_us: int) -> None:
        folded.extend(each.label.prediction_id for each in joined)

    monkeypatch.setattr(collector, "fold_quality", fold)
    served.predict(LAST)
    load_labels(served.store, served.directory, "b1", [(LAST, True, START + timedelta(weeks=WEEKS))])
    labelled = {f"s1-1-{LAST}": 1.0}
    assert served.round() == labelled

    def unreadable(*_: object) -> tuple[str, ...]:
        raise IntegrityError("HF301", "the version is damaged", state="", next_command="holdfast verify")

    with monkeypatch.context() as context:
        context.setattr(prediction_keys, "contract_of", unreadable)
        assert served.round(at_us=NOW_US + HOUR_US) == labelled, "nothing is withdrawn"
        with pytest.raises(IntegrityError, match="HF301"):
            prediction_keys.keys_of(served.store, MODEL.examples.contract, pl.Series([f"s1-1-{LAST}"]))

    served.backout("b1")
    assert served.round(at_us=NOW_US + HOUR_US + 1) == {}
    load_labels(served.store, served.directory, "b2", [(LAST, True, START + timedelta(weeks=WEEKS))])
    assert served.round(at_us=NOW_US + HOUR_US + 2) == labelled
    assert folded == [f"s1-1-{LAST}/0"], "evidence counts a prediction once"


def test_after_an_error_of_the_ledger_the_next_round_matches_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.predict(LAST)
    load_labels(served.store, served.directory, "b1", [(LAST, True, START + timedelta(weeks=WEEKS))])

    def locked(*_: object) -> None:
        raise OSError("the database is locked")

    with monkeypatch.context() as context:
        context.setattr(labels, "add", locked)
        with pytest.raises(OSError, match="locked"):
            served.round()
    assert served.round(at_us=NOW_US + 1) == {f"s1-1-{LAST}": 1.0}


def key_history(world: Served) -> list[tuple[str, float]]:
    with world.store.ledger.read() as connection:
        return [(each.key_json, each.value) for each in key_labels.since(connection, MODEL.name, 0)]


def test_labels_by_key_label_predictions_and_are_corrected_by_the_declared_policy(served: Served) -> None:
    """A chargeback: the newest label counts, and the history keeps both. The same value again counts once."""
    served.predict(LAST, LAST + 1)
    served.send_by_key(LAST, 1.0)
    served.send_by_key(LAST, 1.0, NOW_US + 1)
    served.send_by_key(LAST + 9, 0.0)
    assert served.round(at_us=NOW_US + 10) == {f"s1-1-{LAST}": 1.0}
    served.send_by_key(LAST, 0.0, NOW_US + 20)
    assert served.round(at_us=NOW_US + 30) == {f"s1-1-{LAST}": 0.0}
    key = f'{{"id":"l{LAST}"}}'
    assert [value for found, value in key_history(served) if found == key] == [1.0, 0.0]
    served.predict(LAST + 9)
    assert served.round(at_us=NOW_US + 2 * HOUR_US)[f"s1-1-{LAST + 9}"] == 0.0, "a label may be there first"


def test_labels_by_key_train_as_a_batch_of_the_label_feed_and_can_be_backed_out(served: Served) -> None:
    served.predict(LAST)
    served.send_by_key(LAST, 1.0)
    served.send_by_key(LAST + 1, 0.0)
    served.round()
    loaded = load_key_feedback(served.store, MODEL, now_us=NOW_US + 1, clock_us=lambda: NOW_US + 5)
    assert loaded is not None
    with served.store.ledger.read() as connection:
        (made,) = events.newest(connection, subject=f"outcomes/{loaded.batch}", kind="batch.published")
        (fact,) = openlineage.of_event(connection, made)
    assert (fact.begun_us, fact.at_us) == (NOW_US + 1, NOW_US + 5), "when it really began"
    assert (loaded.batch, loaded.rows_loaded) == ("feedback-keys-2", 2)
    assert load_key_feedback(served.store, MODEL, now_us=NOW_US + 1) is None
    assert served.round(at_us=NOW_US + 1) == {f"s1-1-{LAST}": 1.0}
    examples = examples_at(served.store, MODEL, END + timedelta(hours=1))
    assert f"l{LAST}" in examples.frame["id"].to_list()
    served.backout("feedback-keys-2")
    assert served.round(at_us=NOW_US + 2) == {}
    assert load_key_feedback(served.store, MODEL, now_us=NOW_US + 3) is None, "a backed-out batch stays out"


def test_without_a_label_feed_the_first_label_by_key_stands(served: Served) -> None:
    served.concern = FeedLabels(model())
    assert load_key_feedback(served.store, model(), now_us=NOW_US) is None
    served.predict(LAST)
    assert served.round() == {}
    served.send_by_key(LAST, 1.0)
    assert served.round(at_us=NOW_US + 1) == {f"s1-1-{LAST}": 1.0}
    served.send_by_key(LAST, 0.0, NOW_US + 5)
    assert served.round(at_us=NOW_US + 9) == {f"s1-1-{LAST}": 1.0}
