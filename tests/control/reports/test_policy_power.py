"""The measured traffic counts labels among the predictions whose labels are due."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.cli.commands.rollout.policy import labelled_share
from holdfast.control.reports.policy_power import measured
from holdfast.records import DAY_US, HOUR_US
from holdfast.store import Store
from tests.support.labelled import predict

NOW_US = 1_790_899_200_000_000
TEN_DAYS = timedelta(days=10)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "store")
    yield store
    store.ledger.close()


def test_labels_that_come_after_ten_days_are_counted_among_the_predictions_of_ten_days_ago(
    store: Store,
) -> None:
    """R127: none of the last week was labelled, so that "without labels a rollout takes for ever"."""
    for number in range(20):  # three of four have a label by now
        at_us = NOW_US - 10 * DAY_US - (number + 1) * 8 * HOUR_US
        predict(store, number, at_us, at_us, labelled=number % 4 != 0)
    for number in range(20, 60):
        at_us = NOW_US - (number - 19) * 4 * HOUR_US
        predict(store, number, at_us, at_us, labelled=number % 20 == 0)  # two came early
    found = measured(store, "m", label_delay=TEN_DAYS, now_us=NOW_US)
    assert found is not None
    assert labelled_share(found) == pytest.approx(0.75)
    # Of the last week alone it was the two that came early.
    hasty = measured(store, "m", now_us=NOW_US)
    assert hasty is not None
    assert labelled_share(hasty) == pytest.approx(2 / 40)
    assert found.units_per_minute == hasty.units_per_minute


def test_before_any_label_is_due_each_request_is_assumed_to_get_one(store: Store) -> None:
    predict(store, 1, NOW_US - DAY_US, NOW_US - DAY_US, labelled=False)
    found, without = (
        measured(store, "m", label_delay=delay, now_us=NOW_US) for delay in (TEN_DAYS, timedelta(0))
    )
    assert found is not None
    assert without is not None
    assert (found.labels_due, labelled_share(found)) == (False, 1.0)
    assert (without.labels_due, labelled_share(without)) == (True, 0.0)
