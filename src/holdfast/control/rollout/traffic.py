"""Which traffic a rollout's state means: the plan that servers will follow.

The fallback and the version before the champion stay those that servers have warm: they stand in for the champion, and are
what a roll-back without the ledger returns to, while another version is rolled out and after it went back. A newer heuristic
takes its place together with a version that has everything, because there a probe has to confirm the plan that names both.

A tainted version, made from rows that were backed out, is given nothing again: what would return to it returns to its
refuge, the newest version that is clean.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, assert_never

from holdfast.control.evaluation.eligibility import breaking_callers_of, is_whole
from holdfast.errors import RefusedError
from holdfast.records import EVERYTHING_PPM
from holdfast.rollout import Canary, State
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.models import versions
from holdfast.store.rollout import rollouts, traffic_plans
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.store.rollout.traffic_plans import CommittedPlan

_WITHOUT_TRAFFIC: Final = frozenset({State.PENDING, State.SHADOWING, State.CANCELLED})
WITHDRAWN: Final = "traffic.withdrawn"
"""The kind of the event of `withdraw`, whose subject is a rollout."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a plan says: who answers, with which share, who stands in. The fields of `records.TrafficPlan`."""

    champion: str
    challenger: str | None = None
    share_ppm: int = 0
    previous: str | None = None
    fallback: str | None = None
    shadow: str | None = None
    shadow_ppm: int = 0
    serving_config: str | None = None
    runtime: str | None = None


def traffic_of(
    connection: Transaction, store: Store, row: RolloutRow, following: State, step: int
) -> Traffic | None:
    """The traffic when `row` comes to `following` at `step`; None when it stays as it is.

    Raises `RefusedError` HF404 for a roll-back with nothing to return to, HF406 for one of a promotion with nothing clean
    to return to.
    """
    newest = traffic_plans.newest_in(connection, row.model)
    tainted = taints.versions_of(connection, row.model)
    warm = None if newest is None else _clean(newest.plan.fallback, tainted)
    behind = None if newest is None else _clean(newest.plan.previous, {*tainted, row.challenger})
    match following:
        case State.SHADOWING:
            return _shadowed(row, behind, warm)
        case State.PAUSED:
            return None
        case State.CANARY if row.state is State.PAUSED:
            return None
        case State.CANARY:
            return _shared(row, Canary.from_json(row.policy_json).shares_ppm[step], behind, warm)
        case State.VERIFYING if row.champion is None:
            return Traffic(row.challenger, fallback=newest_heuristic(store, row.model, tainted))
        case State.VERIFYING:
            # Not the champion yet: what it cannot answer the champion answers, and it counts against it.
            return _shared(row, EVERYTHING_PPM, behind, newest_heuristic(store, row.model, tainted))
        case State.PROMOTED if row.champion is not None:
            return Traffic(row.challenger, previous=_clean(row.champion, tainted), fallback=warm)
        case State.CANCELLED if row.state is State.SHADOWING:
            return _unshadowed(newest)
        case State.ROLLING_BACK:
            return _returned(connection, store, row, newest, tainted)
        case State.PROMOTED | State.PENDING | State.ROLLED_BACK | State.CANCELLED:
            return None
        case _:
            assert_never(following)


def _shadowed(row: RolloutRow, previous: str | None, warm: str | None) -> Traffic:
    """Nothing changes but that copies are made."""
    shadow = Canary.from_json(row.policy_json).shadow
    assert row.champion is not None, "a first version has nobody whose requests it could get"
    assert shadow is not None, "the policy asks for a shadow"
    return Traffic(
        row.champion,
        previous=previous,
        fallback=warm,
        shadow=row.challenger,
        shadow_ppm=shadow.share_ppm,
    )


def _unshadowed(newest: CommittedPlan | None) -> Traffic:
    assert newest is not None, "copies are made, so there is a plan"
    plan = newest.plan
    return Traffic(plan.champion, previous=plan.previous, fallback=plan.fallback)


def _shared(row: RolloutRow, share_ppm: int, previous: str | None, fallback: str | None) -> Traffic:
    assert row.champion is not None, "traffic is shared with a champion"
    return Traffic(row.champion, row.challenger, share_ppm, previous, fallback)


def refuge(
    store: Store, model: str, tainted: Collection[str], *, fallback: str | None, but: Collection[str] = ()
) -> str | None:
    """The version of `model` that answers in place of tainted ones, none of `but`; None when nothing clean is there.

    The newest qualified version that was promoted and was not taken back; else the newest qualified one that was not taken
    back; else a heuristic, `fallback` before others, because servers have it warm. The newest rollout of a version that had
    traffic decides, and what was taken from it since by a plan alone.
    """
    known = [row for row in versions.of_model(store, model) if row.version not in tainted]
    runs = rollouts.of_model(store, model)
    last = {run.challenger: run for run in reversed(runs) if run.state not in _WITHOUT_TRAFFIC}
    with store.ledger.read() as connection:
        withdrawn = {each for each, run in last.items() if is_withdrawn(connection, run)}
    promoted = {each for each, run in last.items() if run.state is State.PROMOTED} - withdrawn
    ended = {each for each, run in last.items() if run.state in (State.ROLLING_BACK, State.ROLLED_BACK)}
    taken_back = ended | withdrawn
    able = [
        row
        for row in known
        if row.role == "candidate" and row.state == "qualified" and row.version not in but
    ]
    for each in (
        *(row for row in able if row.version in promoted),
        *(row for row in able if row.version not in taken_back),
    ):
        if is_whole(store, each):
            return each.version
    return _clean(fallback, tainted) or newest_heuristic(store, model, tainted)


def withdraw(connection: Transaction, row: RolloutRow, *, reason: str, actor: str, now_us: int) -> None:
    """Keep in the ledger that the version which `row` promoted was taken back by a plan alone, while another rollout could
    move; `refuge` does not return to it until it is pushed again."""
    events.append(
        connection,
        at_us=now_us,
        kind=WITHDRAWN,
        subject=row.subject,
        actor=actor,
        explanation=f"{row.challenger} was promoted, and is taken back: {reason}",
    )


def is_withdrawn(connection: Transaction, row: RolloutRow) -> bool:
    """Whether what `row` promoted was taken back by `withdraw`."""
    return bool(events.newest(connection, subject=row.subject, kind=WITHDRAWN, limit=1))


def newest_heuristic(store: Store, model: str, tainted: Collection[str]) -> str | None:
    """What answers when no version can: the newest clean heuristic of the model that was not refused."""
    for each in versions.of_model(store, model):
        if each.role == "heuristic" and each.state != "refused" and each.version not in tainted:
            return each.version
    return None


def _returned(
    connection: Transaction,
    store: Store,
    row: RolloutRow,
    newest: CommittedPlan | None,
    tainted: Collection[str],
) -> Traffic:
    """What was before, with the fallback that the servers had then: a newer one may be what they cannot load. Whoever stood
    behind the champion does so again when it is warm still; a roll-back loads no file."""
    fallback = warm = None if newest is None else _clean(newest.plan.fallback, tainted)
    before = traffic_plans.before_rollout_in(connection, row.model, row.rollout_id)
    if before is not None and row.state is not State.PROMOTED:
        fallback = _clean(before.plan.fallback, tainted) or warm
    version = row.champion or fallback
    if row.state is State.PROMOTED:
        # Callers have followed the new contract: who does not understand them any more must not answer them.
        tainted = {*tainted, *breaking_callers_of(connection, store, row.challenger)}
        fallback = _clean(fallback, tainted)
    if version is None or version in tainted:
        found = refuge(store, row.model, tainted, fallback=fallback, but=(row.challenger,))
        if found is None and version is not None and row.state is State.PROMOTED:
            raise RefusedError(
                "HF406",
                f"{version}, which was before {row.challenger}, is tainted or breaks callers, and {row.model!r} has nothing "
                "clean to return to",
                state="the rollout is unchanged",
                next_command="holdfast train, then holdfast rollout start",
            )
        # Without a refuge the champion, which has kept its part of the traffic, goes on with all of it.
        version = found or version
    if version is None:
        raise RefusedError(
            "HF404",
            f"{row.challenger} is the first version of {row.model!r}, and there is no heuristic to return to",
            state="the rollout is unchanged",
            next_command="holdfast train",
        )
    previous = None
    if newest is not None and newest.plan.champion == version:
        previous = _clean(newest.plan.previous, {*tainted, row.challenger, version})
    return Traffic(version, previous=previous, fallback=fallback)


def _clean(version: str | None, tainted: Collection[str]) -> str | None:
    return None if version in tainted else version
