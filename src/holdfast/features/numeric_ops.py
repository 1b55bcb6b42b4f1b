"""The numeric part of the graph: a few vector operations for all features together.

Numbers form a matrix of one row per column and one column per data row. So stacking is a plain concatenation, and an
operation on several features is one node. The number of nodes (about half a microsecond each) determines the time of
a one-row prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import spox.opset.ai.onnx.v17 as op
from spox import Var

from holdfast.features.fitted import (
    FittedBucket,
    FittedClip,
    FittedDifference,
    FittedLog,
    FittedNumber,
    FittedRatio,
    MissingFlag,
    OfNumber,
)

NumberFeature: TypeAlias = (
    FittedNumber | FittedLog | FittedClip | FittedBucket | FittedRatio | FittedDifference
)

_MAX_F32: Final = float(np.finfo(np.float32).max)


def constant(values: npt.ArrayLike, dtype: npt.DTypeLike) -> Var:
    """Return a constant tensor of the graph."""
    return op.const(np.asarray(values, dtype))


class NumberMatrix:
    """Number and boolean inputs, stacked once, with the features made from them.

    Parameters
    ----------
    inputs
        Name to a float64 tensor of shape (N,), NaN where missing.
    """

    def __init__(self, inputs: Mapping[str, Var]) -> None:
        self._row = {name: row for row, name in enumerate(inputs)}
        self._stacked = op.reshape(
            op.concat(list(inputs.values()), axis=0), constant([len(inputs), -1], np.int64)
        )

    def flags(self, features: Sequence[MissingFlag]) -> Var:
        """Return 1 where the column of each feature is missing; float32 of shape (features, N)."""
        return op.cast(op.isnan(self._take([feature.column for feature in features])), to=np.float32)

    def matrix(self, features: Sequence[NumberFeature]) -> tuple[list[NumberFeature], Var]:
        """Return the features in the graph's order, and their values as float32 of shape (features, N).

        Values beyond the range of float32 are clipped, so that no feature is infinite.
        """
        plain = [f for f in features if isinstance(f, FittedNumber)]
        logs = [f for f in features if isinstance(f, FittedLog)]
        clips = [f for f in features if isinstance(f, FittedClip)]
        buckets = [f for f in features if isinstance(f, FittedBucket)]
        ratios = [f for f in features if isinstance(f, FittedRatio)]
        differences = [f for f in features if isinstance(f, FittedDifference)]
        one_column: list[OfNumber] = [*plain, *logs, *clips, *buckets]
        singles = [(f.column, f.fill) for f in one_column]
        pairs = [(f.numerator, f.numerator_fill) for f in ratios] + [
            (f.denominator, f.denominator_fill) for f in ratios
        ]
        pairs += [(f.left, f.left_fill) for f in differences] + [(f.right, f.right_fill) for f in differences]
        sizes = [len(plain), len(logs), len(clips), len(buckets), *2 * [len(ratios)], *2 * [len(differences)]]
        parts = iter(self._split(self._filled([*singles, *pairs]), [size for size in sizes if size]))
        made: list[Var] = []
        if plain:
            made.append(next(parts))
        if logs:
            made.append(op.log(op.max([next(parts), _column([f.floor for f in logs])])))
        if clips:
            made.append(_clip(next(parts), clips))
        if buckets:
            made.append(_bucket(next(parts), buckets))
        if ratios:
            made.append(_ratio(next(parts), next(parts), ratios))
        if differences:
            made.append(op.sub(next(parts), next(parts)))
        clipped = op.clip(stack(made), constant(-_MAX_F32, np.float64), constant(_MAX_F32, np.float64))
        return [*plain, *logs, *clips, *buckets, *ratios, *differences], op.cast(clipped, to=np.float32)

    def _take(self, columns: Sequence[str]) -> Var:
        rows = [self._row[column] for column in columns]
        if rows == list(range(len(self._row))):
            return self._stacked
        return op.gather(self._stacked, constant(rows, np.int64), axis=0)

    def _filled(self, wanted: Sequence[tuple[str, float | None]]) -> Var:
        values = self._take([column for column, _ in wanted])
        if all(fill is None for _, fill in wanted):
            return values
        return op.where(
            op.isnan(values), _column([np.nan if fill is None else fill for _, fill in wanted]), values
        )

    def _split(self, matrix: Var, sizes: Sequence[int]) -> Sequence[Var]:
        if len(sizes) == 1:
            return [matrix]
        return op.split(matrix, constant(sizes, np.int64), outputs_count=len(sizes), axis=0)


def stack(parts: Sequence[Var]) -> Var:
    """Stack matrices of shape (_, N) vertically."""
    return parts[0] if len(parts) == 1 else op.concat(parts, axis=0)


def _column(values: Sequence[float]) -> Var:
    return constant(np.array(values)[:, None], np.float64)


def _clip(values: Var, clips: Sequence[FittedClip]) -> Var:
    if any(f.low is not None for f in clips):
        values = op.max([values, _column([-np.inf if f.low is None else f.low for f in clips])])
    if any(f.high is not None for f in clips):
        values = op.min([values, _column([np.inf if f.high is None else f.high for f in clips])])
    return values


def _bucket(values: Var, buckets: Sequence[FittedBucket]) -> Var:
    edges = np.full(
        (len(buckets), 1, max(len(f.edges) for f in buckets)), np.nan
    )  # no number is at or above NaN
    for row, feature in enumerate(buckets):
        edges[row, 0, : len(feature.edges)] = feature.edges
    above = op.greater_or_equal(op.unsqueeze(values, constant([2], np.int64)), constant(edges, np.float64))
    count = op.reduce_sum(op.cast(above, to=np.float64), constant([2], np.int64), keepdims=0)
    if all(f.fill is not None for f in buckets):
        return count
    return op.where(op.isnan(values), values, count)


def _ratio(above: Var, below: Var, ratios: Sequence[FittedRatio]) -> Var:
    by_zero = op.equal(below, constant(0.0, np.float64))
    return op.where(by_zero, _column([f.by_zero for f in ratios]), op.div(above, below))
