"""Labels that come late and together: what may be compared with what, in a world that changes while the share does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from holdfast.records import Arm
from holdfast.rollout import Canary, MetricState, begin, fold_scores, hold_to_levels
from holdfast.rollout.evidence.evidence import WAITING_SCORES
from holdfast.rollout.evidence.strata import STRATUM_US, LabelledAnswer, stratified

POLICY = Canary(latency_quantile=None)
RUNS = 60


def quality(policy: Canary = POLICY) -> MetricState:
    return next(state for state in begin(policy, None) if state.metric == "quality")


def dumped(seed: int, *, loss: float) -> MetricState:
    """A canary of 16 hours at 120 labels an hour: 2 % until half past eight, then 50 %, while a storm takes 0.15 of every
    score; all labels come in two joins at the end, those that are quick to come first."""
    rng = np.random.default_rng(seed)
    changed_us = 8 * STRATUM_US + STRATUM_US // 2
    at_us = np.sort(rng.integers(0, 16 * STRATUM_US, 16 * 120))
    late = at_us >= changed_us
    ours = rng.random(at_us.size) < np.where(late, 0.5, 0.02)
    mean = 0.9 - 0.15 * late - 0.02 * np.sin(at_us / STRATUM_US) - loss * ours
    scores = np.clip(rng.normal(mean, 0.1), 0.0, 1.0)
    quick = rng.random(at_us.size) < scores  # good news comes first
    state = quality()
    for joined in (quick, ~quick):
        answers = [
            LabelledAnswer(
                f"{at}", int(at_us[at]), Arm.CHALLENGER if ours[at] else Arm.CHAMPION, b"%d" % at, float(scores[at])
            )
            for at in np.flatnonzero(joined)
        ]  # fmt: skip
        for each in stratified(answers, [changed_us]):
            state = fold_scores(state, each.challenger, each.champion, since_us=each.since_us)
    return state


def test_one_dump_of_labels_over_a_changed_share_and_a_drift_is_no_harm() -> None:
    """R126, A/A: quality's part of alpha is 0.1 %, so one alarm in 60 runs would have a chance of 0.06, and two of 0.002."""
    alarms = sum(dumped(seed, loss=0.0).harmful for seed in range(RUNS))
    assert alarms <= 1


def test_harm_is_found_in_the_same_dump() -> None:
    assert all(dumped(seed, loss=0.1).harmful for seed in range(5))


def test_scores_wait_within_their_stratum_only() -> None:
    state = fold_scores(quality(), [], [0.9] * 200, since_us=0)
    later = fold_scores(state, [0.1] * 200, [], since_us=STRATUM_US)
    assert later.log_e == 0.0
    assert fold_scores(later, [0.1] * 200, [], since_us=0).harmful


def test_few_scores_wait_and_those_of_the_oldest_strata_go_first() -> None:
    state = quality()
    for hour in range(40):
        state = fold_scores(state, [], [0.9] * 200, since_us=hour * STRATUM_US)
    waiting = json.loads(state.state)["waiting"]
    assert sum(len(theirs) for _, theirs in waiting.values()) <= WAITING_SCORES
    assert max(map(int, waiting)) == 39 * STRATUM_US
    assert min(map(int, waiting)) > 20 * STRATUM_US


def test_late_labels_of_the_champion_are_not_compared_with_answers_given_at_100_percent() -> None:
    (state,) = hold_to_levels([fold_scores(quality(), [0.8] * 300, [0.8] * 300)], POLICY)
    state = fold_scores(state, [], [1.0] * 200, since_us=STRATUM_US)
    before = state.log_e
    state = fold_scores(state, [0.8] * 200, [], since_us=2 * STRATUM_US)
    assert state.log_e == pytest.approx(before, abs=0.5)
    assert json.loads(state.state)["watch"] != json.loads(quality().state).get("watch")


def test_a_unit_counts_as_one_in_each_stratum() -> None:
    told = [LabelledAnswer(f"{at}", at, Arm.CHAMPION, b"same", at / 4) for at in range(4)]
    (stratum,) = stratified(told, [])
    assert stratum.champion == (0.375,)
