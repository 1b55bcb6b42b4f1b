"""The learner protocol, and the checks of training examples that every learner does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

from holdfast.errors import InputError
from holdfast.formatting import counted

if TYPE_CHECKING:
    import onnx

Matrix = npt.NDArray[np.float32]
Labels = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float64]

MINIMUM_ROWS: Final = 50
"""The minimum number of examples; a gate could not confirm anything with fewer."""


class Learner(Protocol):
    """Turns labelled feature rows into an estimator that is an ONNX graph and nothing else.

    The graph's input is ``features``, float32 of shape (N, F) in the order of `names`; its output is ``probability``,
    float32 of shape (N,), each in [0, 1]. NaN in a feature means missing, and the graph must predict for it.
    """

    @property
    def name(self) -> str:
        """Return the learner's name in the ledger and in the version's metadata."""
        ...

    @property
    def parameters(self) -> Mapping[str, object]:
        """Return everything besides data and seed that affects the result, as JSON values."""
        ...

    def fit(
        self, x: Matrix, y: Labels, names: Sequence[str], *, seed: int, weights: Weights | None = None
    ) -> onnx.ModelProto:
        """Train on rows `x` with labels `y` (0 or 1); the same arguments give the same graph.

        Parameters
        ----------
        x
            Feature rows, shape (N, F), NaN for a missing value.
        y
            Labels, shape (N,).
        names
            The names of the F features.
        seed
            The seed of everything random.
        weights
            Weights of the rows, shape (N,), not negative, with mean 1; None weighs all equally.

        Raises
        ------
        InputError
            HF401 if the examples are unusable.
        RefusedError
            HF402 if the fit failed, or its conversion predicts differently.
        """
        ...


def check_examples(x: Matrix, y: Labels, names: Sequence[str], weights: Weights | None) -> None:
    """Check training examples, and name what is wrong with them.

    Parameters are those of `Learner.fit`.

    Raises `InputError` HF401 for fewer than `MINIMUM_ROWS` rows, a label that is not 0 or 1, labels of one
    class only, an infinite feature, a feature without any value; and for weights that are not one finite, non-negative
    number per row, or that are 0 for all rows of a label.

    >>> import numpy as np
    >>> check_examples(np.zeros((50, 1), np.float32), np.zeros(50), ["distance"], None)
    Traceback (most recent call last):
    ...
    holdfast.errors.InputError: HF401: all 50 labels are 0: one class is not enough; nothing was trained
    """
    if x.ndim != 2 or x.shape != (len(y), len(names)):
        raise _training_error(
            f"{x.shape} feature rows do not fit {len(y)} labels and {len(names)} feature names"
        )
    if len(y) < MINIMUM_ROWS:
        raise _training_error(f"{len(y)} labelled rows are fewer than {MINIMUM_ROWS}")
    if not np.isin(y, (0.0, 1.0)).all():
        wrong = int((~np.isin(y, (0.0, 1.0))).sum())
        raise _training_error(f"{counted(wrong, 'label', 'is', 'are')} neither 0 nor 1")
    if np.all(y == y[0]):
        raise _training_error(f"all {len(y)} labels are {int(y[0])}: one class is not enough")
    for index, name in enumerate(names):
        if np.isinf(x[:, index]).any():
            raise _training_error(
                f"the feature {name!r} is infinite in {counted(int(np.isinf(x[:, index]).sum()), 'row')}"
            )
        if np.isnan(x[:, index]).all():
            raise _training_error(f"the feature {name!r} has no value in any of {len(y)} rows")
    if weights is None:
        return
    if weights.shape != y.shape or not np.isfinite(weights).all() or (weights < 0.0).any():
        raise _training_error(
            f"{weights.shape} weights for {len(y)} rows: one per row is needed, finite and not negative"
        )
    if any(float(weights[y == label].sum()) == 0.0 for label in (0.0, 1.0)):
        raise _training_error("all rows of one label have weight 0: one class is not enough")


def _training_error(what: str) -> InputError:
    return InputError("HF401", what, state="nothing was trained")
