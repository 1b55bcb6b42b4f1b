"""How a version reaches its users: the state machine, the policy, the evidence, the decision, the assignment.

Pure: `decide` computes the decision from a rollout, its evidence and the probes;
`holdfast.control.rollout.reconcile` commits it.
"""

from holdfast.rollout.decision.decide import decide
from holdfast.rollout.decision.webhooks import Hook
from holdfast.rollout.evidence.evidence import (
    begin,
    begin_step,
    fold_counts,
    fold_requests,
    fold_scores,
    freeze_levels,
    score,
)
from holdfast.rollout.evidence.records import MetricState, RequestOutcome
from holdfast.rollout.evidence.verdict import judge
from holdfast.rollout.model.policy import Canary, NewerVersion, Shadow
from holdfast.rollout.model.pushes import PushOutcome
from holdfast.rollout.model.state_machine import RESTING, TERMINAL, TRANSITIONS, Event, State, next_state

__all__ = [
    "RESTING",
    "TERMINAL",
    "TRANSITIONS",
    "Canary",
    "Event",
    "Hook",
    "MetricState",
    "NewerVersion",
    "PushOutcome",
    "RequestOutcome",
    "Shadow",
    "State",
    "begin",
    "begin_step",
    "decide",
    "fold_counts",
    "fold_requests",
    "fold_scores",
    "freeze_levels",
    "judge",
    "next_state",
    "score",
]
