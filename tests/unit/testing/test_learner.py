"""Our learners keep the laws of a learner, and each law is broken by a learner that is made to break it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from holdfast.features import Passthrough
from holdfast.testing import Law, learner_laws
from holdfast.train import GroupMean, LightGBM, LogisticRegression

LAWS = [
    law
    for learner in (
        LogisticRegression(),
        LightGBM(trees=20),
        GroupMean(by=(Passthrough("first"), Passthrough("second"))),
    )
    for law in learner_laws(learner)
]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_our_learners_keep_every_law(law: Law) -> None:
    law()


@dataclass
class Planted:
    """A good learner with one fault: what it reports, what it fits, and what it does to the graph."""

    base: Any = field(default_factory=LogisticRegression)
    named: str = "planted"
    declared: dict[str, object] = field(default_factory=dict)
    before: Callable[..., tuple[Any, ...]] = lambda x, y, names, weights: (x, y, names, weights)
    after: Callable[[onnx.ModelProto], onnx.ModelProto] = lambda graph: graph

    @property
    def name(self) -> str:
        return self.named

    @property
    def parameters(self) -> dict[str, object]:
        return self.declared

    def fit(self, x, y, names, *, seed, weights=None):
        x, y, names, weights = self.before(x, y, names, weights)
        return self.after(self.base.fit(x, y, names, seed=seed, weights=weights))


def _output(kind: str) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    """Replace the probability by something made from it."""

    def change(graph: onnx.ModelProto) -> onnx.ModelProto:
        for node in graph.graph.node:
            for at, name in enumerate(node.output):
                if name == "probability":
                    node.output[at] = "inner"
        nodes = {
            "percent": [
                helper.make_node("Constant", [], ["c"], value_float=100.0),
                helper.make_node("Mul", ["inner", "c"], ["probability"]),
            ],
            "mean of the batch": [
                helper.make_node("ReduceMean", ["inner"], ["mean"], keepdims=1),
                helper.make_node("Add", ["inner", "mean"], ["sum"]),
                helper.make_node("Constant", [], ["two"], value_float=2.0),
                helper.make_node("Div", ["sum", "two"], ["probability"]),
            ],
            "constant": [
                helper.make_node("Constant", [], ["zero"], value_float=0.0),
                helper.make_node("Mul", ["inner", "zero"], ["probability"]),
            ],
        }[kind]
        graph.graph.node.extend(nodes)
        return graph

    return change


def _renamed(graph: onnx.ModelProto) -> onnx.ModelProto:
    graph.graph.output[0].CopyFrom(helper.make_tensor_value_info("inner", TensorProto.FLOAT, ["N"]))
    return _output("constant")(graph)


def _foreign(graph: onnx.ModelProto) -> onnx.ModelProto:
    graph.graph.node.append(helper.make_node("Mine", ["probability"], ["other"], domain="com.example"))
    graph.opset_import.append(helper.make_opsetid("com.example", 1))
    return graph


class _Drifting:
    """Fits other rows each time."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x, y, names, weights):
        self.calls += 1
        return x, np.where(np.arange(len(y)) < self.calls, 1.0 - y, y), names, weights


def _write(x, y, names, weights):
    x[0, 0] = 1.0 - x[0, 0]
    return x, y, names, weights


def _repaired(x, y, names, weights):
    """Accepts anything, by making it fit."""
    x = np.nan_to_num(x, posinf=0.0)
    rows = max(len(x), 60)
    x, y = np.resize(x, (rows, x.shape[1])), np.resize(np.where(y == 2.0, 1.0, y), rows)
    y = np.where(np.arange(rows) % 2 == 0, 1.0, 0.0) if np.all(y == y[0]) else y
    return x, y, names[: x.shape[1]], None


PLANTED = {
    "describes itself": Planted(declared={"loss": object()}),
    "the same seed gives the same graph": Planted(before=_Drifting()),
    "the graph has the declared signature": Planted(after=_renamed),
    "the graph needs no other operators": Planted(after=_foreign),
    "outputs are probabilities": Planted(after=_output("percent")),
    "a row alone is the row in a batch": Planted(after=_output("mean of the batch")),
    "learns what the rows show": Planted(after=_output("constant")),
    "weights count": Planted(before=lambda x, y, names, weights: (x, y, names, None)),
    "leaves its arguments alone": Planted(before=_write),
    "refuses rows that cannot train": Planted(before=_repaired),
    "refuses weights that cannot train": Planted(before=_repaired),
}


def test_every_law_has_a_learner_that_breaks_it() -> None:
    assert {law.name for law in LAWS} == set(PLANTED)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_breaks_its_law(name: str) -> None:
    (law,) = (law for law in learner_laws(PLANTED[name]) if law.name == name)
    with pytest.raises(AssertionError, match=f'planted breaks the law "{name}"'):
        law()
