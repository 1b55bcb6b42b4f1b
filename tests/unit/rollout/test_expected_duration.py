"""A rollout's duration is known before it begins, and what `suggest` declares ends."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from holdfast.rollout import Canary
from holdfast.rollout.expected_duration import forecast, suggest

WEEK = 1_156 / 7
"""Requests a day of the user whose first step would last 17 weeks."""


def test_the_default_policy_does_not_end_at_low_traffic_and_reports_it() -> None:
    found = forecast(Canary(), units_per_day=WEEK)
    assert not found.ends
    assert found.slowest.share_percent == 1.0
    assert "its 1 % step takes 17 weeks and times out after 3 days" in found.describe()


def test_a_step_waits_for_units_labels_and_its_minimum() -> None:
    policy = Canary(steps=(50, 100), units_per_step=100, labels_per_step=50, min_step_duration="2d")
    steps = forecast(policy, units_per_day=1_000, labelled_share=0.1, label_delay=timedelta(days=3)).steps
    assert [step.days for step in steps] == [50 / 50 + 3, 50 / 100 + 3]
    assert forecast(policy, units_per_day=1e6).slowest.days == 2.0
    assert forecast(policy, units_per_day=1_000, labelled_share=0.0).days == math.inf
    assert "for ever" in forecast(policy, units_per_day=1_000, labelled_share=0.0).describe()


@pytest.mark.parametrize("delay_days", [0, 1, 30])
@pytest.mark.parametrize("labelled_share", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("units_per_day", [0.2, 1, 10, WEEK, 5_000, 1e7])
def test_a_suggested_policy_ends(units_per_day: float, labelled_share: float, delay_days: int) -> None:
    known = {
        "units_per_day": units_per_day,
        "labelled_share": labelled_share,
        "label_delay": timedelta(days=delay_days),
    }
    found = forecast(suggest(**known), **known)  # type: ignore[arg-type]
    assert found.ends
    # Room for days with less traffic, wherever the default timeout is not enough by itself.
    assert found.timeout_days >= min(3.0, 2.9 * found.slowest.days)


@pytest.mark.parametrize("units_per_day", [40.0, WEEK, 1e6])
def test_labels_that_take_weeks_delay_no_step_of_a_suggested_policy(units_per_day: float) -> None:
    known = {"units_per_day": units_per_day, "label_delay": timedelta(days=35)}
    policy = suggest(**known)  # type: ignore[arg-type]
    assert policy.labels_per_step == 0
    assert policy.bake == timedelta(days=42)
    assert forecast(policy, **known).days <= 14.0  # type: ignore[arg-type]
    assert suggest(units_per_day=1e6, label_delay=timedelta(days=2)).labels_per_step == 50
