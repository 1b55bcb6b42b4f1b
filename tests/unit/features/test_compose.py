"""One file from the columns of a row to a probability, with estimators of three makers behind the same graph
(R45, R49)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import polars as pl
import pytest
import spox.opset.ai.onnx.v17 as op
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType as FloatTensorTypeOfSkl
from sklearn.linear_model import LogisticRegression
from spox import Tensor, Var, argument, build, inline

from holdfast.contract import Category, Contract, Label, Number, Text, Timestamp
from holdfast.errors import InputError
from holdfast.features import FittedFeatures, Hour, Impute, Log, Ordinal, Passthrough, tensors_from_frame
from holdfast.features.fitting import fit
from holdfast.features.graph import compose, feature_graph

CONTRACT = Contract(
    Text("id"),
    Category("carrier"),
    Number("distance", unit="mi", missing="median"),
    Number("wind", unit="mph", missing="keep"),
    Timestamp("leaves", tz="America/New_York"),
    key="id",
    event_time="leaves",
    label=Label("late", "12h"),
)


def rows(count: int = 400) -> pl.DataFrame:
    noise = np.random.default_rng(5)
    return pl.DataFrame(
        {
            "carrier": [["UA", "AA", "B6"][n] for n in noise.integers(0, 3, count)],
            "distance": [None if n < 100 else float(n) for n in noise.integers(0, 3000, count)],
            "wind": noise.normal(10, 5, count),
            "leaves": [datetime(2013, 1, 1 + n % 28, n % 24, tzinfo=UTC) for n in range(count)],
        }
    ).with_columns(pl.col("leaves").cast(pl.Datetime("us", "America/New_York")))


FRAME = rows()
FITTED = fit(
    [Ordinal("carrier"), Impute("distance"), Log("distance"), Passthrough("wind"), Hour("leaves")],
    [],
    CONTRACT,
    FRAME,
)
TENSORS = tensors_from_frame(FITTED.inputs, FRAME)


def run(model: onnx.ModelProto) -> npt.NDArray[Any]:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (made,) = session.run(None, TENSORS)
    return np.asarray(made)


X = run(feature_graph(FITTED))
Y = (X[:, 3] + X[:, 4] / 4 > 13).astype(int)


def estimator(response: Any, columns: int = X.shape[1], **names: str) -> onnx.ModelProto:
    features = argument(Tensor(np.float32, ("N", columns)))
    return build(
        {names.get("input", "features"): features}, {names.get("output", "probability"): response(features)}
    )


WEIGHTS = np.linspace(-0.001, 0.001, X.shape[1], dtype=np.float32)


def logistic(features: Var) -> Var:
    return op.sigmoid(op.matmul(features, op.const(WEIGHTS)))


def logistic_of_a_matrix(features: Var) -> Var:
    return op.sigmoid(op.squeeze(op.matmul(features, op.const(WEIGHTS[:, None])), op.const(np.array([1]))))


def logistic_of_gemm(features: Var) -> Var:
    product = op.gemm(features, op.const(WEIGHTS[None, :]), op.const(np.zeros(1, np.float32)), transB=1)
    return op.sigmoid(op.squeeze(product, op.const(np.array([1]))))


def second_column(model: onnx.ModelProto) -> Any:
    return lambda features: op.gather(
        inline(model)(features=features)["probabilities"], op.const(np.int64(1)), axis=1
    )


LEVELS = onnxruntime.GraphOptimizationLevel


@pytest.mark.parametrize("level", [LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_EXTENDED, LEVELS.ORT_ENABLE_ALL])
@pytest.mark.parametrize("estimate", [logistic, logistic_of_a_matrix, logistic_of_gemm])
def test_a_composed_model_is_its_estimator_on_the_features(estimate: Any, level: Any) -> None:
    """At every level of optimisation: fusing a Transpose with the product behind it once gave other
    answers."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    model = compose(FITTED, estimator(estimate))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (made,) = session.run(None, TENSORS)
    np.testing.assert_allclose(made, 1 / (1 + np.exp(-(X @ WEIGHTS))), rtol=1e-4)
    assert made.dtype == np.float32
    assert made.shape == (FRAME.height,)


def test_lightgbm_behind_the_graph_predicts_like_lightgbm() -> None:
    booster = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(X, Y), 40
    )
    converted = convert_lightgbm(
        booster,
        initial_types=[("features", FloatTensorType([None, X.shape[1]]))],
        zipmap=False,
        target_opset=15,
    )
    made = run(compose(FITTED, estimator(second_column(converted))))
    np.testing.assert_allclose(made, booster.predict(X), atol=1e-6)


@pytest.mark.parametrize("opset", [None, 15, 18])
def test_scikit_learn_behind_the_graph_predicts_like_scikit_learn(opset: int | None) -> None:
    learned = LogisticRegression(max_iter=2000).fit(X, Y)
    converted = convert_sklearn(
        learned,
        initial_types=[("features", FloatTensorTypeOfSkl([None, X.shape[1]]))],
        options={"zipmap": False},
        target_opset=opset,
    )
    made = run(compose(FITTED, estimator(second_column(converted))))
    # The converted model adds in float32, each processor in an order of its own: n roundings of the sum's magnitude.
    magnitude = np.abs(X) @ np.abs(learned.coef_[0]) + np.abs(learned.intercept_[0])
    allowed = 0.25 * (X.shape[1] + 1) * np.finfo(np.float32).eps * magnitude + 1e-6
    assert (np.abs(made - learned.predict_proba(X)[:, 1]) <= allowed).all()


def test_the_same_parts_give_the_same_bytes() -> None:
    again = FittedFeatures.from_json(FITTED.to_json())
    first, second = compose(FITTED, estimator(logistic)), compose(again, estimator(logistic))
    assert first.SerializeToString() == second.SerializeToString()
    assert [part.name for part in first.graph.input] == [part.name for part in FITTED.inputs]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: estimator(logistic, input="x"),
        lambda: estimator(logistic, output="score"),
        lambda: estimator(lambda features: op.reduce_mean(features, axes=[1], keepdims=0), columns=3),
        lambda: estimator(lambda features: op.reduce_mean(features, axes=[1], keepdims=1)),
    ],
)
def test_an_estimator_that_does_not_fit_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="HF402"):
        compose(FITTED, wrong())
