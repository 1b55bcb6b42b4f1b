"""What follows from a rollout, its evidence and its probes: nothing but values."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.records import Arm, Verdict
from holdfast.rollout import (
    TRANSITIONS,
    Canary,
    MetricState,
    RequestOutcome,
    Shadow,
    State,
    begin,
    begin_step,
    decide,
    fold_counts,
    fold_requests,
    fold_scores,
    freeze_levels,
)
from holdfast.rollout.decision.decisions import (
    Advance,
    BeginShadow,
    Complete,
    Confirm,
    ProbeSeen,
    Readiness,
    RollBack,
    RolloutState,
    Start,
    Wait,
)
from holdfast.rollout.evidence import shadow
from holdfast.rollout.evidence.verdict import harm_of
from holdfast.rollout.model.drills import DrillKind, Standing
from tests.support.profile import examples

POLICY = Canary(units_per_step=100, labels_per_step=20, timeout=timedelta(hours=1))
HOUR_US = 3_600_000_000
RUNNING = RolloutState("v2", "v1", "v1", State.CANARY, 0, POLICY, step_started_at_us=0, plan_id=7)


def evidence(
    *, units: int = 100, bad: int = 0, champion_bad: int = 5, labelled: int = 20, score: float = 0.8
) -> tuple[MetricState, ...]:
    errors, latency, quality = begin(POLICY, 0.02)
    return (
        fold_counts(
            errors,
            challenger_units=units,
            challenger_bad=bad,
            champion_units=9 * units,
            champion_bad=champion_bad * units // 100,
        ),
        fold_counts(
            latency, challenger_units=units, challenger_bad=0, champion_units=9 * units, champion_bad=0
        ),
        fold_scores(quality, [score] * labelled, [0.8] * (9 * labelled)),
    )


def seen(
    responded: str | None, plan: int | None = 7, verdict: Verdict = Verdict.PASS, server: str = "s1"
) -> ProbeSeen:
    return ProbeSeen(server, plan, responded, verdict)


def test_enough_evidence_without_harm_advances_one_step() -> None:
    decision = decide(RUNNING, evidence(), [], HOUR_US)
    assert isinstance(decision, Advance)
    assert (decision.step, decision.share_ppm) == (1, 50_000)
    assert "errors 100 units" in decision.reason
    assert [verdict.verdict for verdict in decision.verdicts] == [Verdict.PASS] * 3


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (evidence(units=99), "99 of 100 units for errors, 99 of 100 units for latency"),
        (evidence(labelled=19), "19 of 20 units for quality"),
        (evidence(units=0, labelled=0), "0 of 100 units"),
        ((), "no evidence at all"),
    ],
)
def test_too_little_is_inconclusive_and_waits(known: tuple[MetricState, ...], words: str) -> None:
    """No data is never success."""
    decision = decide(RUNNING, known, [], HOUR_US)
    assert isinstance(decision, Wait)
    assert "inconclusive" in decision.reason
    assert words in decision.reason


def test_patience_that_runs_out_rolls_back_as_inconclusive() -> None:
    decision = decide(RUNNING, evidence(units=3), [], HOUR_US + 1)
    assert isinstance(decision, RollBack)
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert "timeout" in decision.reason


@pytest.mark.parametrize(
    ("known", "metric"),
    [
        (evidence(bad=40), "errors: 40 of 100"),
        (evidence(score=0.1, labelled=60), "quality: mean score 0.1000"),
    ],
)
def test_harm_rolls_back_by_itself_with_its_numbers(known: tuple[MetricState, ...], metric: str) -> None:
    """R117."""
    decision = decide(RUNNING, known, [seen("v2")], 1)
    assert isinstance(decision, RollBack)
    assert decision.verdict is Verdict.FAIL
    assert metric in decision.reason


def alone(
    *, units: int = 300, failing: int = 0, slow: int = 0, labelled: int = 60, score: float = 0.8
) -> tuple[MetricState, ...]:
    """What real traffic gives at 100 %: four good steps, and then windows in which the champion has no unit."""
    states = evidence(units=400, labelled=80)
    states = freeze_levels(begin_step(states), POLICY)
    for window in range(10):
        requests = [
            RequestOutcome(
                f"{window}/{n}".encode(), Arm.CHALLENGER, n < failing / 10, 9e6 if n < slow / 10 else 100.0
            )
            for n in range(units // 10)
        ]
        states = fold_requests(states, requests)
    return tuple(
        fold_scores(state, [score] * labelled, []) if state.metric == "quality" else state for state in states
    )


@pytest.mark.parametrize(("state", "step"), [(State.CANARY, 4), (State.VERIFYING, 4)])
@pytest.mark.parametrize(
    ("known", "metric"),
    [
        (alone(failing=300), "errors"),
        (alone(failing=100), "errors"),
        (alone(slow=100), "latency"),
        (alone(score=0.2), "quality"),
    ],
)
def test_harm_is_found_when_no_version_is_left_to_compare_with(
    state: State, step: int, known: tuple[MetricState, ...], metric: str
) -> None:
    """R117 at 100 %: the challenger is held to what the champion showed before."""
    decision = decide(replace(RUNNING, state=state, step=step), known, [seen("v2")], 1)
    assert isinstance(decision, RollBack)
    assert decision.verdict is Verdict.FAIL
    assert f"harm to {metric}" in decision.reason


def test_a_good_version_alone_goes_on_and_a_silent_one_waits() -> None:
    last = replace(RUNNING, step=4)
    assert isinstance(decide(last, alone(failing=10), [], 1), Complete)
    nothing = decide(last, alone(units=0, labelled=0), [], 1)
    assert isinstance(nothing, Wait)
    assert [verdict.verdict for verdict in nothing.verdicts] == [Verdict.INCONCLUSIVE] * 3


def test_a_champion_that_showed_too_little_is_nothing_to_compare_with() -> None:
    states = tuple(
        fold_scores(state, [0.8] * 30, [0.8] * 3)
        if state.metric == "quality"
        else fold_counts(state, challenger_units=200, challenger_bad=0, champion_units=99, champion_bad=0)
        for state in begin(POLICY, 0.02)
    )
    decision = decide(RUNNING, states, [], 1)
    assert isinstance(decision, Wait)
    assert "99 of 100 units of the champion for errors" in decision.reason
    assert "3 of 20 units of the champion for quality" in decision.reason


def test_harm_is_stronger_than_missing_data_elsewhere() -> None:
    assert isinstance(decide(RUNNING, evidence(bad=40, labelled=0), [], 1), RollBack)


def test_the_last_step_leads_to_verifying_not_to_success() -> None:
    """R132: a push is done when it was seen to serve."""
    decision = decide(replace(RUNNING, step=4), evidence(), [], HOUR_US)
    assert isinstance(decision, Complete)


def test_a_first_version_has_no_version_to_be_compared_with() -> None:
    first = replace(RUNNING, champion=None, returns_to=None, state=State.PENDING)
    assert isinstance(decide(first, [], [], 1), Complete)


def test_a_canary_starts_when_the_bound_on_latency_is_frozen() -> None:
    pending = replace(RUNNING, state=State.PENDING)
    decision = decide(pending, begin(POLICY, 0.02), [], 1)
    assert isinstance(decision, Start)
    assert decision.share_ppm == 10_000
    assert isinstance(decide(pending, [], [], 1), Wait)
    assert isinstance(decide(pending, [], [], HOUR_US + 1), RollBack)


@pytest.mark.parametrize(("state", "version"), [(State.VERIFYING, "v2"), (State.ROLLING_BACK, "v1")])
def test_only_a_response_by_the_right_version_under_the_newest_plan_confirms(
    state: State, version: str
) -> None:
    """R131: declared is not observed."""
    rollout = replace(RUNNING, state=state)
    other = "v1" if version == "v2" else "v2"
    assert isinstance(decide(rollout, (), [seen(version)], 1), Confirm)
    silent = seen(None, None, Verdict.ERROR, "s2")
    assert isinstance(decide(rollout, (), [seen(version), silent], 1), Confirm)
    for probes in (
        [],
        [silent],
        [seen(other)],
        [seen(version, plan=6)],
        [seen(version), seen(other, server="s2")],
    ):
        assert isinstance(decide(rollout, (), probes, 1), Wait)


@pytest.mark.parametrize(
    "probes", [[], [seen("v1", plan=6)], [seen(None, None, Verdict.ERROR)], [seen(None, 7, Verdict.FAIL)]]
)
def test_a_version_that_no_server_is_seen_to_respond_with_is_rolled_back(probes: list[ProbeSeen]) -> None:
    """Servers that disobey, that answer their status and no request, and that have died of it."""
    verifying = replace(RUNNING, state=State.VERIFYING)
    limit_us = POLICY.convergence_timeout_us
    assert isinstance(decide(verifying, (), probes, limit_us), Wait)
    decision = decide(verifying, (), probes, limit_us + 1)
    assert isinstance(decision, RollBack)
    assert decision.verdict is Verdict.INCONCLUSIVE


def test_a_first_version_without_anything_to_return_to_waits_on() -> None:
    first = replace(RUNNING, state=State.VERIFYING, champion=None, returns_to=None)
    assert isinstance(decide(first, evidence(bad=40), [seen("v1", plan=6)], HOUR_US + 1), Wait)


@given(
    st.sampled_from(State),
    st.sampled_from(["v1", None]),
    st.integers(0, 4),
    st.integers(0, 300),
    st.integers(0, 60),
    st.sampled_from([[], [seen("v1")], [seen("v2")], [seen("v2", 6)], [seen(None, None, Verdict.ERROR)]]),
    st.integers(0, 2 * HOUR_US),
)
@examples(75)
def test_every_decision_is_legal_and_reports_why(
    state: State, champion: str | None, step: int, units: int, bad: int, probes: list[ProbeSeen], now_us: int
) -> None:
    policy = replace(POLICY, shadow=Shadow()) if state is State.SHADOWING else POLICY
    rollout = replace(
        RUNNING, state=state, champion=champion, returns_to=champion or "v0", step=step, policy=policy
    )
    decision = decide(rollout, evidence(units=units, bad=min(units, bad)), probes, now_us)
    assert decision.reason
    if not isinstance(decision, Wait):
        assert (state, decision.event) in TRANSITIONS


PENDING = replace(RUNNING, state=State.PENDING)
REQUESTING = replace(POLICY, replay_requests=100, max_drill_age=timedelta(days=7))
READY = Readiness(Verdict.PASS, 100, Standing(DrillKind.ROLLBACK, True, 1, "rollback is ready"))


@pytest.mark.parametrize(
    ("ready", "kind", "words"),
    [
        (READY, Start, "starts with 1 %"),
        (Readiness(), Wait, "has answered 0 of 100 recorded requests"),
        (replace(READY, replayed=99), Wait, "has answered 99 of 100 recorded requests"),
        (replace(READY, replay=Verdict.INCONCLUSIVE), Wait, "recorded requests (holdfast replay v2)"),
        (replace(READY, replay=Verdict.FAIL), RollBack, "failed the replay of 100 requests"),
        (
            replace(READY, drill=Readiness().drill),
            Wait,
            "was never drilled, and the policy requires a drill within",
        ),
        (replace(READY, drill=Readiness().drill, can_drill=False), Start, "starts with"),
    ],
)
def test_what_a_policy_asks_for_before_anything_begins(ready: Readiness, kind: type, words: str) -> None:
    """R120, R133: and what is not there in time ends the rollout before anybody is touched."""
    pending = replace(PENDING, policy=REQUESTING, ready=ready)
    decision = decide(pending, begin(REQUESTING, 0.02), [], 1)
    assert isinstance(decision, kind)
    assert words in decision.reason
    if isinstance(decision, Wait):
        late = decide(pending, begin(REQUESTING, 0.02), [], HOUR_US + 1)
        assert isinstance(late, RollBack)
        assert late.verdict is Verdict.INCONCLUSIVE


SHADOWED = replace(POLICY, shadow=Shadow(units=30, disagreement=0.1))


def copies(units: int, *, failing: int = 0, otherwise: int = 0) -> tuple[MetricState, ...]:
    pairs = [
        shadow.Pair(
            f"u{n}".encode(),
            "exception" if n < failing else "ok",
            False,
            () if n < failing else (shadow.ComparedRow(0.9 if n < otherwise else 0.1, 0.1),),
            100.0,
            100.0,
        )
        for n in range(units)
    ]
    return shadow.fold_pairs(shadow.begin(SHADOWED, 0.02), pairs)


def test_copies_come_before_traffic() -> None:
    """R111."""
    decision = decide(replace(PENDING, policy=SHADOWED), (), [], 1)
    assert isinstance(decision, BeginShadow)
    assert decision.share_ppm == 1_000_000


@pytest.mark.parametrize(
    ("known", "canary", "kind", "words"),
    [
        ((), True, Wait, "no copy got a response"),
        (copies(29), True, Wait, "29 of 30 units in shadow"),
        (copies(30), True, Start, "no harm in shadow"),
        (copies(30), False, Wait, "0 of 200 requests of v1 are known"),
        (copies(60, failing=40), True, RollBack, "harm in shadow: 40 of 60 units failed"),
        (copies(60, otherwise=50), True, RollBack, "50 of 60 units were decided differently"),
        (copies(20, failing=20), True, RollBack, "harm in shadow"),
    ],
)
def test_what_follows_from_copies(
    known: tuple[MetricState, ...], canary: bool, kind: type, words: str
) -> None:
    shadowing = replace(RUNNING, state=State.SHADOWING, policy=SHADOWED)
    first = begin(SHADOWED, 0.02) if canary else ()
    decision = decide(shadowing, (*known, *first), [], 1)
    assert isinstance(decision, kind)
    assert words in decision.reason
    late = decide(shadowing, (*known, *first), [], HOUR_US + 1)
    assert isinstance(late, RollBack if kind is Wait else kind)
    assert (harm_of(known, SHADOWED) != "") == (kind is RollBack)


@pytest.mark.parametrize(
    ("known", "kind"),
    [(evidence(), Wait), ((), Wait), (evidence(units=1), Wait), (evidence(bad=40), RollBack)],
)
def test_a_held_canary_waits_for_a_person_and_for_harm_only(
    known: tuple[MetricState, ...], kind: type
) -> None:
    decision = decide(replace(RUNNING, state=State.PAUSED), known, [], 100 * HOUR_US)
    assert isinstance(decision, kind)


def test_a_step_lasts_as_long_as_the_policy_declares_however_clear_its_evidence_is() -> None:
    slow = replace(RUNNING, policy=replace(POLICY, min_step_duration=timedelta(hours=2)))
    waiting = decide(slow, evidence(), [], 2 * HOUR_US - 1)  # longer than its patience: that is for evidence
    assert isinstance(waiting, Wait)
    assert "a step lasts 2.0 h" in waiting.reason
    assert isinstance(decide(slow, evidence(), [], 2 * HOUR_US), Advance)
    assert isinstance(decide(slow, evidence(bad=40), [], 1), RollBack)


def test_everything_is_given_after_enough_labels_in_all() -> None:
    """R125: traffic moves on early signals, and labels may come days later."""
    policy = replace(POLICY, labels_per_step=0, min_labels_total=50)
    early = replace(RUNNING, policy=policy)
    assert isinstance(decide(early, evidence(labelled=0), [], 1), Advance)
    for steps, step, following in (((1, 5, 25, 50, 100), 3, Advance), ((1, 50), 1, Complete)):
        last = replace(early, policy=replace(policy, steps=steps), step=step)
        waiting = decide(last, evidence(labelled=49), [], 1)
        assert isinstance(waiting, Wait), "no caller gets everything from a version without labels"
        assert "49 of 50 labelled units in all" in waiting.reason
        assert isinstance(decide(last, evidence(labelled=50), [], 1), following)
        assert isinstance(decide(last, evidence(labelled=49), [], HOUR_US + 1), RollBack)


@given(
    st.sampled_from([State.CANARY, State.PAUSED]),
    st.integers(0, 4),
    st.integers(0, 250),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 2 * HOUR_US),
)
@examples(75)
def test_the_share_never_grows_without_its_evidence(
    state: State, step: int, units: int, bad: int, labelled: int, now_us: int
) -> None:
    known = evidence(units=units, bad=min(units, bad), labelled=labelled)
    decision = decide(replace(RUNNING, state=state, step=step), known, [], now_us)
    harmful = any(each.is_harmful for each in known)
    if isinstance(decision, Advance | Complete):
        assert state is State.CANARY
        assert units >= POLICY.units_per_step
        assert labelled >= POLICY.labels_per_step
        assert not harmful
        assert isinstance(decision, Complete) == (step == 4)
    assert (isinstance(decision, RollBack) and decision.verdict is Verdict.FAIL) == harmful


@pytest.mark.parametrize("state", [State.CANARY, State.PAUSED, State.VERIFYING])
def test_labels_of_the_shadow_that_come_when_it_has_traffic_send_it_back(state: State) -> None:
    """R125: the shadow was over before the truth about its copies was known; without harm it holds nothing up."""
    policy = replace(POLICY, shadow=Shadow(units=10))
    running = replace(RUNNING, policy=policy, state=state)
    copies = shadow.begin(policy, 0.02)
    waits = state is not State.CANARY
    assert isinstance(decide(running, (*copies, *evidence()), [], 1), Wait if waits else Advance)
    reported = [shadow.LabelledPair(bytes([at]), 0.5, 0.9) for at in range(60)]
    decision = decide(running, (*shadow.fold_labelled(copies, reported), *evidence()), [], 1)
    assert isinstance(decision, RollBack)
    assert decision.verdict is Verdict.FAIL
    assert "harm in shadow: mean score 0.5000 of 60 units, champion 0.9000" in decision.reason
    assert decision.verdicts[-1].metric == "shadow.quality"
