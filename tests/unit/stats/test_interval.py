"""Intervals: known values, limits, refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InputError
from holdfast.stats import mean_interval, wilson


def test_wilson_against_newcombe() -> None:
    """R. G. Newcombe, Stat. Med. 17 (1998) 857-872, table I: score method without continuity correction."""
    for successes, trials, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
    ):
        found = wilson(successes, trials)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.integers(0, 10_000), st.data())
def test_wilson_holds_its_estimate(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    found = wilson(successes, trials)
    assert 0.0 <= found.low <= found.estimate <= found.high <= 1.0


def test_nothing_known_is_everything_possible() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="not 3 of 2"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="a confidence is between 0 and 1, not 95"):
        wilson(1, 2, confidence=95)
    with pytest.raises(InputError, match="HF401"):
        mean_interval([1.0])
