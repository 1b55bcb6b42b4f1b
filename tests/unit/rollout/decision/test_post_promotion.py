"""The watch that follows a promotion: what ends it, and what it may never call good."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.records import Arm, Verdict
from holdfast.rollout import (
    Canary,
    MetricState,
    PushOutcome,
    RequestOutcome,
    Shadow,
    begin,
    fold_counts,
    fold_requests,
    fold_scores,
    freeze_levels,
)
from holdfast.rollout.decision.decisions import RollBack, Wait
from holdfast.rollout.decision.post_promotion import (
    DAY_US,
    HOUR_US,
    EndBake,
    begin_rate,
    decide_bake,
    fold_rate,
    format_rate,
    next_periods,
)
from holdfast.rollout.evidence import shadow
from holdfast.rollout.evidence.evidence import begin_bake
from holdfast.rollout.evidence.records import Detecting, QualityEvidence, to_json
from tests.support.profile import examples

POLICY = Canary(units_per_step=50, labels_per_step=10)
MINUTE_US = 60_000_000


def promoted(champion_bad: int = 40) -> tuple[MetricState, ...]:
    """The evidence at the promotion: a good canary, whose champion fails in one percent."""
    errors, latency, quality = begin(POLICY, 0.02)
    states = (
        fold_counts(errors, challenger_units=400, challenger_bad=4, champion_units=4000, champion_bad=champion_bad),
        fold_counts(latency, challenger_units=400, challenger_bad=0, champion_units=4000, champion_bad=20),
        fold_scores(quality, [0.8] * 100, [0.8] * 900),
    )  # fmt: skip
    return begin_bake(freeze_levels(states, POLICY), POLICY)


def observed(
    states: tuple[MetricState, ...], *, minutes: int, units: int = 20, failing: int = 0, score: float = 0.8
) -> tuple[MetricState, ...]:
    for minute in range(minutes):
        window = [
            RequestOutcome(f"{minute}/{n}".encode(), Arm.CHALLENGER, n < failing, 100.0) for n in range(units)
        ]
        states = fold_requests(states, window, minute * MINUTE_US)
        states = tuple(
            fold_scores(each, [score] * 5, [], minute * MINUTE_US) if each.metric == "quality" else each
            for each in states
        )
    return states


def decided(states: tuple[MetricState, ...], *, over: bool) -> RollBack | EndBake | Wait:
    return decide_bake(states, POLICY, promoted_us=0, until_us=10, now_us=10 if over else 9)


@pytest.mark.parametrize(
    ("states", "over", "kind", "words"),
    [
        (promoted(), False, Wait, "baking, no harm"),
        (promoted(), True, EndBake, "inconclusive: 0 of 50 units for errors"),
        ((), True, EndBake, "no prediction at all"),
        (observed(promoted(), minutes=10), False, Wait, "no harm"),
        (observed(promoted(), minutes=10), True, EndBake, "no harm in a bake time of 72 h (errors"),
        (observed(promoted(), minutes=10, failing=10), False, RollBack, "harm to errors"),
        (observed(promoted(), minutes=10, failing=10), True, RollBack, "harm to errors"),
        (observed(promoted(), minutes=20, score=0.2), False, RollBack, "harm to quality"),
    ],
)
def test_what_ends_a_bake_time(states: tuple[MetricState, ...], over: bool, kind: type, words: str) -> None:
    """R117, R128."""
    decision = decided(states, over=over)
    assert isinstance(decision, kind)
    assert words in decision.reason
    if isinstance(decision, RollBack):
        assert decision.verdict is Verdict.FAIL
    if isinstance(decision, EndBake):
        assert (decision.outcome is PushOutcome.GOOD) == words.startswith("no harm")


def test_a_detector_finds_after_a_week_what_it_finds_after_an_hour() -> None:
    """A test would have to win back first what it lost while all was well."""

    def minutes_to_harm(states: tuple[MetricState, ...]) -> int:
        for minute in range(60):
            window = [
                RequestOutcome(f"late {minute}/{n}".encode(), Arm.CHALLENGER, n < 3, 100.0) for n in range(20)
            ]
            states = fold_requests(states, window, (20_000 + minute) * MINUTE_US)
            if states[0].is_harmful:
                return minute
        return 60

    early = minutes_to_harm(observed(promoted(), minutes=30))
    late = minutes_to_harm(observed(promoted(), minutes=600))
    assert late <= early + 2
    assert late < 30


def test_labels_of_the_canary_are_compared_in_the_bake_time_as_well() -> None:
    """Labels come days later; both arms' answers are scored, and the comparison goes on."""
    *_, quality = promoted()
    for _ in range(40):
        quality = fold_scores(quality, [0.3] * 2, [0.8] * 18)
    assert quality.is_harmful


def graded(champion: float, later: float, policy: Canary = POLICY) -> tuple[MetricState, ...]:
    """A canary of two equal versions, and four hours of the watch in which the world gives another mean score."""
    rng = np.random.default_rng(2)

    def scores(mean: float, count: int) -> list[float]:
        return list(np.clip(rng.normal(mean, 0.1, count), 0.0, 1.0))

    *_, state = begin(policy, 0.02)
    states: tuple[MetricState, ...] = (fold_scores(state, scores(champion, 2000), scores(champion, 2000)),)
    states = begin_bake(freeze_levels(states, policy), policy)
    for minute in range(240):
        states = (fold_scores(states[0], scores(later, 100), [], minute * MINUTE_US),)
    return states


def test_a_world_that_got_harder_is_reported_and_no_version_is_rolled_back_for_it() -> None:
    states = graded(0.9, 0.84)
    assert isinstance(decided(states, over=False), Wait)
    decision = decided(states, over=True)
    assert isinstance(decision, EndBake)
    assert decision.outcome is PushOutcome.CENSORED
    assert "the mean score is below what the champion showed" in decision.reason


def test_a_loss_that_is_too_large_for_the_world_alone_is_rolled_back() -> None:
    assert isinstance(decided(graded(0.9, 0.75), over=False), RollBack)
    strict = graded(0.9, 0.84, replace(POLICY, bake_quality_margin=0.0))
    assert isinstance(decided(strict, over=False), RollBack)
    same = decided(graded(0.9, 0.9), over=True)
    assert isinstance(same, EndBake)
    assert same.outcome is PushOutcome.GOOD


def test_a_minute_is_one_window_however_many_labels_come_in_it_and_stays_small() -> None:
    """The chance of a false alarm is counted by windows, and the ledger's row is written at each join."""
    *_, quality = promoted()
    for _ in range(5):
        quality = fold_scores(quality, [0.8] * 20_000, [], MINUTE_US)
    assert len(to_json(quality.evidence)) < 12_000
    quality = fold_scores(quality, [0.8] * 20_000, [], 2 * MINUTE_US)
    assert isinstance(quality.evidence, QualityEvidence)
    assert isinstance(quality.evidence.phase, Detecting)
    assert quality.evidence.phase.detecting.detector.windows == 1


@given(st.integers(0, 30), st.integers(0, 20), st.booleans())
@examples(40)
def test_good_needs_its_units_and_never_goes_with_harm(minutes: int, failing: int, over: bool) -> None:
    states = observed(promoted(), minutes=minutes, failing=failing)
    decision = decided(states, over=over)
    if isinstance(decision, EndBake) and decision.outcome is PushOutcome.GOOD:
        assert over
        assert all(state.step_units >= needed for state, needed in zip(states, (50, 50, 10), strict=True))
        assert not any(state.is_harmful for state in states)  # fmt: skip
    assert isinstance(decision, RollBack) == any(state.is_harmful for state in states)


def test_hours_meet_their_likes_and_no_stretch_is_used_twice() -> None:
    switched_us = 10 * DAY_US + 7 * HOUR_US
    state = begin_rate(POLICY, switched_us)
    assert state is not None
    used: list[int] = []
    while (due := next_periods(state, history_us=0, known_at_us=switched_us + 3 * DAY_US)) is not None:
        assert (due.after_us - due.before_us) % DAY_US == 0
        assert due.before_us + due.us <= switched_us <= due.after_us
        used += range(due.before_us, due.before_us + due.us, MINUTE_US)
        state = fold_rate(state, due, after=1000, before=1000)
    assert len(used) == len(set(used)) == 3 * 24 * 60
    assert not state.is_harmful


def test_a_young_model_is_compared_with_the_hour_before_the_switch() -> None:
    state = begin_rate(POLICY, 5 * HOUR_US)
    assert state is not None
    known_at_us, history_us = 9 * HOUR_US, 4 * HOUR_US + HOUR_US // 2
    assert next_periods(state, history_us=history_us, known_at_us=known_at_us) is None  # it is not that old
    due = next_periods(state, history_us=3 * HOUR_US, known_at_us=known_at_us)
    assert due is not None
    assert (due.before_us, due.after_us, due.us) == (4 * HOUR_US, 5 * HOUR_US, HOUR_US)
    state = fold_rate(state, due, after=10, before=1000)
    assert state.is_harmful
    assert next_periods(state, history_us=3 * HOUR_US, known_at_us=known_at_us) is None
    assert "times that before the switch (10 requests after, 1000 in the same time before" in format_rate(
        state
    )


def test_a_rate_that_changed_is_no_harm_and_never_good() -> None:
    rate = begin_rate(POLICY, 0)
    assert rate is not None
    changed = replace(rate, challenger_units=10, champion_units=900, log_e=rate.log_bound)
    decision = decided((*observed(promoted(), minutes=10), changed), over=True)
    assert isinstance(decision, EndBake)
    assert decision.outcome is PushOutcome.CENSORED
    assert "the rate of requests has changed" in decision.reason
    assert isinstance(decided((*observed(promoted(), minutes=10), changed), over=False), Wait)
    assert begin_rate(Canary(rate_margin=None), 0) is None


def test_labels_of_the_shadow_that_come_after_the_promotion_take_it_back() -> None:
    policy = replace(POLICY, shadow=Shadow(units=10))
    reported = [shadow.LabelledPair(bytes([at]), 0.5, 0.9) for at in range(60)]
    copies = shadow.fold_labelled(shadow.begin(policy, 0.02), reported)
    decision = decide_bake((*copies, *promoted()), policy, promoted_us=0, until_us=HOUR_US, now_us=5)
    assert isinstance(decision, RollBack)
    assert "harm in shadow" in decision.reason
