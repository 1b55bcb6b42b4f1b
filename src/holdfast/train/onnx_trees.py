"""A LightGBM booster as an ONNX tree ensemble that takes exactly the same branches.

LightGBM compares in float64 and ONNX in float32. For a float32 feature x and a float64 threshold t, `x <= t`
is the same as `x <= down(t)`, where `down` is the largest float32 not above t. Rounding to the nearest
instead, as converters usually do, sends a row between the two to the other branch whenever t was rounded up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
import spox
import spox.opset.ai.onnx.ml.v3 as ml
import spox.opset.ai.onnx.v17 as op

from holdfast.errors import RefusedError

_LEAF: Final = "LEAF"
_BRANCH: Final = "BRANCH_LEQ"


def float32_not_above(threshold: float) -> float:
    """Return the largest float32 that is not above `threshold`.

    >>> float32_not_above(0.1) <= 0.1 < float(np.float32(0.1))
    True
    """
    with np.errstate(over="ignore"):
        nearest = np.float32(threshold)
    return float(np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > threshold else nearest)


@dataclass(slots=True)
class _Nodes:
    """The parallel lists in which ONNX stores a forest."""

    tree: list[int] = field(default_factory=list)
    node: list[int] = field(default_factory=list)
    mode: list[str] = field(default_factory=list)
    feature: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    when_true: list[int] = field(default_factory=list)
    when_false: list[int] = field(default_factory=list)
    missing_is_true: list[int] = field(default_factory=list)
    leaf_tree: list[int] = field(default_factory=list)
    leaf_node: list[int] = field(default_factory=list)
    leaf_value: list[float] = field(default_factory=list)

    def add_tree(self, tree: int, root: Mapping[str, Any]) -> None:
        """Append one tree, with nodes numbered from 0 in the order of the walk."""
        waiting = [(0, root)]
        count = 1
        while waiting:
            node, structure = waiting.pop()
            if "leaf_value" in structure:
                self._add(tree, node, _LEAF, 0, 0.0, (0, 0), missing_is_true=False)
                self.leaf_tree.append(tree)
                self.leaf_node.append(node)
                self.leaf_value.append(float(structure["leaf_value"]))
                continue
            if structure["decision_type"] != "<=":
                raise RefusedError(
                    "HF402",
                    f"a split by {structure['decision_type']!r} cannot be converted",
                    state="nothing was kept",
                )
            left, right = count, count + 1
            count += 2
            threshold = float(structure["threshold"])
            self._add(
                tree,
                node,
                _BRANCH,
                int(structure["split_feature"]),
                float32_not_above(threshold),
                (left, right),
                missing_is_true=_missing_goes_left(structure, threshold),
            )
            waiting += [(left, structure["left_child"]), (right, structure["right_child"])]

    def _add(
        self,
        tree: int,
        node: int,
        mode: str,
        feature: int,
        value: float,
        children: tuple[int, int],
        *,
        missing_is_true: bool,
    ) -> None:
        self.tree.append(tree)
        self.node.append(node)
        self.mode.append(mode)
        self.feature.append(feature)
        self.value.append(value)
        self.when_true.append(children[0])
        self.when_false.append(children[1])
        self.missing_is_true.append(int(missing_is_true))


def _missing_goes_left(structure: Mapping[str, Any], threshold: float) -> bool:
    # A feature that was never missing in training has missing type "None": LightGBM then reads NaN as zero.
    if structure["missing_type"] == "None":
        return threshold >= 0.0
    return bool(structure["default_left"])


def forest_graph(model: Mapping[str, Any], features: int) -> onnx.ModelProto:
    """Return the ONNX graph of a binary LightGBM model given as its `dump_model()`.

    Parameters
    ----------
    model
        The result of `Booster.dump_model()`; numeric splits only.
    features
        F, the width of the input ``features``.

    Raises
    ------
    RefusedError
        HF402 for a categorical split, which float32 codes cannot express.
    """
    nodes = _Nodes()
    for tree in model["tree_info"]:
        nodes.add_tree(int(tree["tree_index"]), tree["tree_structure"])
    rows = spox.argument(spox.Tensor(np.float32, ("N", features)))
    score = ml.tree_ensemble_regressor(
        rows,
        aggregate_function="SUM",
        n_targets=1,
        nodes_falsenodeids=nodes.when_false,
        nodes_featureids=nodes.feature,
        nodes_missing_value_tracks_true=nodes.missing_is_true,
        nodes_modes=nodes.mode,
        nodes_nodeids=nodes.node,
        nodes_treeids=nodes.tree,
        nodes_truenodeids=nodes.when_true,
        nodes_values=nodes.value,
        post_transform="NONE",
        target_ids=[0] * len(nodes.leaf_node),
        target_nodeids=nodes.leaf_node,
        target_treeids=nodes.leaf_tree,
        target_weights=nodes.leaf_value,
    )
    probability = op.sigmoid(op.reshape(score, op.const(np.array([-1], np.int64))))
    return spox.build({"features": rows}, {"probability": probability})
