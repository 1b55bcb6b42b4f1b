import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from holdfast.monitor.quality import (
    Outcomes,
    compute_quality,
    coverage,
    distant_events,
    quality_by_period,
    quality_by_version,
    quality_over_time,
)
from holdfast.records import DAY_US


def outcomes(rows, days=3, versions=("v1", "v2"), seed=1):
    random = np.random.default_rng(seed)
    probability = random.uniform(0.02, 0.98, rows)
    at_us = random.integers(0, days * DAY_US, rows)
    return Outcomes(
        version=random.choice(versions, rows),
        predicted_at_us=at_us,
        event_time_us=at_us,
        probability=probability,
        label=(random.uniform(size=rows) < probability).astype(float),
    )


def test_the_numbers_agree_with_scikit_learn():
    some = outcomes(500)
    found = compute_quality(some)
    assert found.auc.estimate == pytest.approx(roc_auc_score(some.label, some.probability))
    assert found.auc.low < found.auc.estimate < found.auc.high
    assert found.log_loss == pytest.approx(log_loss(some.label, some.probability))
    assert found.brier.estimate == pytest.approx(((some.label - some.probability) ** 2).mean())


def test_days_and_versions_split_every_row_once():
    some = outcomes(400)
    days = quality_by_period(some, 1)
    assert sum(day.quality.rows for day in days) == 400
    assert {(day.version, day.day_us // DAY_US) for day in days} == {
        (v, d) for v in ("v1", "v2") for d in range(3)
    }


def test_only_the_newest_day_is_still_filling():
    """R143: labels come late, and a day that may change reports it."""
    assert {day.day_us // DAY_US for day in quality_over_time(outcomes(400)) if day.filling} == {2}


def test_too_little_reports_nothing_rather_than_something():
    few = outcomes(4)
    assert compute_quality(few).auc is None
    one = few.where(np.array([True, False, False, False]))
    assert (compute_quality(one).brier, compute_quality(one).rows) == (None, 1)
    assert quality_over_time(few.where(np.zeros(4, dtype=bool))) == ()


def test_coverage_is_the_share_of_one_population_that_has_a_label():
    some = outcomes(100, versions=("v1",))
    assert quality_by_version(some)["v1"].rows == 100
    found = coverage(100, 400, since_us=20_000 * DAY_US)
    assert (found.share, found.population) == (0.25, "rows predicted by all versions since 2024-10-04 (UTC)")
    assert coverage(0, 0, since_us=0).share is None


def test_no_clock_of_a_caller_moves_a_figure():
    """R143: one event of 2035, one of 1970, or all events eight years ago: the quality is by when requests arrived."""
    some = outcomes(400)
    for wrong in (
        np.where(np.arange(400) == 7, 23_741 * DAY_US, some.event_time_us),
        np.where(np.arange(400) == 7, -9_000 * DAY_US, some.event_time_us),
        some.event_time_us - 3_000 * DAY_US,
    ):
        moved = Outcomes(some.version, some.predicted_at_us, wrong, some.probability, some.label)
        assert quality_over_time(moved) == quality_over_time(some)
        assert quality_by_version(moved) == quality_by_version(some)
        apart = int((np.abs(wrong - some.predicted_at_us) > DAY_US).sum())
        assert distant_events(moved).labelled == distant_events(moved).quality.rows == apart >= 1
    assert distant_events(some).labelled == 0


def test_days_with_too_few_labels_become_weeks():
    """Eight labels a day make no day with five of each class; the chart has points all the same."""
    some = outcomes(480, days=60, versions=("v1",))
    by_day = quality_by_period(some, 1)
    assert sum(day.quality.auc is not None for day in by_day) < len(by_day) / 2
    found = quality_over_time(some)
    assert {day.days for day in found} == {7}
    assert sum(day.quality.rows for day in found) == len(some)
    assert all((day.day_us // DAY_US + 3) % 7 == 0 for day in found), "weeks begin on a Monday"
    assert sum(day.quality.auc is not None for day in found) >= len(found) / 2


def test_a_sure_and_wrong_response_costs_much_but_not_everything():
    sure = Outcomes(
        np.array(["v"] * 2),
        np.zeros(2, dtype=np.int64),
        np.zeros(2, dtype=np.int64),
        np.array([1.0, 0.0]),
        np.array([0.0, 1.0]),
    )
    assert 10 < compute_quality(sure).log_loss < 20
