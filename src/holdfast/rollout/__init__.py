"""How a version reaches its users: the state machine, the policy, the evidence, the decision, the assignment.

Pure: `decide` computes the decision from a rollout, its evidence and the probes;
`holdfast.control.rollout.reconcile` commits it.
"""

from holdfast.rollout.decision.decide import decide
from holdfast.rollout.decision.decisions import (
    Advance,
    BeginShadow,
    Complete,
    Confirm,
    Decision,
    ProbeSeen,
    Readiness,
    RollBack,
    RolloutState,
    Start,
    Wait,
)
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
from holdfast.rollout.evidence.records import MetricState
from holdfast.rollout.evidence.verdict import MetricVerdict, judge
from holdfast.rollout.model.assignment import arm_of, salt_of
from holdfast.rollout.model.metric import RequestOutcome
from holdfast.rollout.model.policy import Canary, Shadow
from holdfast.rollout.model.pushes import PushOutcome
from holdfast.rollout.model.state_machine import RESTING, TERMINAL, TRANSITIONS, Event, State, next_state
from holdfast.rollout.power import MeasuredTraffic, PowerRow, power_of

__all__ = [
    "RESTING",
    "TERMINAL",
    "TRANSITIONS",
    "Advance",
    "BeginShadow",
    "Canary",
    "Complete",
    "Confirm",
    "Decision",
    "Event",
    "Hook",
    "MeasuredTraffic",
    "MetricState",
    "MetricVerdict",
    "PowerRow",
    "ProbeSeen",
    "PushOutcome",
    "Readiness",
    "RequestOutcome",
    "RollBack",
    "RolloutState",
    "Shadow",
    "Start",
    "State",
    "Wait",
    "arm_of",
    "begin",
    "begin_step",
    "decide",
    "fold_counts",
    "fold_requests",
    "fold_scores",
    "freeze_levels",
    "judge",
    "next_state",
    "power_of",
    "salt_of",
    "score",
]
