"""The abort's rule against a model of what may happen: the aborted version never answers unless a newer rollout pushes it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from holdfast.records import EVERYTHING_PPM, TrafficPlan
from holdfast.rollout.model.abort import (
    REPEATED_US,
    Abort,
    UnderWay,
    banned,
    is_repeated,
    permitted,
    pushed_by,
    target,
)
from tests.support.profile import examples

VERSIONS = ("v1", "v2", "v3", "h1")
maybe = st.one_of(st.none(), st.sampled_from(VERSIONS))


@st.composite
def plans(draw: st.DrawFn) -> TrafficPlan:
    """Any plan that the ledger's rules allow."""
    champion = draw(st.sampled_from(VERSIONS))
    challenger = draw(maybe)
    challenger = None if challenger == champion else challenger
    share = draw(st.sampled_from((0, 10_000, 500_000, EVERYTHING_PPM))) if challenger else 0
    return TrafficPlan(
        "m",
        draw(st.integers(1, 12)),
        champion,
        challenger,
        share,
        draw(maybe),
        draw(maybe),
        draw(st.one_of(st.none(), st.integers(1, 6))),
        draw(maybe),
        10_000,
        pushes=draw(maybe),
    )


aborts = st.builds(
    Abort,
    version=st.sampled_from(VERSIONS),
    plan_id=st.integers(0, 12),
    rollout_id=st.integers(0, 6),
    reason=st.just("bad"),
    actor=st.just("ann"),
    at_us=st.integers(0, 9),
)


@examples(200)
@given(plans(), st.lists(aborts, max_size=3), st.sets(st.sampled_from(VERSIONS)))
def test_no_version_that_must_not_serve_has_any_part_in_what_is_served(
    plan: TrafficPlan, given_aborts: list[Abort], unfit: set[str]
) -> None:
    """R122: neither as an arm nor as a fallback version; what takes a champion's place was accepted by `fit`."""
    forbidden = banned(given_aborts, plan)
    served = permitted(plan, forbidden, lambda version, _: version not in unfit)
    if served is None:
        in_turn = {plan.previous, plan.fallback} | (
            {plan.challenger} if plan.share_ppm == EVERYTHING_PPM else set()
        )
        assert plan.champion in forbidden
        assert {each for each in in_turn if each is not None} <= forbidden | unfit
        return
    assert forbidden.isdisjoint(served.versions())
    assert served.plan_id == plan.plan_id
    assert served.champion == plan.champion or served.champion not in unfit
    if not forbidden:
        assert replace(served, previous=None, fallback=None) == replace(plan, previous=None, fallback=None)
    if served.rollout_id is not None:
        assert (served.champion, served.challenger) == (plan.champion, plan.challenger)


@examples(100)
@given(aborts, st.lists(plans(), min_size=1, max_size=8))
def test_an_older_desired_state_never_comes_back(abort: Abort, sequence: list[TrafficPlan]) -> None:
    """R122: whatever plans come, in whatever order and however often, the version answers under one of a newer rollout only."""
    for plan in [*sequence, *reversed(sequence)]:
        served = permitted(plan, banned([abort], plan), lambda _, __: True)
        if served is not None and abort.version in served.versions():
            assert plan.rollout_id is not None
            assert plan.rollout_id > abort.rollout_id
            assert plan.plan_id > abort.plan_id
            assert pushed_by(plan, abort) == plan.rollout_id


@given(aborts, plans())
def test_what_stands_is_stood_by_again(abort: Abort, plan: TrafficPlan) -> None:
    """Requested twice, the same: what `permitted` made is permitted as it is."""
    served = permitted(plan, banned([abort], plan), lambda _, __: True)
    if served is not None and (pushed_by(plan, abort) or 0) <= abort.rollout_id:
        assert permitted(served, {abort.version}, lambda _, __: True) == served


def test_as_the_one_that_others_are_compared_with_a_version_is_not_pushed() -> None:
    abort = Abort("v1", 4, 2, "bad", "ann", 0)
    compared = TrafficPlan("m", 6, "v1", "v2", 10_000, None, None, 3, pushes="v2")
    returned = TrafficPlan("m", 7, "v1", None, 0, "h1", None, 3, pushes="v2")
    promoted = TrafficPlan("m", 8, "v1", None, 0, "v2", "h1", 5, pushes="v1")
    assert banned([abort], compared) == banned([abort], returned) == {"v1"}
    assert not banned([abort], promoted)


def test_a_rollback_takes_the_traffic_from_what_is_on_its_way() -> None:
    """From every state: pending, shadowing, canary, promoted, and with a rollout that the plan does not name yet."""
    promoted = TrafficPlan("m", 4, "v2", None, 0, "v1", "h1", 1)
    assert target(promoted, None) == "v2"
    assert target(promoted, UnderWay(2, "v3")) == "v3"
    assert target(promoted, UnderWay(1, "v2")) == "v2"
    assert target(replace(promoted, shadow="v3", shadow_ppm=5), None) == "v3"
    assert target(replace(promoted, challenger="v3", share_ppm=5), UnderWay(2, "v3")) == "v3"


def test_a_version_that_just_got_the_traffic_back_is_rolled_back_by_name_only() -> None:
    """R118."""
    plan = TrafficPlan("m", 4, "v2", None, 0, "v1", "h1", 1)

    def repeated(
        version: str = "v2", under_way: UnderWay | None = None, deployed: int = 1, back: int = 9, now: int = 9
    ) -> bool:
        return is_repeated(version, plan, under_way, deployed_us=deployed, rolled_back_us=back, now_us=now)

    assert repeated()
    assert repeated(now=8 + REPEATED_US)
    assert not repeated(now=9 + REPEATED_US)
    assert not repeated(deployed=10)
    assert not repeated(back=0, deployed=0, now=1)
    assert not repeated("v3", UnderWay(2, "v3"))
    assert not repeated(under_way=UnderWay(1, "v2"))
