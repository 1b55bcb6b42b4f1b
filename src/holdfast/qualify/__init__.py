"""The gates between a trained version and its users, each a pure function.

A gate turns evidence into a `GateResult`; `decide_status` combines them. The evidence is gathered in a separate
process by `holdfast.control.evaluation.sandbox`, because an unqualified file may crash the process that opens it.
"""

from holdfast.qualify.auc_comparison import check_baseline, check_champion, pass_first_version
from holdfast.qualify.gate_config import Gates
from holdfast.qualify.golden import GoldenQuery, check_golden
from holdfast.qualify.holdout_pair import HoldoutPair
from holdfast.qualify.load_test import LoadReport, TensorType, check_load
from holdfast.qualify.objective import (
    Objective,
    ObjectiveComparison,
    check_objective,
    compare_with_objective,
)
from holdfast.qualify.result import GateResult, decide_status
from holdfast.qualify.signature import Signature, check_signature, endpoint_signature
from holdfast.qualify.size import check_size

__all__ = [
    "GateResult",
    "Gates",
    "GoldenQuery",
    "HoldoutPair",
    "LoadReport",
    "Objective",
    "ObjectiveComparison",
    "Signature",
    "TensorType",
    "check_baseline",
    "check_champion",
    "check_golden",
    "check_load",
    "check_objective",
    "check_signature",
    "check_size",
    "compare_with_objective",
    "decide_status",
    "endpoint_signature",
    "pass_first_version",
]
