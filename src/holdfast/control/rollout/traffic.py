"""Derive the traffic plan from the state of a rollout.

The fallback and the version before the champion stay those that servers have loaded: they serve in place of the champion, and
a rollback without the ledger returns to them. A newer heuristic becomes the fallback together with a version that gets all
traffic, because a probe then confirms the plan that names both.

A tainted version, made from rows that were backed out, gets no traffic: its fallback version gets it. A version that did harm
or was withdrawn stays loaded for no rollback (R118).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import assert_never

from holdfast.control.evaluation import eligibility
from holdfast.errors import RefusedError
from holdfast.records import EVERYTHING_PPM, TrafficPlan
from holdfast.rollout import Canary, State
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import traffic_plans
from holdfast.store.rollout.rollouts import RolloutRow


def traffic_of(
    connection: Transaction, store: Store, row: RolloutRow, following: State, step: int
) -> TrafficPlan | None:
    """Return the plan when `row` comes to `following` at `step`; None when traffic stays as it is.

    Raises `RefusedError` HF404 for a rollback without a version to return to, HF406 for one of a promotion without a clean
    version to return to.
    """
    newest = traffic_plans.newest(connection, row.model)
    tainted = taints.versions_of(connection, row.model)
    gone = {*tainted, *eligibility.withdrawn_versions(connection, row.model)}
    warm = None if newest is None else _clean(newest.fallback, gone)
    barred = eligibility.barred_versions(connection, row.model)
    behind = None if newest is None else _clean(newest.previous, {*barred, row.challenger})
    match following:
        case State.SHADOWING:
            return _shadowed(row, behind, warm)
        case State.CANARY if row.state is State.PAUSED:
            return None
        case State.CANARY:
            return _shared(row, Canary.from_json(row.policy_json).shares_ppm[step], behind, warm)
        case State.VERIFYING:
            fallback = eligibility.heuristic(connection, row.model, None, tainted)
            if row.champion is None:
                return replace(_plan(row, row.challenger), fallback=fallback)
            # Not the champion yet: the champion serves what it cannot, and that counts against it.
            return _shared(row, EVERYTHING_PPM, behind, fallback)
        case State.PROMOTED if row.champion is not None:
            previous = _clean(row.champion, barred)
            return replace(_plan(row, row.challenger), previous=previous, fallback=warm)
        case State.CANCELLED if row.state is State.SHADOWING:
            assert newest is not None, "copies are made, so there is a plan"
            return replace(_plan(row, newest.champion), previous=newest.previous, fallback=newest.fallback)
        case State.ROLLING_BACK:
            return _returned(connection, store, row, newest, tainted)
        case State.PROMOTED | State.PENDING | State.PAUSED | State.ROLLED_BACK | State.CANCELLED:
            return None
        case _:
            assert_never(following)


def _plan(row: RolloutRow, champion: str) -> TrafficPlan:
    return TrafficPlan(row.model, 0, champion, rollout_id=row.rollout_id)


def _shadowed(row: RolloutRow, previous: str | None, warm: str | None) -> TrafficPlan:
    """Only add copies."""
    shadow = Canary.from_json(row.policy_json).shadow
    assert row.champion is not None, "a first version has no champion whose requests it could get"
    assert shadow is not None, "the policy has a shadow"
    alone = replace(_plan(row, row.champion), previous=previous, fallback=warm)
    return replace(alone, shadow=row.challenger, shadow_ppm=shadow.share_ppm)


def _shared(row: RolloutRow, share_ppm: int, previous: str | None, fallback: str | None) -> TrafficPlan:
    assert row.champion is not None, "traffic is shared with a champion"
    alone = replace(_plan(row, row.champion), previous=previous, fallback=fallback)
    return replace(alone, challenger=row.challenger, share_ppm=share_ppm)


def _returned(
    connection: Transaction,
    store: Store,
    row: RolloutRow,
    newest: TrafficPlan | None,
    tainted: Collection[str],
) -> TrafficPlan:
    """Return the plan of a rollback: what was before, with the fallback that servers had then.

    A newer fallback may be what servers cannot load. The version before the champion stays if it is still loaded; a rollback
    loads no file.
    """
    gone = {*tainted, *eligibility.withdrawn_versions(connection, row.model)}
    fallback = warm = None if newest is None else _clean(newest.fallback, gone)
    before = traffic_plans.before_rollout(connection, row.model, row.rollout_id)
    if before is not None and row.state is not State.PROMOTED:
        fallback = _clean(before.plan.fallback, gone) or warm
    preferred = row.champion or fallback
    if row.state is State.PROMOTED:
        # Callers follow the new contract by now: a version that breaks them must not serve them. Nor may one that did harm.
        breaking = eligibility.breaking_callers_of(connection, row.challenger)
        tainted = {*tainted, *breaking, *eligibility.harmful_versions(connection, row.model)}
        fallback = _clean(fallback, tainted)
    choice = eligibility.fallback(
        connection, store, row.model, preferred, warm=fallback, tainted=tainted, unfit=(row.challenger,)
    )
    if choice.version is None:
        raise RefusedError(
            "HF404",
            f"{row.challenger} is the first version of {row.model!r}, and there is no heuristic to return to",
            state="the rollout is unchanged",
            next_command="holdfast train",
        )
    # A champion that kept a part of the traffic gets all of it as a last resort; one that was replaced does not.
    if choice.is_last_resort and (newest is None or newest.champion != choice.version):
        raise RefusedError(
            "HF406",
            f"{preferred}, which was before {row.challenger}, is tainted, did harm, was withdrawn or breaks callers, and "
            f"{row.model!r} has no clean version to return to",
            state="the rollout is unchanged",
            next_command="holdfast train, then holdfast rollout start",
        )
    previous = None
    if newest is not None and newest.champion == choice.version:
        previous = _clean(newest.previous, {*tainted, *gone, row.challenger, choice.version})
    return replace(_plan(row, choice.version), previous=previous, fallback=fallback)


def _clean(version: str | None, tainted: Collection[str]) -> str | None:
    return None if version in tainted else version
