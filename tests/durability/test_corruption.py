"""The corruption matrix, with one flipped bit of each kind (P3); more bits by the command."""

from __future__ import annotations

from tests.durability.corruption import DAMAGES
from tests.support.smoke import Smoke


def test_every_damage_is_found_and_no_wrong_row_read(smoke: Smoke) -> None:
    """{empty, half, one bit, missing, swapped} x every kind of file."""
    outcome = smoke("tests.durability.corruption")
    assert outcome["damages"] >= 17 * len(DAMAGES)
    assert outcome["found"] == outcome["damages"], outcome["by_kind"]
    assert outcome["wrong_rows"] == 0, outcome["by_kind"]
