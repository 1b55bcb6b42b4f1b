"""The guard of each slice: weights, slots, and harm that only one slice sees."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from holdfast.records import Arm
from holdfast.rollout import Canary, MetricState, RequestOutcome, begin, fold_requests, freeze_levels
from holdfast.rollout.evidence.evidence import begin_bake, begin_step
from holdfast.rollout.evidence.records import SliceEvidence
from holdfast.rollout.evidence.slices import OTHER, SLICES_GUARDED, rank_slices, weight_of
from holdfast.rollout.evidence.verdict import harm_of, judge
from tests.support.profile import examples

POLICY = Canary(slices=("carrier",), error_margin=1.5)
CHALLENGER, CHAMPION = Arm.CHALLENGER, Arm.CHAMPION


def evidence_of(state: MetricState) -> SliceEvidence:
    assert isinstance(state.evidence, SliceEvidence)
    return state.evidence


def guard(policy: Canary = POLICY) -> MetricState:
    return begin(policy, 0.02)[-1]


def request(unit: int, arm: Arm, name: str, *, failed: bool = False, slow: bool = False) -> RequestOutcome:
    return RequestOutcome(unit.to_bytes(8, "big"), arm, failed, 9e6 if slow else 100.0, (f"carrier={name}",))


def fold(state: MetricState, window: list[RequestOutcome], minute: int = 0) -> MetricState:
    return fold_requests([state], window, minute * 60_000_000)[0]


def traffic(first: int, name: str, units: int, *, ours: int = 0, theirs: int = 0) -> list[RequestOutcome]:
    """`units` of both arms; so many of each fail."""
    return [
        request(2 * (first + at) + (arm is CHAMPION), arm, name, failed=at < bad)
        for at in range(units)
        for arm, bad in ((CHALLENGER, ours), (CHAMPION, theirs))
    ]


def test_all_weights_together_are_one_and_common_slices_cost_least() -> None:
    weights = [weight_of(slot, 2) for slot in range(1, SLICES_GUARDED + 2)]
    assert math.isclose(2 * sum(weights), 1.0)
    assert weights == sorted(weights, reverse=True)


def test_harm_to_one_slice_is_seen_although_all_together_look_alike() -> None:
    """R115."""
    state = guard()
    for minute in range(10):
        first = 10_000 * minute
        state = fold(state, traffic(first, "YV", 5, ours=5), minute)
        state = fold(state, traffic(first + 100, "AA", 150, theirs=5), minute)
    assert state.is_harmful
    words = harm_of([state], POLICY)
    assert "carrier=YV: errors, 50 of 50 units bad, champion 0 of 50" in words
    assert "AA" not in words


def test_late_slices_are_pooled_and_a_unit_counts_in_each_of_its_own() -> None:
    state = fold(guard(), [request(n, CHALLENGER, f"c{n}") for n in range(SLICES_GUARDED + 30)])
    names = list(evidence_of(state).slices)
    assert len(names) == SLICES_GUARDED + 1
    assert names[-1] == OTHER
    both = RequestOutcome(b"u", CHALLENGER, False, 1.0, ("carrier=c1", "carrier=c2"))
    after = fold(state, [both])
    assert (
        after.challenger_units - state.challenger_units == 1
    )  # one unit, in two slices and for two kinds of bad
    counts = {each.name: each.counts.challenger_units for each in rank_slices(evidence_of(after), 1.0)}
    assert (counts["carrier=c1"], counts["carrier=c2"]) == (2, 2)


def test_a_unit_that_was_bad_counts_no_more() -> None:
    state = guard()
    for minute in range(20):
        window = [request(1, CHALLENGER, "AA", failed=True), request(2, CHAMPION, "AA")]
        state = fold(state, window, minute)
    shown = [each for each in rank_slices(evidence_of(state), state.log_bound) if each.metric == "errors"]
    assert (shown[0].counts.challenger_units, shown[0].counts.challenger_bad) == (1, 1)
    assert not state.is_harmful


def test_slow_units_of_one_slice_are_seen_and_latency_may_be_left_out() -> None:
    state = guard()
    for minute in range(10):
        window = [
            request(1000 * minute + n, arm, "AA", slow=arm is CHALLENGER)
            for arm, units in ((CHALLENGER, range(10)), (CHAMPION, range(500, 510)))
            for n in units
        ]
        state = fold(state, window, minute)
    assert state.is_harmful
    silent = fold(guard(Canary(slices=("carrier",), latency_quantile=None)), traffic(0, "AA", 9, ours=9))
    assert {each.metric for each in rank_slices(evidence_of(silent), 1.0)} == {"errors"}


def test_the_guard_goes_on_at_everything_and_in_the_observe() -> None:
    state = guard()
    for minute in range(20):
        state = fold(state, traffic(10_000 * minute, "YV", 20), minute)
    (alone,) = freeze_levels([state], POLICY)
    assert freeze_levels([alone], POLICY) == (alone,)
    (observed,) = begin_bake([alone], POLICY)
    for before in (alone, observed):
        after = before
        for minute in range(30, 40):
            window = [request(10**6 + 100 * minute + n, CHALLENGER, "YV", failed=n < 20) for n in range(20)]
            after = fold(after, window, minute)
        assert after.is_harmful
        fine = fold(before, [request(10**7 + n, CHALLENGER, "YV") for n in range(500)], 50)
        assert not fine.is_harmful
        new = fold(before, [request(10**7 + n, CHALLENGER, "ZZ", failed=True) for n in range(50)], 50)
        assert (
            not new.is_harmful
        )  # the champion has shown nothing there: nothing can be held against the challenger


def test_a_guard_that_has_seen_nothing_has_not_passed() -> None:
    """R131: no data is inconclusive, by every column for itself; rare slices and missing values hold nothing up."""
    policy = Canary(slices=("carrier", "zone"), units_per_step=2)

    def seen(first: int, *names: str) -> list[RequestOutcome]:
        arms = ((unit, CHALLENGER if unit % 2 else CHAMPION) for unit in range(first, first + 8))
        return [RequestOutcome(bytes([unit]), arm, False, 100.0, names) for unit, arm in arms]

    nothing = fold(guard(policy), seen(0))
    verdict = judge(nothing, policy)
    assert (verdict.verdict, verdict.wanting) == ("inconclusive", "no unit in any slice by carrier or zone")
    one = judge(fold(nothing, seen(10, "carrier=AA")), policy)
    assert (one.verdict, one.wanting, one.units) == ("inconclusive", "no unit in any slice by zone", 4)
    both = fold(nothing, seen(10, "carrier=AA", "zone=none"))
    assert (judge(both, policy).verdict, judge(both, policy).wanting) == ("pass", "")
    (following,) = begin_step([both])
    assert judge(following, policy).wanting == "no unit in any slice by carrier or zone"
    again = judge(fold(following, seen(20, "carrier=rare", "zone=none")), policy)
    assert (again.verdict, again.units, again.needed) == ("pass", 4, 2)


@given(st.integers(0, 2**32))
@examples(25)
def test_slices_alike_in_both_arms_raise_no_alarm(seed: int) -> None:
    """Twenty-five runs of the same policy: were there one false alarm in a hundred, more than two would be very unlikely."""
    numbers = iter(range(10**9))
    state, mixed = guard(), seed or 1
    for minute in range(10):
        window = []
        for _ in range(60):
            mixed = (mixed * 6364136223846793005 + 1442695040888963407) % 2**64
            arm = CHALLENGER if (mixed >> 40) % 10 == 0 else CHAMPION
            failed = (mixed >> 20) % 50 == 0
            window.append(request(next(numbers), arm, f"c{(mixed >> 50) % 7}", failed=failed))
        state = fold(state, window, minute)
    assert state.log_e < state.log_bound + 2.0


def test_a_slice_that_first_comes_at_100_percent_does_not_stop_the_promotion() -> None:
    """It was not compared, so nothing is held against it; the others are judged all the same."""
    state = fold(guard(), traffic(0, "AA", 300))
    (state,) = freeze_levels([state], POLICY)
    state = fold(state, [request(9_000, CHALLENGER, "ZZ")], 1)
    (state,) = begin_bake([state], POLICY)
    late = [request(20_000 + at, CHALLENGER, "ZZ", failed=True) for at in range(40)]
    assert not fold(state, late, 2).is_harmful
    known = [request(30_000 + at, CHALLENGER, "AA", failed=True) for at in range(40)]
    assert fold(state, known, 2).is_harmful
