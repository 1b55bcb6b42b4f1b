"""Labels that come late and together: what may be compared with what, in a world that changes while the share does."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.records import Arm
from holdfast.rollout import Canary, MetricState, begin, fold_scores, freeze_levels
from holdfast.rollout.evidence.evidence import WAITING_SCORES
from holdfast.rollout.evidence.records import AtLevel, QualityEvidence
from holdfast.rollout.evidence.strata import STRATUM_US, LabelledPrediction, stratified

POLICY = Canary(latency_quantile=None)
RUNS = 60


def quality(policy: Canary = POLICY) -> MetricState:
    return next(state for state in begin(policy, None) if state.metric == "quality")


def evidence_of(state: MetricState) -> QualityEvidence:
    assert isinstance(state.evidence, QualityEvidence)
    return state.evidence


def dumped(seed: int, *, loss: float) -> MetricState:
    """A canary of 16 hours at 120 labels an hour: 2 % until half past eight, then 50 %, while a storm takes 0.15 of every
    score; all labels come in two joins at the end, those that are quick to come first."""
    rng = np.random.default_rng(seed)
    changed_at_us = 8 * STRATUM_US + STRATUM_US // 2
    at_us = np.sort(rng.integers(0, 16 * STRATUM_US, 16 * 120))
    late = at_us >= changed_at_us
    ours = rng.random(at_us.size) < np.where(late, 0.5, 0.02)
    mean = 0.9 - 0.15 * late - 0.02 * np.sin(at_us / STRATUM_US) - loss * ours
    scores = np.clip(rng.normal(mean, 0.1), 0.0, 1.0)
    quick = rng.random(at_us.size) < scores  # good news comes first
    state = quality()
    for joined in (quick, ~quick):
        responses = [
            LabelledPrediction(
                f"{at}", int(at_us[at]), Arm.CHALLENGER if ours[at] else Arm.CHAMPION, b"%d" % at, float(scores[at])
            )
            for at in np.flatnonzero(joined)
        ]  # fmt: skip
        for each in stratified(responses, [changed_at_us]):
            state = fold_scores(state, each.challenger, each.champion, since_us=each.since_us)
    return state


@pytest.mark.simulated
def test_one_dump_of_labels_over_a_changed_share_and_a_drift_is_no_harm() -> None:
    """R126, A/A: quality's part of alpha is 0.1 %, so one alarm in 60 runs would have a chance of 0.06, and two of 0.002."""
    alarms = sum(dumped(seed, loss=0.0).is_harmful for seed in range(RUNS))
    assert alarms <= 1


def test_harm_is_found_in_the_same_dump() -> None:
    assert all(dumped(seed, loss=0.1).is_harmful for seed in range(5))


def test_scores_wait_within_their_stratum_only() -> None:
    state = fold_scores(quality(), [], [0.9] * 200, since_us=0)
    later = fold_scores(state, [0.1] * 200, [], since_us=STRATUM_US)
    assert later.log_e == 0.0
    assert fold_scores(later, [0.1] * 200, [], since_us=0).is_harmful


def test_few_scores_wait_and_those_of_the_oldest_strata_go_first() -> None:
    state = quality()
    for hour in range(40):
        state = fold_scores(state, [], [0.9] * 200, since_us=hour * STRATUM_US)
    waiting = evidence_of(state).waiting
    assert sum(len(each.champion) for each in waiting.values()) <= WAITING_SCORES
    assert max(waiting) == 39 * STRATUM_US
    assert min(waiting) > 20 * STRATUM_US


def test_late_labels_of_the_champion_are_not_compared_with_responses_given_at_100_percent() -> None:
    (state,) = freeze_levels([fold_scores(quality(), [0.8] * 300, [0.8] * 300)], POLICY)
    state = fold_scores(state, [], [1.0] * 200, since_us=STRATUM_US)
    before = state.log_e
    state = fold_scores(state, [0.8] * 200, [], since_us=2 * STRATUM_US)
    assert state.log_e == pytest.approx(before, abs=0.5)
    assert isinstance(evidence_of(state).phase, AtLevel)


def test_a_unit_counts_as_one_in_each_stratum() -> None:
    reported = [LabelledPrediction(f"{at}", at, Arm.CHAMPION, b"same", at / 4) for at in range(4)]
    (stratum,) = stratified(reported, [])
    assert stratum.champion == (0.375,)
