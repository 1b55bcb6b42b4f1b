"""Gradient-boosted trees by LightGBM (Ke et al., NeurIPS 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from holdfast.errors import InputError, RefusedError
from holdfast.field_types import checked
from holdfast.train.learner import Labels, Matrix, Weights, check_examples

if TYPE_CHECKING:
    import onnx

_LARGEST: Final = 2**31 - 1
_MOST_LEAVES: Final = 131_072
"""The bounds of LightGBM itself."""


@dataclass(frozen=True, slots=True)
@checked()
class LightGBM:
    """Boosted decision trees; missing values get their own direction at each split.

    Parameters
    ----------
    trees
        Number of boosting rounds, 1 to 2,147,483,647.
    leaves
        Maximum number of leaves of a tree, 2 to 131,072.
    learning_rate
        Share of each tree that is kept, in (0, 1].
    min_rows_per_leaf
        Minimum number of training rows in a leaf, 1 to 2,147,483,647.
    l2
        Ridge penalty on leaf values, at least 0.
    feature_share
        Share of the features that each tree may use, in (0, 1]; the seed chooses which.
    threads
        Cores used to fit, 0 for all of them. The fitted trees do not depend on it. One by default:
        LightGBM's threads wait for each other by spinning, so on cores that also serve, two use 12 times
        the processor time of one.
    """

    trees: int = 200
    leaves: int = 31
    learning_rate: float = 0.05
    min_rows_per_leaf: int = 100
    l2: float = 0.0
    feature_share: float = 1.0
    threads: int = 1

    def __post_init__(self) -> None:
        wrong = [
            f"{name} is {getattr(self, name)}: {rule}"
            for name, right, rule in (
                ("trees", 1 <= self.trees <= _LARGEST, f"1 to {_LARGEST} are possible"),
                ("leaves", 2 <= self.leaves <= _MOST_LEAVES, f"2 to {_MOST_LEAVES} are possible"),
                ("learning_rate", 0.0 < self.learning_rate <= 1.0, "it lies in (0, 1]"),
                (
                    "min_rows_per_leaf",
                    1 <= self.min_rows_per_leaf <= _LARGEST,
                    f"it is 1 to {_LARGEST}",
                ),
                ("l2", 0.0 <= self.l2 < float("inf"), "it is finite and not negative"),
                ("feature_share", 0.0 < self.feature_share <= 1.0, "it lies in (0, 1]"),
                ("threads", 0 <= self.threads <= _LARGEST, f"it is 0 to {_LARGEST}"),
            )
            if not right
        ]
        if wrong:
            raise InputError("HF111", f"LightGBM: {'; '.join(wrong)}")

    @property
    def name(self) -> str:
        """Return ``lightgbm``."""
        return "lightgbm"

    @property
    def parameters(self) -> Mapping[str, object]:
        """Return the declared parameters, without the number of threads, which does not affect the result."""
        return {key: value for key, value in asdict(self).items() if key != "threads"}

    def fit(
        self, x: Matrix, y: Labels, names: Sequence[str], *, seed: int, weights: Weights | None = None
    ) -> onnx.ModelProto:
        """Boost trees on rows `x` with labels `y` and convert them; see `Learner.fit`.

        The conversion predicts as LightGBM does on every training row to 1e-5, or `RefusedError` HF402 is raised.
        """
        # Imported here: a server reads declarations too and does not train.
        import lightgbm

        from holdfast.train.conversion_check import check_conversion
        from holdfast.train.onnx_trees import forest_graph

        check_examples(x, y, names, weights)
        try:
            booster = lightgbm.train(
                self._settings(seed), lightgbm.Dataset(x, label=y, weight=weights), num_boost_round=self.trees
            )
        except lightgbm.basic.LightGBMError as error:
            raise RefusedError("HF402", f"LightGBM failed: {error}", state="nothing was trained") from error
        graph = forest_graph(booster.dump_model(), x.shape[1])
        check_conversion(
            graph, np.asarray(booster.predict(x, num_threads=self.threads), dtype=np.float64), x, "LightGBM"
        )
        return graph

    def _settings(self, seed: int) -> dict[str, Any]:
        return {
            "objective": "binary",
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_rows_per_leaf,
            "lambda_l2": self.l2,
            "feature_fraction": self.feature_share,
            "num_threads": self.threads,
            "seed": seed,
            # One histogram layout and a fixed order of sums: the same rows and seed give the same trees.
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
