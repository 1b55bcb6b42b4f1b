import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from holdfast.monitor.quality import Outcomes, compute_quality, quality_by_day, quality_by_version
from holdfast.records import DAY_US


def outcomes(rows, days=3, versions=("v1", "v2"), seed=1):
    random = np.random.default_rng(seed)
    probability = random.uniform(0.02, 0.98, rows)
    return Outcomes(
        version=random.choice(versions, rows),
        event_time_us=random.integers(0, days * DAY_US, rows),
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
    days = quality_by_day(some)
    assert sum(day.quality.rows for day in days) == 400
    assert {(day.version, day.day_us // DAY_US) for day in days} == {
        (v, d) for v in ("v1", "v2") for d in range(3)
    }


def test_only_the_newest_day_is_still_filling():
    """R143: labels come late, and a day that may change reports it."""
    assert {day.day_us // DAY_US for day in quality_by_day(outcomes(400)) if day.filling} == {2}


def test_too_little_reports_nothing_rather_than_something():
    few = outcomes(4)
    assert compute_quality(few).auc is None
    one = few.where(np.array([True, False, False, False]))
    assert (compute_quality(one).brier, compute_quality(one).rows) == (None, 1)
    assert quality_by_day(few.where(np.zeros(4, dtype=bool))) == ()


def test_coverage_is_the_share_of_responses_that_have_a_label():
    some = outcomes(100, versions=("v1",))
    first, silent = quality_by_version(some, {"v1": 400, "v9": 50})
    assert (first.version, first.coverage, first.predictions) == ("v1", 0.25, 400)
    assert (silent.coverage, silent.quality.rows) == (0.0, 0)


def test_a_sure_and_wrong_response_costs_much_but_not_everything():
    sure = Outcomes(
        np.array(["v"] * 2), np.zeros(2, dtype=np.int64), np.array([1.0, 0.0]), np.array([0.0, 1.0])
    )
    assert 10 < compute_quality(sure).log_loss < 20
