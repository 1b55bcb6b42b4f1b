"""A LightGBM booster as an ONNX tree ensemble that takes exactly the same branches.

LightGBM compares in float64 and ONNX in float32. For a float32 feature x and a float64 threshold t, `x <= t`
is the same as `x <= down(t)`, where `down` is the largest float32 not above t. Rounding to the nearest
instead, as converters usually do, sends a row between the two to the other branch whenever t was rounded up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

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


class _Node(NamedTuple):
    """A branch or a leaf of one tree of a forest, as ONNX stores it; `weight` is the value of a leaf."""

    tree: int
    node: int
    mode: str
    feature: int = 0
    threshold: float = 0.0
    when_true: int = 0
    when_false: int = 0
    missing_is_true: int = 0
    weight: float = 0.0


def _walk_tree(tree: int, root: Mapping[str, Any]) -> Iterator[_Node]:
    """Yield the nodes of one tree, numbered from 0 in the order of the walk."""
    waiting = [(0, root)]
    count = 1
    while waiting:
        node, structure = waiting.pop()
        if "leaf_value" in structure:
            yield _Node(tree, node, _LEAF, weight=float(structure["leaf_value"]))
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
        yield _Node(
            tree,
            node,
            _BRANCH,
            int(structure["split_feature"]),
            float32_not_above(threshold),
            left,
            right,
            int(_missing_goes_left(structure, threshold)),
        )
        waiting += [(left, structure["left_child"]), (right, structure["right_child"])]


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
    nodes = [
        node
        for tree in model["tree_info"]
        for node in _walk_tree(int(tree["tree_index"]), tree["tree_structure"])
    ]
    leaves = [node for node in nodes if node.mode == _LEAF]
    rows = spox.argument(spox.Tensor(np.float32, ("N", features)))
    score = ml.tree_ensemble_regressor(
        rows,
        aggregate_function="SUM",
        n_targets=1,
        nodes_falsenodeids=[node.when_false for node in nodes],
        nodes_featureids=[node.feature for node in nodes],
        nodes_missing_value_tracks_true=[node.missing_is_true for node in nodes],
        nodes_modes=[node.mode for node in nodes],
        nodes_nodeids=[node.node for node in nodes],
        nodes_treeids=[node.tree for node in nodes],
        nodes_truenodeids=[node.when_true for node in nodes],
        nodes_values=[node.threshold for node in nodes],
        post_transform="NONE",
        target_ids=[0] * len(leaves),
        target_nodeids=[leaf.node for leaf in leaves],
        target_treeids=[leaf.tree for leaf in leaves],
        target_weights=[leaf.weight for leaf in leaves],
    )
    probability = op.sigmoid(op.reshape(score, op.const(np.array([-1], np.int64))))
    return spox.build({"features": rows}, {"probability": probability})
