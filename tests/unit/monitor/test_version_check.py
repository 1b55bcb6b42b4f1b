import dataclasses

import pytest

from holdfast.monitor.version_check import SETTLING_US, Observation, check_server, worst
from holdfast.records import TrafficPlan, Verdict

ALONE = TrafficPlan("m", 7, "v1", None, 0, "v0", "h1", None)
SHARED = dataclasses.replace(ALONE, challenger="v2", share_ppm=50_000)
ALL = dataclasses.replace(ALONE, challenger="v2", share_ppm=1_000_000)


@pytest.mark.parametrize(
    ("plan", "responded", "verdict"),
    [
        (ALONE, "v1", Verdict.PASS),
        (ALONE, "v0", Verdict.FAIL),
        (SHARED, "v1", Verdict.PASS),
        (SHARED, "v2", Verdict.PASS),
        (SHARED, "h1", Verdict.FAIL),
        (ALL, "v2", Verdict.PASS),
        (ALL, "v1", Verdict.FAIL),
        (ALONE, None, Verdict.FAIL),
    ],
)
def test_the_response_is_compared_with_the_plan(plan, responded, verdict):
    """R131, R132: declared against observed, by a request that was answered."""
    assert check_server(plan, Observation(7, responded), plan_age_us=SETTLING_US * 9).verdict is verdict


def test_the_right_version_under_an_older_plan_is_not_a_pass():
    lagging = Observation(6, "v2")
    assert check_server(ALL, lagging, plan_age_us=SETTLING_US).verdict is Verdict.INCONCLUSIVE
    late = check_server(ALL, lagging, plan_age_us=SETTLING_US + 1)
    assert late.verdict is Verdict.FAIL
    assert "plan 6" in late.explanation


def test_no_response_is_an_error_and_no_plan_is_inconclusive():
    silent = Observation(None, None, "it refuses", is_reachable=False)
    assert check_server(ALONE, silent, plan_age_us=0).verdict is Verdict.ERROR
    assert check_server(None, Observation(1, "v1"), plan_age_us=0).verdict is Verdict.INCONCLUSIVE


def test_a_server_that_is_there_and_responds_to_no_request_is_not_silent():
    """R132: a version that every request fails with must not be taken for a server that is away."""
    refusing = Observation(7, None, "answered /infer with status 503")
    assert check_server(ALONE, refusing, plan_age_us=SETTLING_US).verdict is Verdict.INCONCLUSIVE
    late = check_server(ALONE, refusing, plan_age_us=SETTLING_US + 1)
    assert late.verdict is Verdict.FAIL
    assert "503" in late.explanation


def test_the_intended_version_is_the_challenger_only_when_it_has_everything():
    assert [plan.intended for plan in (ALONE, SHARED, ALL)] == ["v1", "v1", "v2"]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((), Verdict.INCONCLUSIVE),
        ((Verdict.PASS, Verdict.PASS), Verdict.PASS),
        ((Verdict.PASS, Verdict.INCONCLUSIVE), Verdict.INCONCLUSIVE),
        ((Verdict.ERROR, Verdict.INCONCLUSIVE), Verdict.ERROR),
        ((Verdict.ERROR, Verdict.FAIL), Verdict.FAIL),
    ],
)
def test_the_worst_server_decides(verdicts, expected):
    assert worst(verdicts)[0] is expected
