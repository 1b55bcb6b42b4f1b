"""The policy reports what it means, or is refused."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from holdfast.errors import InputError
from holdfast.rollout import Canary, MetricState, Shadow, begin, fold_counts, fold_scores


def test_the_round_trip_keeps_everything() -> None:
    policy = Canary(
        steps=[0.1, 7, 100],
        alpha=0.05,
        timeout="90min",
        latency_quantile=None,
        labels_per_step=0,
        convergence_timeout="90s",
    )
    assert Canary.from_json(policy.to_json()) == policy
    assert policy.timeout == timedelta(minutes=90)
    assert policy.shares_ppm == (1000, 70_000, 1_000_000)


def test_alpha_is_shared_by_the_metrics_and_by_the_level_that_is_frozen() -> None:
    """Bonferroni: whatever is judged, all that may err errs with `alpha` together at most."""
    for policy in (Canary(alpha=0.01), Canary(alpha=0.2, latency_quantile=None)):
        parts = [
            math.exp(-policy.log_bound_of(each)) + policy.level_alpha_of(each) for each in policy.metrics
        ]
        assert sum(parts) == pytest.approx(policy.alpha)
        assert sum(map(policy.alpha_of, policy.metrics)) == pytest.approx(policy.alpha)


def test_each_stage_that_judges_a_version_errs_with_alpha_for_itself() -> None:
    """What a person is reported is the sum over all that may send a good version back."""
    assert Canary(bake=timedelta(0)).false_alarm == pytest.approx(0.01)
    assert Canary().false_alarm == pytest.approx(0.02)
    everything = Canary(alpha=0.02, shadow=Shadow(), replay_requests=100)
    assert everything.stages == ("replay", "shadow", "canary", "bake")
    assert everything.false_alarm == pytest.approx(0.08)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": ()},
        {"steps": (5, 1)},
        {"steps": (0, 50)},
        {"steps": (50, 101)},
        {"alpha": 0.0},
        {"bake_quality_margin": 1.0},
        {"alpha": float("nan")},
        {"units_per_step": 0},
        {"labels_per_step": -1},
        {"error_margin": 0.9},
        {"latency_margin": math.inf},
        {"latency_quantile": 1.0},
        {"latency_requests": 0},
        {"latency_tolerance": 0.9},
        {"latency_slack": timedelta(seconds=-1)},
        {"quality_margin": 1.0},
        {"timeout": "0s"},
        {"timeout": "soon"},
        {"convergence_timeout": "0s"},
        {"steps": (100,)},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"HF10[79]"):
        Canary(**wrong)


def minutes(rng: np.random.Generator, state: MetricState, rates: tuple[float, float]) -> int:
    """Until harm is shown at 120 against 1,080 units a minute, 91 when it takes more than 90 minutes."""
    for minute in range(1, 91):
        state = fold_counts(
            state,
            challenger_units=120,
            challenger_bad=int(rng.binomial(120, rates[0])),
            champion_units=1080,
            champion_bad=int(rng.binomial(1080, rates[1])),
        )
        if state.is_harmful:
            return minute
    return 91


def test_the_power_that_the_policy_states() -> None:
    """R126, R127: both error rates are stated; alpha is proved where the tests are, the power here and in
    `test_aa.py`, with many more runs."""
    rng = np.random.default_rng(5)
    errors, latency, quality = begin(Canary(), 0.02)
    assert 10 <= np.median([minutes(rng, errors, (0.02, 0.01)) for _ in range(15)]) <= 20
    assert np.median([minutes(rng, latency, (0.05, 0.01)) for _ in range(15)]) <= 5
    labelled = []
    for _ in range(10):
        state, minute = quality, 0
        while not state.is_harmful and minute < 60:
            minute += 1
            state = fold_scores(state, rng.beta(2.8, 1.2, 12).tolist(), rng.beta(2.4, 0.6, 108).tolist())
        labelled.append(minute)
    assert 6 <= np.median(labelled) <= 16
