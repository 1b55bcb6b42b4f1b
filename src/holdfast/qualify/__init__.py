"""The gates that stand between a trained version and its users: one module each, each a pure function.

A gate turns evidence into a `GateResult`; `standing` says what follows from all of them. The evidence is
gathered in a process of its own by `holdfast.control.evaluation.sandbox`, because a file that nobody has judged may kill
whoever opens it.
"""

from holdfast.qualify.baseline import baseline
from holdfast.qualify.champion import champion, first_version
from holdfast.qualify.gate_config import Gates
from holdfast.qualify.golden import GoldenQuery, golden
from holdfast.qualify.holdout_pair import Pair
from holdfast.qualify.load_report import TensorType, Trial
from holdfast.qualify.load_test import loads
from holdfast.qualify.objective import Objective, objective
from holdfast.qualify.result import GateResult, judged, standing
from holdfast.qualify.signature import Signature, endpoint_signature, signature
from holdfast.qualify.size import size

__all__ = [
    "GateResult",
    "Gates",
    "GoldenQuery",
    "Objective",
    "Pair",
    "Signature",
    "TensorType",
    "Trial",
    "baseline",
    "champion",
    "endpoint_signature",
    "first_version",
    "golden",
    "judged",
    "loads",
    "objective",
    "signature",
    "size",
    "standing",
]
