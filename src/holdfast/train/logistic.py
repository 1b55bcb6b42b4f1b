"""Logistic regression on standardised features, by scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from holdfast.errors import InputError, RefusedError, missing_extra
from holdfast.field_types import checked
from holdfast.train.learner import Labels, Matrix, Weights, check_examples

if TYPE_CHECKING:
    import onnx

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
@checked()
class LogisticRegression:
    """A linear model of the log odds, with a ridge penalty.

    Scikit-learn fits it, which the extra ``sklearn`` installs. Each feature is shifted by its mean and divided by its
    standard deviation in the training rows. A missing value (NaN) becomes the feature's mean, which has no effect on the
    prediction; declare a missing flag to give it one.

    Parameters
    ----------
    c
        Inverse of the penalty's strength, greater than 0.
    iterations
        Maximum number of steps of the solver, at least 1; a fit that needs more is refused (HF402).
    """

    c: float = 1.0
    iterations: int = 1000

    def __post_init__(self) -> None:
        if not 0.0 < self.c < float("inf") or self.iterations < 1:
            raise InputError(
                "HF111",
                f"LogisticRegression: c is {self.c}, iterations is {self.iterations}; both must be above 0",
            )

    @property
    def name(self) -> str:
        """Return ``logistic-regression``."""
        return "logistic-regression"

    @property
    def parameters(self) -> Mapping[str, object]:
        """Return the declared parameters."""
        return asdict(self)

    def fit(
        self, x: Matrix, y: Labels, names: Sequence[str], *, seed: int, weights: Weights | None = None
    ) -> onnx.ModelProto:
        """Fit on rows `x` with labels `y` and write the formula as ONNX; see `Learner.fit`.

        Raises `RefusedError` HF402 if the solver did not converge, `InputError` HF112 without the extra `sklearn`.
        """
        # Imported here: a server reads declarations too and does not train.
        try:
            from sklearn import linear_model
            from sklearn.exceptions import ConvergenceWarning
        except ModuleNotFoundError as error:
            raise missing_extra("sklearn", "LogisticRegression", state="nothing was trained") from error

        from holdfast.train.conversion_check import check_conversion

        check_examples(x, y, names, weights)
        wide = x.astype(np.float64)
        mean = np.nanmean(wide, axis=0)
        spread = np.nanstd(wide, axis=0)  # unweighted: weights do not change the scale of a feature
        scale = np.where(spread > 0.0, spread, 1.0)
        standard = (np.where(np.isnan(wide), mean, wide) - mean) / scale
        fitted = linear_model.LogisticRegression(C=self.c, max_iter=self.iterations, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                fitted.fit(standard, y, sample_weight=weights)
            except (ConvergenceWarning, ValueError) as error:
                raise RefusedError(
                    "HF402", f"logistic regression failed: {error}", state="nothing was trained"
                ) from error
        graph = _formula_graph(mean, scale, fitted.coef_[0], float(fitted.intercept_[0]))
        check_conversion(graph, fitted.predict_proba(standard)[:, 1], x, "LogisticRegression")
        return graph


def _formula_graph(mean: Vector, scale: Vector, weights: Vector, intercept: float) -> onnx.ModelProto:
    import spox
    import spox.opset.ai.onnx.v17 as op

    rows = spox.argument(spox.Tensor(np.float32, ("N", len(mean))))
    # In float64: subtracting a large mean in float32 would lose what distinguishes the rows.
    wide = op.cast(rows, to=np.float64)
    present = op.where(op.isnan(wide), op.const(mean), wide)
    standard = op.div(op.sub(present, op.const(mean)), op.const(scale))
    odds = op.add(op.matmul(standard, op.const(weights)), op.const(np.float64(intercept)))
    return spox.build({"features": rows}, {"probability": op.cast(op.sigmoid(odds), to=np.float32)})
