"""A prediction without learning: the share of positive labels in the row's group.

It is a version like any other, so the gates compare with what would really serve, and a server can fall back on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

from holdfast.errors import InputError
from holdfast.field_types import checked
from holdfast.train.learner import Labels, Matrix, Weights, check_examples

if TYPE_CHECKING:
    import onnx

LARGEST_TABLE: Final = 1_000_000
"""The maximum number of groups of a lookup table."""


class NamedFeature(Protocol):
    """A declared feature, of which only the name matters here."""

    @property
    def name(self) -> str:
        """Return the feature's own name; empty if it is derived from its columns."""
        ...


@dataclass(frozen=True, slots=True)
@checked()
class GroupMean:
    """The share of positive labels in the row's group.

    Parameters
    ----------
    by
        The features whose values together make the group, at least one: ``Ordinal("carrier")``,
        ``Hour("departure")``. They are fitted for the heuristic alone, so it does not depend on the model's
        features.
    smoothing
        The number of rows of the overall share that each group is mixed with, at least 0. It steadies small
        groups; 0 takes the group's plain share.

    A group that was not seen in training, or whose features are missing (NaN), gets the overall share.
    """

    by: tuple[NamedFeature, ...]
    smoothing: float = 20.0

    def __post_init__(self) -> None:
        if not self.by or any(self.by.count(feature) > 1 for feature in self.by):
            raise InputError("HF111", f"GroupMean: by is {self.by}; give at least one feature, each once")
        if not 0.0 <= self.smoothing < float("inf"):
            raise InputError(
                "HF111", f"GroupMean: smoothing is {self.smoothing}; it is finite and not negative"
            )

    @property
    def name(self) -> str:
        """Return ``group_mean``."""
        return "group_mean"

    @property
    def parameters(self) -> Mapping[str, object]:
        """Return the declared smoothing. The version's metadata names the features of the groups."""
        return {"smoothing": self.smoothing}

    def fit(
        self, x: Matrix, y: Labels, names: Sequence[str], *, seed: int, weights: Weights | None = None
    ) -> onnx.ModelProto:
        """Count the groups of rows `x` by all their features, and write the table as ONNX; see `Learner.fit`.

        The seed has no effect. Raises `InputError` HF111 if the table would be larger than `LARGEST_TABLE`.
        """
        # Imported here: a server reads declarations too and does not train.
        from holdfast.train.conversion_check import check_conversion

        del seed
        check_examples(x, y, names, weights)
        values = [_present_values(x[:, column]) for column in range(x.shape[1])]
        table_size = math.prod(len(known) + 1 for known in values)
        if table_size > LARGEST_TABLE:
            raise InputError(
                "HF111",
                f"GroupMean: {' x '.join(names)} makes {table_size} groups, more than {LARGEST_TABLE}; bucket them",
            )
        slots = _table_indices(x, values)
        seen = ~np.isnan(x).any(axis=1)
        each = np.ones(len(y)) if weights is None else weights
        overall = float(np.average(y, weights=weights))
        rows = np.bincount(slots[seen], weights=each[seen], minlength=table_size)
        positives = np.bincount(slots[seen], weights=(each * y)[seen], minlength=table_size)
        share = np.full(table_size, overall)
        np.divide(positives + self.smoothing * overall, rows + self.smoothing, out=share, where=rows > 0)
        graph = _lookup_graph(values, share.astype(np.float32))
        check_conversion(graph, share[slots], x, "GroupMean")
        return graph


def _present_values(column: Matrix) -> Matrix:
    return np.unique(column[~np.isnan(column)])


def _table_indices(x: Matrix, values: Sequence[Matrix]) -> npt.NDArray[np.int64]:
    """Return the index into the table of each row; the last position of each feature is for unseen and missing values."""
    slots = np.zeros(len(x), dtype=np.int64)
    for column, known in enumerate(values):
        position = np.minimum(np.searchsorted(known, x[:, column]), len(known) - 1)
        position = np.where(known[position] == x[:, column], position, len(known))
        slots = slots * (len(known) + 1) + position
    return slots


def _lookup_graph(values: Sequence[Matrix], share: Matrix) -> onnx.ModelProto:
    import spox
    import spox.opset.ai.onnx.v17 as op

    rows = spox.argument(spox.Tensor(np.float32, ("N", len(values))))
    slots = None
    for column, known in enumerate(values):
        cell = op.gather(rows, op.const(np.array([column], np.int64)), axis=1)
        same = op.cast(op.equal(cell, op.const(known[np.newaxis, :])), to=np.int64)
        # A row matches one known value or none: the sum of `index - count` over matches moves it from "none"
        # to its place.
        moves = op.const((np.arange(len(known)) - len(known)).astype(np.int64))
        position = op.add(
            op.reduce_sum(op.mul(same, moves), op.const(np.array([1], np.int64)), keepdims=0),
            op.const(np.int64(len(known))),
        )
        slots = (
            position if slots is None else op.add(op.mul(slots, op.const(np.int64(len(known) + 1))), position)
        )
    assert slots is not None
    return spox.build({"features": rows}, {"probability": op.gather(op.const(share), slots)})
