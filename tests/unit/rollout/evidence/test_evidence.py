"""Evidence: realised counts, the unit of randomisation, steps, labels that come late."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.errors import InputError
from holdfast.records import Arm
from holdfast.rollout import (
    Canary,
    MetricState,
    RequestOutcome,
    begin,
    begin_step,
    fold_counts,
    fold_requests,
    fold_scores,
    freeze_levels,
)
from holdfast.rollout.evidence.records import UnitEvidence

POLICY = Canary(error_margin=1.0, latency_margin=1.0, latency_tolerance=1.0, latency_slack="0s")


def by_metric(states: tuple[MetricState, ...]) -> dict[str, MetricState]:
    return {state.metric: state for state in states}


def test_no_evidence_is_no_harm_and_no_units() -> None:
    for state in begin(POLICY, 0.02):
        assert (state.is_harmful, state.log_e, state.challenger_units) == (False, 0.0, 0)
    assert by_metric(begin(POLICY, 0.02))["latency"].latency_bound_us == 20_000.0
    assert by_metric(begin(Canary(), 0.02))["latency"].latency_bound_us == 25_000.0


def test_latency_without_a_frozen_bound_cannot_begin() -> None:
    with pytest.raises(InputError, match="HF401"):
        begin(POLICY, None)
    assert [state.metric for state in begin(Canary(latency_quantile=None), None)] == ["errors", "quality"]


def test_a_step_counts_from_its_start() -> None:
    states = by_metric(begin(POLICY, 0.02))
    folded = fold_counts(
        states["errors"], challenger_units=30, challenger_bad=1, champion_units=270, champion_bad=3
    )
    (stepped,) = begin_step([folded])
    again = fold_counts(stepped, challenger_units=5, challenger_bad=0, champion_units=45, champion_bad=0)
    assert (folded.step_units, stepped.step_units) == (30, 0)
    assert (again.step_units, again.challenger_units) == (5, 35)
    assert again.log_e == folded.log_e


def test_one_unit_that_comes_back_is_one_unit_of_the_step() -> None:
    """What a step requests is different units, not visits; what is remembered for it stays bounded."""
    states = begin(POLICY, 0.02)
    for _ in range(200):
        states = fold_requests(states, [RequestOutcome(b"same", Arm.CHALLENGER, False, 1.0)])
    assert {state.step_units for state in states[:2]} == {1}
    assert states[0].challenger_units == 200
    for number in range(300):
        states = fold_requests(states, [RequestOutcome(str(number).encode(), Arm.CHALLENGER, False, 1.0)])
    assert states[0].step_units == 200
    assert isinstance(states[0].evidence, UnitEvidence)
    assert states[0].evidence.seen == ""
    (errors, *_) = fold_requests(begin_step(states), [RequestOutcome(b"7", Arm.CHALLENGER, False, 1.0)])
    assert errors.step_units == 1


@pytest.mark.simulated
def test_alone_the_challenger_is_held_to_the_champions_level_and_seldom_accused() -> None:
    """60 runs at alpha 0.05 to 40 windows at 100 % with the champion's own rates: at most 9 alarms have a
    chance of more than 0.001."""
    rng = np.random.default_rng(8)
    policy = Canary(alpha=0.05, error_margin=1.0, latency_quantile=None, quality_margin=0.0)
    alarms = 0
    for _ in range(60):
        errors, quality = begin(policy, None)
        errors = fold_counts(
            errors, challenger_units=600, challenger_bad=int(rng.binomial(600, 0.02)), champion_units=2000,
            champion_bad=int(rng.binomial(2000, 0.02)),
        )  # fmt: skip
        quality = fold_scores(quality, rng.beta(2.4, 0.6, 150).tolist(), rng.beta(2.4, 0.6, 500).tolist())
        errors, quality = freeze_levels([errors, quality], policy)
        for _ in range(40):
            errors = fold_counts(
                errors, challenger_units=50, challenger_bad=int(rng.binomial(50, 0.02)), champion_units=0,
                champion_bad=0,
            )  # fmt: skip
            quality = fold_scores(quality, rng.beta(2.4, 0.6, 20).tolist(), [])
        alarms += errors.is_harmful or quality.is_harmful
    assert alarms <= 9


def test_stragglers_of_the_champion_are_compared_with_even_at_the_end() -> None:
    (errors, _, quality) = freeze_levels(begin(POLICY, 0.02), POLICY)
    compared = fold_counts(errors, challenger_units=50, challenger_bad=25, champion_units=50, champion_bad=0)
    assert compared.is_harmful
    assert not fold_counts(
        errors, challenger_units=50, challenger_bad=50, champion_units=0, champion_bad=0
    ).is_harmful, "nothing can be held against it when the champion has shown nothing"
    assert fold_scores(fold_scores(quality, [], [0.9] * 80), [0.1] * 80, []).is_harmful


def test_latency_is_counted_over_the_frozen_bound() -> None:
    window = [RequestOutcome(bytes([n]), Arm.CHALLENGER, False, 20_000.0 + (n < 3)) for n in range(10)]
    latency = by_metric(fold_requests(begin(POLICY, 0.02), window))["latency"]
    assert (latency.challenger_units, latency.challenger_total) == (10, 3.0)


def test_responses_of_the_fallback_are_no_evidence_about_either_version() -> None:
    states = fold_requests(begin(POLICY, 0.02), [RequestOutcome(b"u", Arm.FALLBACK, True, 1.0)])
    assert all(state.challenger_units == state.champion_units == 0 for state in states)


def sessions(rng: np.random.Generator, *, count: int, failing: float, clicks: int) -> list[RequestOutcome]:
    """Sessions, one in ten with the challenger; one that fails does so at every click."""
    requests = []
    for number in range(count):
        unit = rng.bytes(8)
        arm = Arm.CHALLENGER if number % 10 == 0 else Arm.CHAMPION
        requests += [RequestOutcome(unit, arm, bool(rng.random() < failing), 1.0)] * clicks
    return requests


@pytest.mark.simulated
def test_a_session_that_fails_at_every_click_is_one_failure() -> None:
    """The trap of counting requests when sessions were randomised: equal arms, 1 % fail five times.

    40 runs of 40 windows at alpha 0.05: by units at most 2 alarms are expected (more than 6 would have a
    chance below 0.005); by requests there are far more.
    """
    rng = np.random.default_rng(6)
    policy = Canary(alpha=0.05, error_margin=1.0, latency_quantile=None)
    by_unit = by_request = 0
    for _ in range(40):
        unit_state = request_state = begin(policy, None)[0]
        for _ in range(40):
            window = sessions(rng, count=100, failing=0.01, clicks=5)
            (unit_state,) = fold_requests([unit_state], window)
            counts = {
                arm: [request.failed for request in window if request.arm is arm]
                for arm in (Arm.CHALLENGER, Arm.CHAMPION)
            }
            request_state = fold_counts(
                request_state,
                challenger_units=len(counts[Arm.CHALLENGER]),
                challenger_bad=sum(counts[Arm.CHALLENGER]),
                champion_units=len(counts[Arm.CHAMPION]),
                champion_bad=sum(counts[Arm.CHAMPION]),
            )
        by_unit += unit_state.is_harmful
        by_request += request_state.is_harmful
    assert by_unit <= 6
    assert by_request > by_unit + 5


def test_a_unit_that_was_bad_is_no_longer_at_risk() -> None:
    """The same failing session in window after window stays one failure: the log-rank test's first event."""
    states = begin(POLICY, 0.02)
    good = [RequestOutcome(bytes([n]), Arm.CHAMPION, False, 1.0) for n in range(20)]
    for _ in range(50):
        states = fold_requests(states, [RequestOutcome(b"bad", Arm.CHALLENGER, True, 1.0), *good])
    errors = by_metric(states)["errors"]
    assert (errors.challenger_units, errors.challenger_total, errors.champion_units) == (1, 1.0, 1000)
    assert not errors.is_harmful


def test_what_is_remembered_is_bounded() -> None:
    states = begin(POLICY, 0.02)
    for batch in range(3):
        window = [RequestOutcome(f"{batch}-{n}".encode(), Arm.CHAMPION, True, 1.0) for n in range(1000)]
        states = fold_requests(states, window)
    evidence = by_metric(states)["errors"].evidence
    assert isinstance(evidence, UnitEvidence)
    assert len(evidence.bad_units) == 1024


def test_quality_that_falls_is_harm_even_when_the_labels_come_in_lumps() -> None:
    rng = np.random.default_rng(9)
    quality = by_metric(begin(Canary(), 0.02))["quality"]
    for _ in range(4):  # four nights of labels
        quality = fold_scores(quality, rng.beta(2.8, 1.2, 100).tolist(), rng.beta(2.4, 0.6, 900).tolist())
    assert quality.is_harmful
    assert quality.challenger_units == 400
    assert quality.champion_total / quality.champion_units == pytest.approx(0.8, abs=0.02)


def test_a_slow_path_is_found_at_all_traffic_although_the_quantile_would_allow_so_many() -> None:
    """A bad push that was slow for one request in fifty was promoted while the level was at least 1 - `latency_quantile`."""
    policy = Canary(slices=("carrier",))
    _, latency, _, of_slices = begin(policy, 0.0005)
    latency = fold_counts(
        latency, challenger_units=117, challenger_bad=0, champion_units=4500, champion_bad=2
    )
    arms = (Arm.CHALLENGER, Arm.CHAMPION)
    calm = [RequestOutcome(b"%d" % n, arms[n % 2], False, 200.0, ("carrier=AA",)) for n in range(9000)]
    (of_slices,) = fold_requests([of_slices], calm)
    pushed = [
        RequestOutcome(
            b"on %d" % n, Arm.CHALLENGER, False, 20_000.0 if n % 65 == 0 else 200.0, ("carrier=AA",)
        )
        for n in range(3359)
    ]
    after = fold_requests(freeze_levels([latency, of_slices], policy), pushed)
    assert [state.is_harmful for state in after] == [True, True]
