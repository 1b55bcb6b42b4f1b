"""R127: both error rates of a policy, in numbers and in words, before it is used."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from holdfast.errors import InputError
from holdfast.records import MINUTE_US, Arm
from holdfast.rollout import Canary, RequestOutcome, begin, fold_requests
from holdfast.rollout.evidence.windows import (
    OpenWindow,
    RequestGroup,
    Window,
    close_due,
    gather,
    window_units,
)
from holdfast.rollout.power import MeasuredTraffic, power_of, windows_of

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


def windows_in(
    policy: Canary, requests: Iterator[tuple[float, RequestOutcome]], minutes: int
) -> list[Window]:
    """The windows that the control loop closes of `requests`, each with its minute, when it collects each second."""
    opened: tuple[OpenWindow, ...] = ()
    closed: list[Window] = []
    waiting = next(requests)
    for second in range(60 * minutes + 3):
        groups = []
        while waiting[0] * 60.0 < second:
            groups.append(RequestGroup(1, int(waiting[0]) * MINUTE_US, 0, (waiting[1],)))
            waiting = next(requests)
        found = gather(opened, groups, most_units=window_units(policy), now_us=second * 1_000_000)
        due = close_due(found.opened, second * 1_000_000)
        opened, closed = due.opened, [*closed, *found.closed, *due.closed]
    return closed


def arrivals(
    seed: int, per_minute: float, share: float, rate: float, ratio: float = 1.0
) -> Iterator[tuple[float, RequestOutcome]]:
    """Units with the minute in which each came, for ever."""
    chance, at_minutes = random.Random(seed), 0.0
    for number in itertools.count():
        at_minutes += chance.expovariate(per_minute)
        arm = Arm.CHALLENGER if chance.random() < share else Arm.CHAMPION
        failed = chance.random() < rate * (ratio if arm is Arm.CHALLENGER else 1.0)
        yield at_minutes, RequestOutcome(b"%d" % number, arm, failed, 900.0)


@pytest.mark.parametrize(
    ("per_minute", "share", "minutes"), [(1_200, 0.1, 15), (60, 0.1, 120), (2, 0.5, 1_500)]
)
def test_power_is_that_of_the_windows_that_the_product_closes(
    per_minute: float, share: float, minutes: int
) -> None:
    """Those without a unit of one arm show nothing, and are in neither."""
    policy = Canary()
    closed = windows_in(policy, arrivals(1, per_minute, share, 0.0), minutes)
    sizes = [Counter(each.arm for each in window.requests) for window in closed]
    both = [each for each in sizes if len(each) == 2]
    planned = windows_of(policy, per_minute, share, horizon_minutes=60, bad_rate=0.01)
    assert planned.minutes == pytest.approx(minutes / len(both), rel=0.1)
    for arm, mean in (
        (Arm.CHALLENGER, planned.challenger_units),
        (Arm.CHAMPION, planned.champion_units),
    ):
        assert mean == pytest.approx(sum(each[arm] for each in both) / len(both), rel=0.1)


def test_the_median_is_that_of_requests_through_the_product() -> None:
    """Four times the errors at 60 requests a minute, request by request through windows and folds."""
    policy = Canary(steps=(50, 100), latency_quantile=None)
    (row, _, *_) = power_of(policy, MeasuredTraffic(60.0, error_rate=0.04))
    assert row.effect == "2 times as many (4% to 8%)"
    found = []
    for seed in range(30):
        states, ended = begin(policy, None), 61.0
        for window in windows_in(policy, arrivals(seed, 60.0, 0.5, 0.04, 2.0), 60):
            states = fold_requests(states, window.requests)
            if states[0].is_harmful:
                ended = window.minute_start_us / MINUTE_US + 1.0
                break
        found.append(ended)
    assert row.median_minutes is not None
    assert sorted(found)[15] == pytest.approx(row.median_minutes, rel=0.35)


def test_words() -> None:
    words = str(power_of(Canary(steps=(10, 100)), TRAFFIC)[0])
    assert words.startswith(
        "errors, 2 times as many (1% to 2%), at 10 %: found by the end of the step (5 minutes)"
    )
    assert words.endswith("in half of them within 13 minutes; false alarms in at most 0.80 %")


def test_what_cannot_be_meant_is_refused() -> None:
    for step in (-1, 1, 2):
        with pytest.raises(InputError, match="HF107"):
            power_of(Canary(steps=(10, 100)), TRAFFIC, step=step)
    with pytest.raises(InputError, match="HF107"):
        MeasuredTraffic(0.0)
