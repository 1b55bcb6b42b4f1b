"""Whole numbers that float32 merges are refused at training, whatever feature carries them."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.contract import Constant
from holdfast.errors import InputError
from holdfast.features import Bucket, Clip, Difference, Feature, Impute, Log, Passthrough
from holdfast.features.precision import refuse_merged

BASE = 20_000_000.0
FEATURES = [Passthrough("n"), Impute("n", missing=Constant(0.0)), Clip("n", low=0.0), Difference("n", "zero")]


def _check(feature: Feature, values: list[float]) -> None:
    refuse_merged([feature], {"n": np.array(values), "zero": np.zeros(len(values))})


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize(
    "values", [[BASE, BASE + 1], [-BASE, np.nan, -BASE - 1, 3.0], [2.0**53 - 1, 2.0**53]]
)
def test_whole_numbers_that_would_be_merged_are_refused(feature: Feature, values: list[float]) -> None:
    if isinstance(feature, Clip):
        values = [abs(value) for value in values]
    with pytest.raises(InputError, match=r"HF105.*whole numbers that a model merges, such as"):
        _check(feature, values)


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize(
    "values",
    [[200.0, 201.0], [2.0**24, 2.0**24 - 1], [BASE, BASE + 2], [BASE, BASE], [BASE, BASE + 0.25], []],
)
def test_numbers_that_stay_apart_or_are_measured_are_not(feature: Feature, values: list[float]) -> None:
    _check(feature, values)


@pytest.mark.parametrize("feature", [Bucket("n", edges=(BASE, BASE + 1)), Log("n"), Clip("n", high=100.0)])
def test_features_that_compute_before_they_are_rounded_are_not(feature: Feature) -> None:
    _check(feature, [BASE, BASE + 1])
