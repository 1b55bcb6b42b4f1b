"""R112: the split is sticky, grows without moving anybody back, and is what was requested."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.records import Arm
from holdfast.rollout.model.assignment import arm_of, salt_of

SHARE = st.integers(0, 1_000_000)


@given(st.binary(max_size=64), st.binary(max_size=16), SHARE, SHARE)
def test_a_unit_that_is_in_stays_in_when_the_share_grows(
    unit: bytes, salt: bytes, one: int, other: int
) -> None:
    small, large = sorted((one, other))
    assert arm_of(unit, salt, small) is arm_of(unit, salt, small)
    if arm_of(unit, salt, small) is Arm.CHALLENGER:
        assert arm_of(unit, salt, large) is Arm.CHALLENGER
    assert arm_of(unit, salt, 0) is Arm.CHAMPION
    assert arm_of(unit, salt, 1_000_000) is Arm.CHALLENGER


@pytest.mark.parametrize("share_ppm", [10_000, 50_000, 250_000, 500_000])
def test_the_realised_share_is_the_one_requested(share_ppm: int) -> None:
    """Within 4.5 standard deviations of a binomial of 40,000 units."""
    salt = salt_of("flight-delay", 3)
    units = 40_000
    found = sum(arm_of(str(unit).encode(), salt, share_ppm) is Arm.CHALLENGER for unit in range(units))
    share = share_ppm / 1e6
    assert abs(found - share * units) <= 4.5 * math.sqrt(units * share * (1 - share))


def test_each_rollout_draws_anew() -> None:
    """Units that had the challenger in one rollout have it in the next about as often as all others."""
    first, second = salt_of("m", 1), salt_of("m", 2)
    units = [str(unit).encode() for unit in range(20_000)]
    chosen = [unit for unit in units if arm_of(unit, first, 200_000) is Arm.CHALLENGER]
    again = sum(arm_of(unit, second, 200_000) is Arm.CHALLENGER for unit in chosen)
    assert abs(again / len(chosen) - 0.2) < 0.03


def test_the_assignment_never_changes_between_releases() -> None:
    """Golden: a server of this release and one of the next must send a unit to the same arm."""
    salt = salt_of("flight-delay", 1)
    assert salt.hex() == "460388d3229c84e83d725be11b923b6f"
    arms = "".join(
        "x" if arm_of(bytes([unit]), salt, 500_000) is Arm.CHALLENGER else "." for unit in range(32)
    )
    assert arms == "x.xxxx.xx.xxx.....xxx.xxx..x.xx."
