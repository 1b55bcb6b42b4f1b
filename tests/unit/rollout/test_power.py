"""R127: both error rates of a policy, in numbers and in words, before it is used."""

from __future__ import annotations

import time

import pytest

from holdfast.errors import InputError
from holdfast.rollout import Canary
from holdfast.rollout.power import MeasuredTraffic, power_of

pytestmark = pytest.mark.simulated

TRAFFIC = MeasuredTraffic(1200, 120, error_rate=0.01, mean_score=0.8, score_spread=0.2)


def test_each_metric_that_is_judged_has_rows_and_false_alarms_add_up_to_alpha() -> None:
    policy = Canary(steps=(10, 100), alpha=0.02)
    rows = power_of(policy, TRAFFIC)
    assert [row.metric for row in rows] == ["errors", "errors", "latency", "quality", "quality", "quality"]
    assert sum({row.metric: row.false_alarm for row in rows}.values()) == pytest.approx(0.02)
    assert {row.metric for row in power_of(Canary(latency_quantile=None), TRAFFIC)} == {"errors", "quality"}
    sliced = power_of(Canary(steps=(10, 100), slices=("carrier",)), TRAFFIC)
    assert [row.metric for row in sliced] == [row.metric for row in rows]
    assert sliced[0].false_alarm < 0.008


def test_larger_harm_is_found_sooner_and_a_larger_share_finds_more() -> None:
    twice, fivefold, slow, *losses = power_of(Canary(steps=(10, 100)), TRAFFIC)
    assert twice.median_minutes is not None
    assert fivefold.median_minutes is not None
    assert fivefold.median_minutes < twice.median_minutes <= 15
    assert slow.within_hour >= 0.85
    assert losses[0].within_hour <= losses[1].within_hour <= losses[2].within_hour
    small = power_of(Canary(steps=(1, 100)), TRAFFIC)[0]
    assert small.within_hour < 0.5 < twice.within_hour
    assert small.median_minutes is None


def test_little_traffic_is_looked_at_for_as_long_as_the_step_takes() -> None:
    row = power_of(Canary(labels_per_step=0), MeasuredTraffic(30, error_rate=0.0))[1]
    assert row.step_minutes == pytest.approx(667)
    assert row.effect == "5 times as many (0.1% to 0.5%)"
    assert row.within_hour <= row.within_step <= 0.1


@pytest.mark.parametrize("per_minute", [100_000, 5_000_000])
def test_much_traffic_is_calculated_in_its_own_minutes(per_minute: int) -> None:
    """And at once: windows are as short as the traffic is dense, so what they cost does not grow with it."""
    began = time.process_time()
    for step in (0, 3):
        rows = power_of(Canary(), MeasuredTraffic(per_minute, per_minute / 2, error_rate=0.01), step=step)
        assert all(row.median_minutes is None or row.median_minutes <= row.looked_minutes for row in rows)
    assert time.process_time() - began < 20.0, "seconds, on an idle processor two or three"
    doubled, fivefold = (row.median_minutes for row in rows[:2])
    assert doubled is not None
    assert fivefold is not None
    assert fivefold <= doubled <= 10.0 * 2_500 / per_minute


def test_ten_times_the_traffic_finds_harm_in_a_tenth_of_the_time() -> None:
    policy = Canary(labels_per_step=0)
    much, more = (
        power_of(policy, MeasuredTraffic(each, error_rate=0.01), step=2)[0] for each in (20_000, 200_000)
    )
    assert much.median_minutes is not None
    assert more.median_minutes is not None
    assert 0.9 <= much.median_minutes / more.median_minutes / 10.0 <= 1.1
    assert more.looked_minutes < 60.0
    assert f"simulated for {more.looked_minutes:.2g} minutes only" in str(more)


def test_words() -> None:
    words = str(power_of(Canary(steps=(10, 100)), TRAFFIC)[0])
    assert words.startswith(
        "errors, 2 times as many (1% to 2%), at 10 %: found by the end of the step (5 minutes)"
    )
    assert words.endswith("in half of them within 14 minutes; false alarms in at most 0.80%")


def test_what_cannot_be_meant_is_refused() -> None:
    for step in (-1, 1, 2):
        with pytest.raises(InputError, match="HF107"):
            power_of(Canary(steps=(10, 100)), TRAFFIC, step=step)
    with pytest.raises(InputError, match="HF107"):
        MeasuredTraffic(0.0)
