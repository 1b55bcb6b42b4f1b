"""Aborts: versions that must not serve, even if a plan names them. The rollback that needs no ledger.

An abort names a version and what was known when it was given. It overrides every plan of the rollouts known then, and
older ones, so that an earlier desired state does not return (R122). Two things end it: the ledger records that the version
was rolled back, or a rollout that is newer than the abort pushes the version again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from holdfast.records import EVERYTHING_PPM, TrafficPlan
from holdfast.rollout.model.withdrawal import may_serve

REPEATED_US: Final = 600_000_000
"""For so many microseconds after a version was rolled back, a rollback that names none is about that one (R118)."""


@dataclass(frozen=True, slots=True)
class Abort:
    """`version` must not serve.

    `plan_id` and `rollout_id` are the newest numbers that were known when it was given (0: none), `at_us` when that was, in
    microseconds since 1970 UTC; `reason` and `actor` are those of the operator.
    """

    version: str
    plan_id: int
    rollout_id: int
    reason: str
    actor: str
    at_us: int


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The rollout of `challenger` that was running at the last look."""

    rollout_id: int
    challenger: str


Fit: TypeAlias = Callable[[str, str], bool]
"""True if the first version may serve the callers of the second: warm, clean, and of a contract that they meet."""


def pushed_by(plan: TrafficPlan, abort: Abort) -> int | None:
    """Return the number of the rollout by which `plan` pushes the aborted version; None if it does not.

    A plan that is not newer than the abort pushes nothing, nor does one in which another version is pushed: a version that a
    rollout is compared with, or returns to, is not pushed by it.

    >>> abort = Abort("v2", 7, 3, "bad", "ann", 0)
    >>> pushed_by(TrafficPlan("m", 8, "v1", "v2", 10_000, rollout_id=4, pushes="v2"), abort)
    4
    >>> pushed_by(TrafficPlan("m", 8, "v2", "v3", 10_000, rollout_id=4, pushes="v3"), abort)
    """
    return plan.rollout_id if plan.pushes == abort.version and plan.plan_id > abort.plan_id else None


def banned(aborts: Iterable[Abort], plan: TrafficPlan) -> frozenset[str]:
    """Return the versions that must not serve under `plan`."""
    return frozenset(
        abort.version
        for abort in aborts
        if not may_serve(pushed=pushed_by(plan, abort), withdrawn=abort.rollout_id)
    )


def target(plan: TrafficPlan, under_way: UnderWay | None) -> str:
    """Return the version that a rollback takes the traffic from: the challenger of a rollout, else the champion.

    >>> plan = TrafficPlan("m", 4, "v2", None, 0, "v1", None, 1)
    >>> target(plan, None), target(plan, UnderWay(2, "v3"))
    ('v2', 'v3')
    """
    if plan.challenger is not None:
        return plan.challenger
    if under_way is not None and under_way.challenger != plan.champion:
        return under_way.challenger
    return plan.shadow or plan.champion


def is_repeated(
    version: str,
    plan: TrafficPlan,
    under_way: UnderWay | None,
    *,
    deployed_us: int,
    rolled_back_us: int,
    now_us: int,
) -> bool:
    """Return True if a rollback without a version would roll back `version`, which another rollback has just returned to.

    Parameters
    ----------
    version, plan, under_way
        The version, the plan in force, and the rollout that runs.
    deployed_us
        When `version` first got requests, microseconds since 1970 UTC.
    rolled_back_us
        When traffic last went back, microseconds since 1970 UTC; 0 if never.
    now_us
        The current time, microseconds since 1970 UTC.

    >>> plan = TrafficPlan("m", 4, "v2", None, 0, "v1", None, 1)
    >>> is_repeated("v2", plan, None, deployed_us=5, rolled_back_us=7, now_us=8)
    True
    >>> is_repeated("v2", plan, None, deployed_us=7_000, rolled_back_us=7, now_us=8_000)
    False
    """
    on_its_way = under_way is not None and under_way.challenger == version
    just_now = rolled_back_us > 0 and now_us - rolled_back_us < REPEATED_US
    return version == plan.champion and not on_its_way and just_now and rolled_back_us >= deployed_us


def permitted(plan: TrafficPlan, forbidden: Collection[str], fit: Fit) -> TrafficPlan | None:
    """Return `plan` without the versions of `forbidden`; None if no version is left that can serve.

    A forbidden champion is replaced by a challenger that has all traffic, else by the previous champion, else by the fallback:
    the first that `fit` accepts. A rollout of which one side is missing gathers no evidence.

    >>> plan = TrafficPlan("m", 4, "v2", None, 0, "v1", "h1", 1)
    >>> permitted(plan, {"v2"}, lambda version, _: version != "v1").champion
    'h1'
    >>> permitted(plan, {"v2"}, lambda version, _: False) is None
    True
    """
    if plan.champion not in forbidden:
        served = plan
        if plan.challenger in forbidden:
            served = replace(plan, challenger=None, share_ppm=0, rollout_id=None)
    else:
        everything = plan.challenger if plan.share_ppm >= EVERYTHING_PPM else None
        in_turn = (everything, plan.previous, plan.fallback)
        to = next(
            (
                each
                for each in in_turn
                if each is not None and each not in forbidden and fit(each, plan.champion)
            ),
            None,
        )
        if to is None:
            return None
        served = replace(plan, champion=to, challenger=None, share_ppm=0, previous=None, rollout_id=None)
    gone = {*forbidden, served.champion}
    return replace(
        served,
        previous=None if served.previous in gone else served.previous,
        fallback=None if served.fallback in gone else served.fallback,
        shadow=None if served.shadow in forbidden else served.shadow,
        shadow_ppm=0 if served.shadow in forbidden else served.shadow_ppm,
    )
