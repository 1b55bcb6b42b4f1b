"""Whole numbers that the float32 features of a model would merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from holdfast.errors import InputError
from holdfast.features.declarations import Clip, Difference, Feature, Impute, Passthrough

LARGEST_EXACT: Final = 2.0**24
"""From here on float32 merges neighbouring whole numbers."""


def refuse_merged(features: Sequence[Feature], tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raise `InputError` HF105 if two whole numbers of the training rows would be one value of a feature.

    Only whole numbers are judged: prices in cents, seconds and article numbers differ by meaning in their last digit.
    Fractions are measured, and float32 keeps them to 6e-8 of their size.

    >>> refuse_merged([Passthrough("n")], {"n": np.array([200.0, 201.0, np.nan])})
    """
    for feature in features:
        match feature:
            case Passthrough(column) | Impute(column) | Clip(column):
                values = tensors[column]
            case Difference(left, right):
                values = tensors[left] - tensors[right]
            case _:
                continue
        if isinstance(feature, Clip):
            values = np.clip(values, feature.low, feature.high)
        if pair := find_merged(values):
            raise _error(feature, f"{pair[0]:.0f} and {pair[1]:.0f}")


def find_merged(values: npt.NDArray[Any]) -> tuple[float, float] | None:
    """Return two whole numbers of `values` that are one number in float32; None if there are none.

    >>> find_merged(np.array([20_000_000.0, 20_000_001.0])), find_merged(np.array([20_000_000.0, 20_000_002.5]))
    ((20000000.0, 20000001.0), None)
    """
    large = np.unique(values[np.isfinite(values) & (np.abs(values) > LARGEST_EXACT)])
    if not len(large) or not (large == np.floor(large)).all():
        return None
    found = np.flatnonzero(np.diff(large.astype(np.float32)) == 0)
    return (float(large[found[0]]), float(large[found[0] + 1])) if len(found) else None


def _error(feature: Feature, pair: str) -> InputError:
    names = ", ".join(
        repr(getattr(feature, name)) for name in ("column", "left", "right") if hasattr(feature, name)
    )
    return InputError(
        "HF105",
        f"{type(feature).__name__}({names}) has whole numbers that a model merges, such as {pair}: "
        "it computes in float32, which is exact up to 2**24 (16,777,216)",
        state="nothing was trained",
        next_command="Bucket(...) or a Difference to a near column, or deliver the column in a larger unit",
    )
