"""What a roll-back that a person asks for is about: which rollout it takes back, and when it takes back none.

A command may be given twice: by somebody who is in a hurry, by a script, after a connection that broke. The second must not
take back the version to which the first returned (R118).
"""

from __future__ import annotations

from holdfast.errors import RefusedError
from holdfast.rollout import State
from holdfast.rollout.model.abort import REPEATED_US
from holdfast.rollout.model.state_machine import TERMINAL
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import rollouts, traffic_plans
from holdfast.store.rollout.rollouts import RolloutRow


def undone_by(connection: Transaction, model: str, version: str | None, *, now_us: int) -> RolloutRow:
    """The rollout that a roll-back is about: that of `version`; without one that which is under way, else the promotion of
    the champion, however many rollouts have ended since.

    It may be taken back already; then there is nothing to do. Raises `RefusedError` HF404 when `version` has no traffic and
    none was taken from it, when there is no promotion to undo, and when no version is named a moment after another was taken
    back.
    """
    row = rollouts.under_way_in(connection, model)
    if version is None:
        return row or _promotion(connection, model, now_us)
    if row is not None and row.challenger == version:
        return row
    plan = traffic_plans.newest_in(connection, model)
    champion = None if plan is None else plan.plan.champion
    if champion == version:
        return _of_champion(connection, model, version, row)
    last = rollouts.last_of_in(connection, model, version)
    if last is not None and last.state in TERMINAL:
        return last
    raise RefusedError(
        "HF404",
        f"{version[:64]} has no traffic of {model!r} to give back: {champion or 'no version'} answers",
        state="nothing was written",
        next_command="holdfast status",
    )


def _of_champion(
    connection: Transaction, model: str, version: str, under_way: RolloutRow | None
) -> RolloutRow:
    if under_way is not None:
        raise RefusedError(
            "HF404",
            f"rollout {under_way.rollout} of {under_way.challenger} against {version} is {under_way.state}, and comes first",
            state="nothing was written",
            next_command=f"holdfast rollback --version {under_way.challenger}, then the same command again",
        )
    row = rollouts.promotion_in(connection, model, version)
    if row is None:
        raise _nothing(model, f"{version} was not promoted by a rollout")
    return row


def _promotion(connection: Transaction, model: str, now_us: int) -> RolloutRow:
    plan = traffic_plans.newest_in(connection, model)
    if plan is None:
        raise _nothing(model, "no version serves")
    row = _of_champion(connection, model, plan.plan.champion, None)
    last = rollouts.last_ended_in(connection, model, TERMINAL)
    if last is not None and last.changed_us >= row.changed_us and now_us - last.changed_us < REPEATED_US:
        seconds = max(0, now_us - last.changed_us) / 1e6
        raise RefusedError(
            "HF404",
            f"rollout {last.rollout} of {last.challenger} is {last.state} since {seconds:.0f} s, and {row.challenger} answers: "
            f"it is not taken back unless it is named",
            state="nothing was written",
            next_command=f"nothing, or holdfast rollback --version {row.challenger}",
        )
    return row


def _nothing(model: str, why: str) -> RefusedError:
    return RefusedError(
        "HF404",
        f"{model!r} has no promotion to undo: {why}, and no rollout is under way",
        state="nothing was written",
        next_command="holdfast status",
    )


def is_undone(row: RolloutRow) -> bool:
    """Whether it is taken back already, or about to be."""
    return row.state is State.ROLLING_BACK or row.state in TERMINAL
