"""Explain one rollout: each decision with its reason, evidence, actor, webhook responses and traffic plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from holdfast.control.rollout.metric_summary import in_order, summarise
from holdfast.control.rollout.progress import progress
from holdfast.rollout import Canary, judge
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.events import EventRow
from holdfast.store.rollout import evidence, rollouts, traffic_plans, webhooks
from holdfast.store.rollout.rollouts import PushRow, RolloutRow
from holdfast.store.rollout.traffic_plans import CommittedPlan
from holdfast.store.rollout.webhooks import HookResponseRow

_MOST_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class RolloutEvent:
    """One event of a rollout.

    `evidence` is the verdict on each metric at that time, empty for an event without one; `plan` is the traffic plan that came
    with it, None if traffic stayed as it was.
    """

    event_id: int
    at_us: int
    kind: str
    actor: str
    explanation: str
    digest: str
    evidence: tuple[dict[str, Any], ...]
    plan: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class RolloutHistory:
    """One rollout from its beginning. `now` is the current evidence on each metric, `push` its outcome.

    `next` is what comes next and when, in one sentence; empty for a rollout that has ended.
    """

    rollout: RolloutRow
    policy: Canary
    events: tuple[RolloutEvent, ...]
    webhook_responses: tuple[HookResponseRow, ...]
    now: tuple[dict[str, Any], ...]
    push: PushRow | None
    next: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the history as plain JSON."""
        return {
            "rollout": self.rollout,
            "chapters": self.events,
            "webhook_responses": self.webhook_responses,
            "evidence_now": self.now,
            "push": self.push,
            "next": self.next,
        }


def explain(store: Store, number: int, *, now_us: int) -> RolloutHistory:
    """Return the history of rollout `number` at `now_us`, microseconds since 1970 UTC.

    Raises `NotFoundError` HF303 when there is none.
    """
    with store.ledger.read() as connection:
        row = rollouts.get(connection, number)
        logged = events.newest(connection, subject=row.subject, limit=_MOST_EVENTS)[::-1]
        decided = evidence.decisions_of(connection, number)
        committed = traffic_plans.of_rollout(connection, number)
        responses = webhooks.responses(connection, number)
        push = rollouts.push_of(connection, number)
        current = progress(connection, row.model, now_us)
        states = in_order(evidence.of_rollout(connection, number))
    policy = Canary.from_json(row.policy_json)
    now = tuple(asdict(judge(state, policy)) | summarise(state, policy).arms() for state in states)
    found = _events(logged, {event: each.evidence for event, each in decided.items()}, committed)
    following = current.next if current is not None and current.rollout_id == number else ""
    return RolloutHistory(row, policy, found, responses, now, push, following)


def _events(
    logged: Sequence[EventRow],
    evidence: dict[int, tuple[dict[str, Any], ...]],
    committed: Sequence[CommittedPlan],
) -> tuple[RolloutEvent, ...]:
    followed = {each.committed_at_us: asdict(each.plan) for each in committed}
    found = []
    for each in logged:
        # A plan is committed in the transaction of the event that explains it, and has its timestamp.
        plan = followed.pop(each.at_us, None) if each.kind.startswith("rollout.") else None
        found.append(
            RolloutEvent(
                each.event_id,
                each.at_us,
                each.kind,
                each.actor,
                each.explanation,
                each.digest,
                evidence.get(each.event_id, ()),
                plan,
            )
        )
    return tuple(found)
