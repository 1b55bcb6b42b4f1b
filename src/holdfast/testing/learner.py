"""The laws of a learner: what training, the gates and a server rely on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from holdfast.stats.auc import auc
from holdfast.testing.law import Law, require, require_refusal
from holdfast.train.learner import Labels, Learner, Matrix, Weights

if TYPE_CHECKING:
    import onnx

_ROWS: Final = 600
_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})


def learner_laws(learner: Learner, *, seed: int = 0) -> list[Law]:
    """Return the laws of a learner, each bound to `learner`.

    The laws train on 600 rows with two features, which take eight and two values, and check the graph that comes back:
    its signature, its probabilities, missing and extreme values, reproducibility, weights, and what must be refused.

    Parameters
    ----------
    learner
        The learner, with its parameters. It is fitted about a dozen times.
    seed
        Seed of the rows, and of every fit.
    """
    laws: dict[str, Callable[[Learner, int], None]] = {
        "describes itself": _describes_itself,
        "the same seed gives the same graph": _is_reproducible,
        "the graph has the declared signature": _has_the_signature,
        "the graph needs no other operators": _is_self_contained,
        "outputs are probabilities": _gives_probabilities,
        "a row alone is the row in a batch": _is_rowwise,
        "learns what the rows show": _learns,
        "weights count": _counts_weights,
        "leaves its arguments alone": _leaves_arguments,
        "refuses rows that cannot train": _refuses_rows,
        "refuses weights that cannot train": _refuses_weights,
    }
    return [Law(learner.name, name, partial(check, learner, seed)) for name, check in laws.items()]


def _rows(seed: int, rows: int = _ROWS) -> tuple[Matrix, Labels, Sequence[str]]:
    """Labels depend on the first feature alone; every twentieth value of the second is missing."""
    draw = np.random.default_rng(seed)
    first, second = draw.integers(0, 8, rows), draw.integers(0, 2, rows).astype(np.float64)
    second[::20] = np.nan
    y = (draw.random(rows) < np.where(first >= 4, 0.9, 0.1)).astype(np.float64)
    return np.column_stack([first, second]).astype(np.float32), y, ("first", "second")


def _fit(learner: Learner, seed: int, weights: Weights | None = None) -> onnx.ModelProto:
    x, y, names = _rows(seed)
    return learner.fit(x, y, names, seed=seed, weights=weights)


def _probabilities(graph: onnx.ModelProto, x: Matrix) -> Matrix:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["probability"], {"features": x})
    return np.asarray(found)


def _describes_itself(learner: Learner, _seed: int) -> None:
    require(learner.name.strip(), f"its name is {learner.name!r}")
    try:
        written = json.dumps(dict(learner.parameters), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"its parameters are not JSON values: {error}") from error
    again = json.dumps(dict(learner.parameters), sort_keys=True, allow_nan=False)
    require(written == again, f"its parameters are {written}, and then {again}")


def _is_reproducible(learner: Learner, seed: int) -> None:
    first, second = (_fit(learner, seed).SerializeToString(deterministic=True) for _ in range(2))
    require(first == second, "two fits with the same rows and the same seed gave different graphs")


def _has_the_signature(learner: Learner, seed: int) -> None:
    import onnx

    graph = _fit(learner, seed).graph
    for found, name, rank in ((graph.input, "features", 2), (graph.output, "probability", 1)):
        require(
            [each.name for each in found] == [name], f"it has {[each.name for each in found]}, not [{name!r}]"
        )
        tensor = found[0].type.tensor_type
        require(tensor.elem_type == onnx.TensorProto.FLOAT, f"{name} is not float32")
        require(len(tensor.shape.dim) == rank, f"{name} has rank {len(tensor.shape.dim)}, not {rank}")


def _is_self_contained(learner: Learner, seed: int) -> None:
    import onnx

    graph = _fit(learner, seed)
    onnx.checker.check_model(graph)
    domains = {node.domain for node in graph.graph.node} - _DOMAINS
    require(not domains, f"it uses operators of {sorted(domains)}")
    external = [each.name for each in graph.graph.initializer if each.external_data]
    require(not external, f"it keeps {external} outside the graph")


def _gives_probabilities(learner: Learner, seed: int) -> None:
    values = np.array([np.nan, 0.0, 1.0, 7.0, -1.0, 3.5, 1e30, -1e30], np.float32)
    x = np.array([(one, two) for one in values for two in values], np.float32)
    found = _probabilities(_fit(learner, seed), x)
    require(found.shape == (len(x),), f"{len(x)} rows gave an array of shape {found.shape}")
    require(found.dtype == np.float32, f"the outputs are {found.dtype}, not float32")
    wrong = ~((found >= 0.0) & (found <= 1.0))
    require(
        not wrong.any(), f"{x[wrong][:1].tolist()} gave {found[wrong][:1].tolist()}, which is no probability"
    )


def _is_rowwise(learner: Learner, seed: int) -> None:
    x, _, _ = _rows(seed)
    graph = _fit(learner, seed)
    batch = _probabilities(graph, x[:40])
    alone = np.concatenate([_probabilities(graph, x[at : at + 1]) for at in range(40)])
    apart = float(np.abs(batch - alone).max())
    require(apart <= 1e-6, f"a row differs by {apart:.2g} between a batch and alone")


def _learns(learner: Learner, seed: int) -> None:
    x, y, _ = _rows(seed + 1)
    reached = auc(_probabilities(_fit(learner, seed), x), y)
    require(reached >= 0.75, f"the AUC on new rows is {reached:.3f}; the rows allow 0.9")


def _counts_weights(learner: Learner, seed: int) -> None:
    x, y, _ = _rows(seed)
    alike = _probabilities(_fit(learner, seed), x)
    ones = _probabilities(_fit(learner, seed, np.ones(len(y))), x)
    require(np.allclose(alike, ones, atol=1e-3), "weights of 1 gave another model than no weights")
    weights = np.where(y == 1.0, 8.0, 1.0)
    heavier = _probabilities(_fit(learner, seed, weights / weights.mean()), x)
    require(
        float(heavier.mean()) > float(alike.mean()) + 0.05,
        f"positives that count eight times leave the mean probability at {heavier.mean():.3f}",
    )


def _leaves_arguments(learner: Learner, seed: int) -> None:
    x, y, names = _rows(seed)
    weights = np.ones(len(y))
    before = (x.tobytes(), y.tobytes(), weights.tobytes())
    learner.fit(x, y, names, seed=seed, weights=weights)
    require(before == (x.tobytes(), y.tobytes(), weights.tobytes()), "it wrote into its arguments")


def _refuses_rows(learner: Learner, seed: int) -> None:
    x, y, names = _rows(seed)
    infinite, empty = x.copy(), x.copy()
    infinite[3, 1], empty[:, 1] = np.inf, np.nan
    cases = {
        "ten rows": (x[:10], y[:10], names),
        "labels of one class": (x, np.zeros_like(y), names),
        "a label of 2": (x, np.where(np.arange(len(y)) == 5, 2.0, y), names),
        "an infinite feature": (infinite, y, names),
        "a feature without a value": (empty, y, names),
        "a name too many": (x, y, (*names, "third")),
    }
    for what, (rows, labels, named) in cases.items():
        require_refusal(what, partial(learner.fit, rows, labels, named, seed=seed), "HF401")


def _refuses_weights(learner: Learner, seed: int) -> None:
    x, y, names = _rows(seed)
    cases = {
        "a negative weight": np.where(np.arange(len(y)) == 5, -1.0, 1.0),
        "a weight that is not a number": np.where(np.arange(len(y)) == 5, np.nan, 1.0),
        "a weight too few": np.ones(len(y) - 1),
        "a class without weight": np.where(y == 1.0, 0.0, 1.0),
    }
    for what, weights in cases.items():
        require_refusal(what, partial(learner.fit, x, y, names, seed=seed, weights=weights), "HF401")
