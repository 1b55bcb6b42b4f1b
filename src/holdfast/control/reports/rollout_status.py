"""One rollout with its evidence, running or ended, as the status and the page list it."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.control.rollout.metric_summary import MetricSummary, in_order, summarise
from holdfast.rollout import Canary
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import evidence
from holdfast.store.rollout.rollouts import RolloutRow


@dataclass(frozen=True, slots=True)
class RolloutStatus:
    """One rollout and its evidence. `steps_ppm` are the challenger's shares, `step` is the current index."""

    rollout_id: int
    challenger: str
    champion: str | None
    state: str
    running: bool
    step: int
    steps_ppm: tuple[int, ...]
    started_at_us: int
    changed_at_us: int
    reason: str
    actor: str
    evidence: tuple[MetricSummary, ...]


def rollout_status(connection: Transaction, row: RolloutRow) -> RolloutStatus:
    """Return `row` with its evidence."""
    policy = Canary.from_json(row.policy_json)
    states = in_order(evidence.of_rollout(connection, row.rollout_id))
    return RolloutStatus(
        rollout_id=row.rollout_id,
        challenger=row.challenger,
        champion=row.champion,
        state=row.state,
        running=row.running,
        step=row.step,
        steps_ppm=policy.shares_ppm,
        started_at_us=row.started_at_us,
        changed_at_us=row.changed_at_us,
        reason=row.reason,
        actor=row.actor,
        evidence=tuple(summarise(state, policy) for state in states),
    )
