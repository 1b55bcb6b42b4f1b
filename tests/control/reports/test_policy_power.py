"""The measured traffic counts labels among the predictions whose labels are due."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.cli.commands.rollout.policy import basis_of, labelled_share
from holdfast.control.reports.policy_power import in_words, measured, settings_of
from holdfast.records import DAY_US, HOUR_US
from holdfast.rollout import Canary, Shadow
from holdfast.rollout.expected_duration import forecast
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


def test_traffic_of_less_than_a_day_is_named_as_what_the_forecast_assumes(store: Store) -> None:
    """30 requests of a minute are not 43,200 a day: what was counted is named, in whole words."""
    for number in range(30):
        predict(store, number, NOW_US - 45_000_000, NOW_US - 45_000_000, labelled=False)
    found = measured(store, "m", label_delay=TEN_DAYS, now_us=NOW_US)
    assert found is not None
    assert basis_of(found) == "assumed from 30 requests in 1 minute"
    words = forecast(Canary(), units_per_day=43_200, basis=basis_of(found)).describe()
    assert words.startswith("at 43,000 requests a day (assumed from 30 requests in 1 minute) a rollout takes")
    predict(store, 31, NOW_US - 2 * DAY_US, NOW_US - 2 * DAY_US, labelled=False)
    longer = measured(store, "m", label_delay=TEN_DAYS, now_us=NOW_US)
    assert longer is not None
    assert basis_of(longer) == ""


def test_settings_are_shown_in_words() -> None:
    policy = Canary(timeout="1d", slices=("town",), shadow=Shadow(units=5))
    words = {name: in_words(name, value) for name, value in settings_of(policy).items()}
    assert (words["timeout"], words["bake"], words["max_drill_age"]) == ("1 day", "3 days", "none")
    assert (words["steps"], words["slices"]) == ("1, 5, 25, 50, 100", "town")
    assert not any(character in word for word in words.values() for character in '[]{}"')
