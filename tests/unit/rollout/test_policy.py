"""The policy says what it means, or is refused."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from holdfast.errors import InputError
from holdfast.rollout import Canary


def test_the_round_trip_keeps_everything() -> None:
    policy = Canary(
        steps=[0.1, 7, 100], alpha=0.05, patience="90min", latency_quantile=None, labelled_per_step=0
    )
    assert Canary.from_json(policy.to_json()) == policy
    assert policy.patience == timedelta(minutes=90)
    assert policy.shares_ppm == (1000, 70_000, 1_000_000)


def test_alpha_is_shared_by_the_metrics() -> None:
    assert Canary(alpha=0.01).log_bound == pytest.approx(math.log(300))
    assert Canary(alpha=0.01, latency_quantile=None).log_bound == pytest.approx(math.log(200))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": ()},
        {"steps": (5, 1)},
        {"steps": (0, 50)},
        {"steps": (50, 101)},
        {"alpha": 0.0},
        {"alpha": float("nan")},
        {"units_per_step": 0},
        {"labelled_per_step": -1},
        {"error_margin": 0.9},
        {"latency_margin": math.inf},
        {"latency_quantile": 1.0},
        {"latency_requests": 0},
        {"quality_margin": 1.0},
        {"patience": "0s"},
        {"patience": "soon"},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="HF101"):
        Canary(**wrong)
