"""The part of the graph that reads numbers, a few vector operations for all features together.

Numbers lie as a matrix of one row per column and one column per data row: stacking is a plain concatenation,
an operation on several features is one node, and what a node costs (about half a microsecond) is what a
one-row answer takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import spox.opset.ai.onnx.v17 as op
from spox import Var

from holdfast.features.fitted import Bucketed, Clipped, Flagged, Logarithm, Plain, Quotient, Subtracted

OnNumbers: TypeAlias = Plain | Logarithm | Clipped | Bucketed | Quotient | Subtracted

_MAX_F32: Final = float(np.finfo(np.float32).max)


def constant(values: npt.ArrayLike, dtype: npt.DTypeLike) -> Var:
    """A constant tensor of the graph."""
    return op.const(np.asarray(values, dtype))


class Numbers:
    """Number and boolean inputs, stacked once, with the features made of them.

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

    def flags(self, features: Sequence[Flagged]) -> Var:
        """1 where the column of each feature is missing; float32 of shape (features, N)."""
        return op.cast(op.isnan(self._take([feature.column for feature in features])), to=np.float32)

    def matrix(self, features: Sequence[OnNumbers]) -> tuple[list[OnNumbers], Var]:
        """The features in the order that suits the graph, and their values as float32 of shape (features, N).

        Values beyond the range of float32 are held at its ends, so that no feature is infinite.
        """
        plain = [f for f in features if isinstance(f, Plain)]
        logs = [f for f in features if isinstance(f, Logarithm)]
        clips = [f for f in features if isinstance(f, Clipped)]
        buckets = [f for f in features if isinstance(f, Bucketed)]
        ratios = [f for f in features if isinstance(f, Quotient)]
        differences = [f for f in features if isinstance(f, Subtracted)]
        one_column: list[Plain | Logarithm | Clipped | Bucketed] = [*plain, *logs, *clips, *buckets]
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
        held = op.clip(stack(made), constant(-_MAX_F32, np.float64), constant(_MAX_F32, np.float64))
        return [*plain, *logs, *clips, *buckets, *ratios, *differences], op.cast(held, to=np.float32)

    def _take(self, columns: Sequence[str]) -> Var:
        rows = [self._row[column] for column in columns]
        if rows == list(range(len(self._row))):
            return self._stacked
        return op.gather(self._stacked, constant(rows, np.int64), axis=0)

    def _filled(self, wanted: Sequence[tuple[str, float | None]]) -> Var:
        taken = self._take([column for column, _ in wanted])
        if all(fill is None for _, fill in wanted):
            return taken
        return op.where(
            op.isnan(taken), _column([np.nan if fill is None else fill for _, fill in wanted]), taken
        )

    def _split(self, matrix: Var, sizes: Sequence[int]) -> Sequence[Var]:
        if len(sizes) == 1:
            return [matrix]
        return op.split(matrix, constant(sizes, np.int64), outputs_count=len(sizes), axis=0)


def stack(parts: Sequence[Var]) -> Var:
    """Matrices of shape (_, N), one under the other."""
    return parts[0] if len(parts) == 1 else op.concat(parts, axis=0)


def _column(values: Sequence[float]) -> Var:
    return constant(np.array(values)[:, None], np.float64)


def _clip(values: Var, clips: Sequence[Clipped]) -> Var:
    if any(f.low is not None for f in clips):
        values = op.max([values, _column([-np.inf if f.low is None else f.low for f in clips])])
    if any(f.high is not None for f in clips):
        values = op.min([values, _column([np.inf if f.high is None else f.high for f in clips])])
    return values


def _bucket(values: Var, buckets: Sequence[Bucketed]) -> Var:
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


def _ratio(above: Var, below: Var, ratios: Sequence[Quotient]) -> Var:
    by_zero = op.equal(below, constant(0.0, np.float64))
    return op.where(by_zero, _column([f.by_zero for f in ratios]), op.div(above, below))
