"""Check that the converted graph predicts as the fitted original does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from holdfast.errors import RefusedError
from holdfast.train.learner import Matrix

TOLERANCE: Final = 1e-5
"""The largest difference of a probability that float32 arithmetic explains; a wrong branch of a tree is far larger."""

_CHUNK_ROWS: Final = 65_536


def predict(graph: onnx.ModelProto, x: Matrix) -> npt.NDArray[np.float32]:
    """Return the probabilities, shape (N,), of the estimator `graph` for feature rows `x`."""
    return run_rows(graph, {"features": x}, "probability")


def run_rows(
    graph: onnx.ModelProto, feed: Mapping[str, npt.NDArray[Any]], output: str
) -> npt.NDArray[np.float32]:
    """Return the float32 output `output` of `graph` for the rows of `feed`, in chunks of bounded memory.

    Its threads do not spin while they wait, because training shares the machine with servers.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    data = graph.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    rows = len(next(iter(feed.values())))
    chunks = [
        session.run([output], {name: column[low : low + _CHUNK_ROWS] for name, column in feed.items()})[0]
        for low in range(0, rows, _CHUNK_ROWS)
    ]
    return np.concatenate(chunks).astype(np.float32, copy=False)


def check_conversion(
    graph: onnx.ModelProto, native: npt.NDArray[np.float64], x: Matrix, learner: str
) -> None:
    """Refuse a conversion that differs from the fitted original by more than `TOLERANCE` on any of the rows `x`.

    Parameters
    ----------
    graph
        The converted estimator.
    native
        The original's probabilities, shape (N,).
    x
        The feature rows, shape (N, F).
    learner
        The learner's name, for the error.

    Raises `RefusedError` HF402 with the largest difference, or if the graph does not give one probability per row.
    """
    try:
        converted = predict(graph, x)
    except Exception as error:  # ONNX Runtime's own exceptions share no narrower base class
        raise RefusedError(
            "HF402", f"{learner}: the converted model does not run: {error}", state="nothing was kept"
        ) from error
    if converted.shape != native.shape:
        raise _conversion_error(
            learner, f"the converted model gave shape {converted.shape} for {native.shape} rows"
        )
    difference = np.abs(converted - native)
    if not np.isfinite(converted).all() or difference.max() > TOLERANCE:
        worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
        raise _conversion_error(
            learner,
            f"on training row {worst} the converted model predicts {converted[worst]:.6g}, "
            f"the original {native[worst]:.6g}",
        )


def _conversion_error(learner: str, what: str) -> RefusedError:
    return RefusedError("HF402", f"{learner}: {what}", state="nothing was kept")
