"""The figures of the status are of predictions by our own clock, each with its population."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.control.reports.status import StatusReader
from holdfast.monitor.usage import UsageRow
from holdfast.records import DAY_US, MINUTE_US
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.serving import servers
from holdfast.store.telemetry import collected_log, comparison_inputs, labels, outcomes, request_counts
from tests.support.labelled import predict
from tests.support.rollout_world import World

MODEL = "m"
NOW_US = 1_790_899_200_000_000 + 5_000_000  # 2026-10-02
YEAR_2035_US = 2_051_222_400_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "store")
    yield store
    store.ledger.close()


def test_an_event_of_2035_moves_no_window_and_no_coverage(store: Store) -> None:
    """R143: the window hung on the largest event time that a caller sent, and one request emptied it."""
    for number in range(40):
        at_us = NOW_US - number * DAY_US // 20
        predict(store, number, at_us, at_us - 3_000_000)
    before = StatusReader(store, MODEL).read(now_us=NOW_US)
    assert (before.coverage.labelled, before.coverage.predictions, before.coverage.share) == (40, 40, 1.0)
    predict(store, 900, NOW_US - MINUTE_US, YEAR_2035_US)
    after = StatusReader(store, MODEL).read(now_us=NOW_US)
    assert (after.coverage.labelled, after.coverage.predictions, after.coverage.share) == (41, 41, 1.0)
    assert [(day.day_us, day.days) for day in after.quality] == [
        (day.day_us, day.days) for day in before.quality
    ]
    assert after.distant_events.labelled == 1
    with store.ledger.read() as connection:
        newest = comparison_inputs.labelled(connection, MODEL, "v1", most=1)
    assert newest.predictions == ["s1-1-0/0"], "the newest by arrival, not the one that names 2035"


def test_a_withdrawn_label_leaves_the_quality_of_the_status(store: Store) -> None:
    """A withdrawal adds no outcome: it is seen by its event."""
    for number in range(40):
        predict(store, number, NOW_US - number * MINUTE_US, NOW_US)
    reader = StatusReader(store, MODEL)
    assert sum(day.quality.rows for day in reader.read(now_us=NOW_US).quality) == 40
    with store.ledger.write() as connection:
        outcomes.withdraw(connection, [f"s1-1-{number}/0" for number in range(20)])
        events.append(
            connection, at_us=NOW_US, kind=outcomes.CORRECTED, subject=MODEL, explanation="20 withdrawn"
        )
    assert sum(day.quality.rows for day in reader.read(now_us=NOW_US).quality) == 20


def test_labels_and_predictions_of_coverage_are_of_the_same_days(store: Store) -> None:
    """All predictions of three months have labels; those before the window count on neither side."""
    for number in range(90):
        predict(store, number, NOW_US - number * DAY_US, NOW_US - number * DAY_US)
    with store.ledger.write() as connection:
        request_counts.add(
            connection, MODEL, [UsageRow("v2", "champion", "ok", NOW_US - DAY_US, 2, 20, 900, {10: 2})]
        )
    reader = StatusReader(store, MODEL)
    found = reader.read(now_us=NOW_US).coverage
    assert (found.labelled, found.predictions) == (60, 80)
    assert found.population == "rows predicted by all versions since 2026-08-04 (UTC)"
    later = reader.read(now_us=NOW_US + 30 * DAY_US).coverage
    assert (later.labelled, later.predictions) == (30, 50), (
        "the window moves with our clock, without a new label"
    )


def test_labels_that_come_after_the_window_are_in_the_figures(store: Store) -> None:
    """The window of predictions ended 60 days ago, and labels come after 61: no quality was ever shown."""
    for number in range(30):
        at_us = NOW_US - (61 * DAY_US + number * DAY_US)
        predict(store, number, at_us, at_us)
    assert StatusReader(store, MODEL).read(now_us=NOW_US).coverage.labelled == 0
    found = StatusReader(store, MODEL, label_delay=timedelta(days=61)).read(now_us=NOW_US)
    assert (found.coverage.labelled, len(found.quality) > 0) == (30, True)


def test_a_champion_without_labels_is_reported_as_such_while_others_have_labels(tmp_path: Path) -> None:
    """Labels that take weeks come when the version that predicted has been replaced; "no label has arrived yet" was wrong."""
    world = World.open(tmp_path)
    before, champion = world.add_version(), world.add_version()
    world.promote(before)
    for number in range(40):
        predict(world.store, number, world.now_us, world.now_us, version=before)
    world.promote(champion)
    for number in range(40, 43):
        predict(world.store, number, world.now_us, world.now_us, version=champion, labelled=False)
    found = StatusReader(world.store, MODEL).read(now_us=world.now_us)
    assert "0 of its 3 predictions are labelled so far" in found.health.sentence


def test_labels_of_another_model_in_the_store_are_not_counted(store: Store, tmp_path: Path) -> None:
    """The page of one model showed the labels, and the rejected labels, of every model of the ledger."""
    predict(store, 1, NOW_US, NOW_US)
    found = {"m": ["s1", "s-2"], "other": ["s", "s1-2"]}
    waiting = ["s1-1-7/0", "s-2-1-7/0", "s-1-7/0", "s1-2-1-7/0", "s1-2-1-8/0", "gone-1-1/0"]
    with store.ledger.write() as connection:
        for model, names in found.items():
            for name in names:
                servers.announce(connection, servers.Server(name, model, "http://h", tmp_path / name, NOW_US))
        sent = [labels.NewLabel(each, 1.0, "t", NOW_US) for each in waiting]
        labels.add(connection, sent, dict.fromkeys(waiting, NOW_US))
        for rejected, name in enumerate(("s1", "s-2", "s", "s1-2"), start=1):
            place = collected_log.Position(name, 1, 0)
            collected_log.advance(connection, place, 10, predictions=0, feedback=9)
            collected_log.count_rejected(connection, place, rejected)
    counted = StatusReader(store, MODEL).read(now_us=NOW_US).labels
    assert (counted.taken, counted.waiting, counted.rejected_labels) == (3, 2, 3)
    counted = StatusReader(store, "other").read(now_us=NOW_US).labels
    assert (counted.taken, counted.waiting, counted.rejected_labels) == (3, 3, 7)
