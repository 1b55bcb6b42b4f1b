"""Pairs of answers: false alarms within alpha, planted differences found, each unit once (R111)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InputError
from holdfast.records import Verdict
from holdfast.rollout import Canary, MetricState, Shadow
from holdfast.rollout.evidence.records import DisagreementEvidence, PairEvidence, to_json
from holdfast.rollout.evidence.shadow import (
    KEPT_SLICES,
    REMEMBERED_UNITS,
    ComparedRow,
    LabelledPair,
    Pair,
    begin,
    describe,
    fold_labelled,
    fold_pairs,
    rank_slices,
)
from holdfast.rollout.evidence.verdict import judge_all
from holdfast.rollout.model.metric import (
    SHADOW_DISAGREEMENT,
    SHADOW_ERRORS,
    SHADOW_LATENCY,
    SHADOW_QUALITY,
    SHADOW_SCORE,
)
from holdfast.stats import BettingTest, DiscordantTest, LevelTest
from tests.support.profile import examples

POLICY = Canary(shadow=Shadow(units=100, disagreement=0.05))
BOUND = 0.010
RUNS = 1000
LOOKS = 5
PAIRS_PER_LOOK = 200


def of(states: tuple[MetricState, ...], metric: str) -> MetricState:
    [found] = [state for state in states if state.metric == metric]
    return found


def pair(
    number: int, ours: float = 0.2, theirs: float = 0.2, result: str = "ok", *, failed: bool = False,
    latency_us: float = 900.0, champion_rerun_us: float | None = 900.0, slices: tuple[str, ...] = (),
) -> Pair:  # fmt: skip
    rows = (ComparedRow(ours, theirs, slices),) if result == "ok" and not failed else ()
    return Pair(number.to_bytes(8, "big"), result, failed, rows, latency_us, champion_rerun_us)


def verdicts(states: tuple[MetricState, ...]) -> dict[str, Verdict]:
    return {verdict.metric: verdict.verdict for verdict in judge_all(states, POLICY)}


@pytest.mark.simulated
def test_an_equal_challenger_is_taken_for_a_bad_one_at_most_as_often_as_alpha_allows() -> None:
    """A/A, 1,000 seeded runs of 1,000 pairs, looked at after every 200: disagreement just as often as tolerated, failures
    and slowness as likely on either side, and scores of equal mean."""
    random = np.random.default_rng(20)
    policy = Canary(
        alpha=0.05, error_margin=1.0, latency_margin=1.0, quality_margin=0.0, shadow=POLICY.shadow
    )
    shape = (RUNS, LOOKS)
    otherwise = random.binomial(PAIRS_PER_LOOK, 0.05, shape)
    failing = random.binomial(PAIRS_PER_LOOK, 0.02, (2, *shape))
    slow = random.binomial(PAIRS_PER_LOOK, 0.10, (2, *shape))
    apart = random.choice([-0.2, -0.1, 0.3], (*shape, 20), p=[0.3, 0.3, 0.4]) - 0.03
    alarms = dict.fromkeys((SHADOW_DISAGREEMENT, SHADOW_ERRORS, SHADOW_LATENCY, SHADOW_QUALITY), 0)
    any_alarm = 0
    bound = begin(policy, BOUND)[0].log_bound
    assert bound == pytest.approx(math.log(4 / 0.05))
    for run in range(RUNS):
        level = LevelTest.begin(0.05)
        tests = [DiscordantTest.begin(), DiscordantTest.begin()]
        quality = BettingTest.begin()
        found = set()
        for look in range(LOOKS):
            level = level.fold_counts(units=PAIRS_PER_LOOK, bad=int(otherwise[run, look]))
            counts = (failing[:, run, look], slow[:, run, look])
            tests = [
                test.fold(challenger_only=int(each[0]), champion_only=int(each[1]))
                for test, each in zip(tests, counts, strict=True)
            ]
            quality = quality.fold_differences(apart[run, look])
            earned = (level.log_e, tests[0].log_e, tests[1].log_e, quality.log_e)
            for metric, log_e in zip(alarms, earned, strict=True):
                if log_e >= bound:
                    found.add(metric)
        for metric in found:
            alarms[metric] += 1
        any_alarm += bool(found)
    print(f"A/A: {any_alarm} of {RUNS} runs at alpha 5 %, by metric {alarms}, seed 20")
    assert any_alarm <= 0.05 * RUNS


def test_the_whole_fold_keeps_its_alpha_too() -> None:
    """Through `fold_pairs` and `fold_labelled` themselves: 40 runs of 400 units, looked at after every 50."""
    random = np.random.default_rng(21)
    policy = Canary(
        alpha=0.05, error_margin=1.0, latency_margin=1.0, quality_margin=0.0, shadow=Shadow(disagreement=0.2)
    )
    alarms = 0
    for _ in range(40):
        states = begin(policy, BOUND)
        for look in range(8):
            draws = random.random((50, 6))
            window = [
                pair(
                    look * 50 + number,
                    *((0.9, 0.1) if each[0] < 0.2 else (0.2, 0.2)),
                    result="exception" if each[1] < 0.03 else "ok",
                    failed=bool(each[2] < 0.03),
                    latency_us=20_000.0 if each[3] < 0.1 else 900.0,
                    champion_rerun_us=20_000.0 if each[4] < 0.1 else 900.0,
                )
                for number, each in enumerate(draws)
            ]
            states = fold_pairs(states, window)
            scores = random.beta(4, 2, (20, 2))
            labelled = [LabelledPair(bytes([look, at]), *each) for at, each in enumerate(scores.tolist())]
            states = fold_labelled(states, labelled)
        alarms += any(state.is_harmful for state in states)
    print(f"A/A through the fold: {alarms} of 40 at alpha 5 %, seed 21")
    assert alarms <= 2


@pytest.mark.parametrize(
    ("metric", "rate", "planted"),
    [
        (SHADOW_DISAGREEMENT, 0.15, {"ours": 0.9, "theirs": 0.1}),
        (SHADOW_ERRORS, 0.05, {"result": "not_finite"}),
        (SHADOW_LATENCY, 0.05, {"latency_us": 15_000.0}),
    ],
)
def test_a_planted_difference_is_found(metric: str, rate: float, planted: dict[str, object]) -> None:
    random = np.random.default_rng(22)
    needed = []
    for _ in range(20):
        states = begin(POLICY, BOUND)
        number = 0
        while not of(states, metric).is_harmful and number < 2000:
            window = [
                pair(number + at, **(planted if random.random() < rate else {}))  # type: ignore[arg-type]  # drawn cases
                for at in range(20)
            ]
            states = fold_pairs(states, window)
            number += 20
        needed.append(number)
        assert {name for name, verdict in verdicts(states).items() if verdict is Verdict.FAIL} == {metric}
    print(f"{metric}: {rate:.0%} planted, found after {sorted(needed)[10]} pairs (median of 20), seed 22")
    assert sorted(needed)[18] < 1000


def test_a_loss_of_quality_is_found_in_pairs_that_arms_would_hide() -> None:
    """What is hard is hard for both: scores vary by 0.3 and differ by 0.05 always."""
    random = np.random.default_rng(23)
    states = begin(POLICY, BOUND)
    for number in range(300):
        theirs = float(random.uniform(0.05, 1.0))
        states = fold_labelled(states, [LabelledPair(number.to_bytes(8, "big"), theirs - 0.05, theirs)])
    quality = of(states, SHADOW_QUALITY)
    assert quality.is_harmful
    assert "difference -0.0500 [" in describe(quality)


def test_a_unit_counts_once_however_often_it_comes() -> None:
    states = begin(POLICY, BOUND)
    for _ in range(30):
        states = fold_pairs(states, [pair(1, 0.9, 0.1, latency_us=20_000.0), pair(1, 0.9, 0.1), pair(2)])
    assert [
        of(states, metric).challenger_units
        for metric in (SHADOW_DISAGREEMENT, SHADOW_ERRORS, SHADOW_LATENCY, SHADOW_SCORE)
    ] == [2] * 4
    assert [of(states, metric).challenger_total for metric in (SHADOW_DISAGREEMENT, SHADOW_LATENCY)] == [
        1.0,
        1.0,
    ]


def test_no_data_is_inconclusive_and_a_score_is_reported_and_not_judged() -> None:
    states = begin(POLICY, BOUND)
    assert set(verdicts(states).values()) == {Verdict.INCONCLUSIVE}
    states = fold_pairs(states, [pair(number, 0.49, 0.0) for number in range(100)])
    found = verdicts(states)
    assert found.pop(SHADOW_QUALITY) is Verdict.INCONCLUSIVE
    assert set(found.values()) == {Verdict.PASS}
    assert not [verdict.wanting for verdict in judge_all(states, POLICY) if verdict.wanting]
    assert "difference 0.4900 [0.4" in describe(of(states, SHADOW_SCORE))
    few = fold_pairs(begin(POLICY, BOUND), [pair(1)])
    assert judge_all(few, POLICY)[0].wanting == "1 of 100 units in shadow for shadow.disagreement"


def test_one_hang_is_enough_and_one_failure_is_not() -> None:
    failed = fold_pairs(begin(POLICY, None), [pair(1, result="exception")])
    assert Verdict.FAIL not in verdicts(failed).values()
    hung = fold_pairs(begin(POLICY, None), [pair(1, result="hung")])
    assert verdicts(hung)[SHADOW_ERRORS] is Verdict.FAIL
    assert "hung 1" in describe(of(hung, SHADOW_ERRORS))


def test_a_policy_that_tolerates_no_disagreement_is_broken_by_one() -> None:
    policy = Canary(shadow=Shadow(disagreement=0.0, units=10))
    states = fold_pairs(begin(policy, None), [pair(number) for number in range(500)])
    assert not of(states, SHADOW_DISAGREEMENT).is_harmful
    assert of(fold_pairs(states, [pair(1000, 0.9, 0.1)]), SHADOW_DISAGREEMENT).is_harmful


def test_a_policy_that_tolerates_every_disagreement_does_not_judge_it() -> None:
    policy = Canary(shadow=Shadow(units=10))
    states = fold_pairs(begin(policy, None), [pair(number, 0.9, 0.1) for number in range(500)])
    assert not any(state.is_harmful for state in states)


def test_what_the_champion_failed_too_is_no_difference() -> None:
    states = begin(POLICY, BOUND)
    window = [pair(number, result="exception", failed=True) for number in range(200)]
    errors = of(fold_pairs(states, window), SHADOW_ERRORS)
    assert (errors.log_e, errors.challenger_total, errors.champion_total) == (0.0, 200.0, 200.0)


def test_the_worst_slice_is_named_first_and_small_ones_are_not() -> None:
    window = [pair(number, slices=("carrier=AA", "origin=EWR")) for number in range(60)]
    window += [pair(100 + number, 0.7, 0.4, slices=("carrier=UA", "origin=EWR")) for number in range(30)]
    window += [pair(200 + number, 1.0, 0.0, slices=("carrier=B6",)) for number in range(5)]
    found = rank_slices(fold_pairs(begin(POLICY, None), window))
    assert [each.name for each in found] == ["carrier=UA", "origin=EWR", "carrier=AA"]
    assert (found[0].units, found[0].disagreement, found[0].shift) == (30, 1.0, pytest.approx(0.3))


def test_memory_is_bounded() -> None:
    window = [pair(number, slices=(f"origin={number}",)) for number in range(REMEMBERED_UNITS + 500)]
    states = fold_pairs(begin(POLICY, BOUND), window)
    errors, disagreement = of(states, SHADOW_ERRORS).evidence, of(states, SHADOW_DISAGREEMENT).evidence
    assert isinstance(errors, PairEvidence)
    assert len(errors.seen) == 8 * REMEMBERED_UNITS
    assert isinstance(disagreement, DisagreementEvidence)
    assert len(disagreement.slices) == KEPT_SLICES
    assert of(fold_pairs(states, window[-10:]), SHADOW_ERRORS).challenger_units == len(window)
    assert sum(len(to_json(state.evidence)) for state in states) < 60_000


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30), st.floats(0, 1), st.floats(0, 1), st.sampled_from(["ok", "exception", "hung"])
        ),
        max_size=60,
    ),
    st.integers(1, 10),
)
@examples(60)
def test_counts_are_those_of_the_units_however_the_log_is_truncated(
    drawn: list[tuple[int, float, float, str]], size: int
) -> None:
    """Each unit's first window decides, and nothing is counted twice."""
    pairs = [pair(number, ours, theirs, result) for number, ours, theirs, result in drawn]
    states = begin(POLICY, BOUND)
    for at in range(0, len(pairs), size):
        states = fold_pairs(states, pairs[at : at + size])
    assert of(states, SHADOW_ERRORS).challenger_units == len({each.unit for each in pairs})
    for state in states:
        assert state.challenger_units == state.champion_units
        assert state.step_units == state.challenger_units
    assert of(states, SHADOW_DISAGREEMENT).challenger_units == of(states, SHADOW_SCORE).challenger_units


def test_a_policy_without_a_shadow_has_no_shadow_to_begin() -> None:
    with pytest.raises(InputError, match="HF410"):
        begin(Canary(), None)


def test_a_unit_whose_labels_come_again_and_again_counts_once() -> None:
    """A caller that requests the same flights each cycle shows each of them once, not once a cycle."""
    states = begin(Canary(shadow=Shadow(units=10)), None)
    for cycle in range(30):
        reported = [LabelledPair(bytes([at]), 0.4 + cycle / 100, 0.9) for at in range(5)]
        states = fold_labelled(states, reported)
    quality = next(state for state in states if state.metric == SHADOW_QUALITY)
    assert quality.challenger_units == 5
    assert not quality.is_harmful
    assert quality.challenger_total == pytest.approx(5 * 0.4)
