"""Which traffic a rollout's state means: the plan that servers will follow.

The fallback stays the one that servers have warm. A newer heuristic takes its place together with a version
that has everything, because there a probe has to confirm the plan that names both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from holdfast.errors import RefusedError
from holdfast.records import EVERYTHING_PPM
from holdfast.rollout import Canary, State
from holdfast.store import Store, plans, versions
from holdfast.store.ledger import Transaction
from holdfast.store.rollouts import RolloutRow


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a plan says: who answers, with which share, who stands in. The fields of `records.TrafficPlan`."""

    champion: str
    challenger: str | None = None
    share_ppm: int = 0
    previous: str | None = None
    fallback: str | None = None


def traffic_of(
    connection: Transaction, store: Store, row: RolloutRow, following: State, step: int
) -> Traffic | None:
    """The traffic when `row` comes to `following` at `step`; None when it stays as it is.

    Raises `RefusedError` HF404 for a roll-back with nothing to return to.
    """
    newest = plans.newest_in(connection, row.model)
    warm = None if newest is None else newest.plan.fallback
    match following:
        case State.CANARY:
            return _shared(row, Canary.from_json(row.policy).shares_ppm[step], warm)
        case State.VERIFYING if row.champion is None:
            return Traffic(row.challenger, fallback=_newest_heuristic(store, row.model))
        case State.VERIFYING:
            # Not the champion yet: what it cannot answer the champion answers, and it counts against it.
            return _shared(row, EVERYTHING_PPM, _newest_heuristic(store, row.model))
        case State.PROMOTED if row.champion is not None:
            return Traffic(row.challenger, previous=row.champion, fallback=warm)
        case State.ROLLING_BACK:
            return _returned(connection, row, warm)
        case State.PROMOTED | State.PENDING | State.ROLLED_BACK | State.CANCELLED:
            return None
        case _:
            assert_never(following)


def _shared(row: RolloutRow, share_ppm: int, fallback: str | None) -> Traffic:
    assert row.champion is not None, "traffic is shared with a champion"
    return Traffic(row.champion, challenger=row.challenger, share_ppm=share_ppm, fallback=fallback)


def _returned(connection: Transaction, row: RolloutRow, warm: str | None) -> Traffic:
    """What was before, with the fallback that the servers had then: a newer one may be what they cannot load."""
    fallback = warm
    before = plans.before_rollout_in(connection, row.model, row.rollout)
    if before is not None and row.state is not State.PROMOTED:
        fallback = before.plan.fallback
    version = row.champion or fallback
    if version is None:
        raise RefusedError(
            "HF404",
            f"{row.challenger} is the first version of {row.model!r}, and there is no heuristic to return to",
            state="the rollout is unchanged",
            next_command="holdfast train",
        )
    return Traffic(version, fallback=fallback)


def _newest_heuristic(store: Store, model: str) -> str | None:
    """What answers when no version can: the newest heuristic of the model that was not refused."""
    for each in versions.of_model(store, model):
        if each.role == "heuristic" and each.state != "refused":
            return each.version
    return None
